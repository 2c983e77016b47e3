#include "ringlet/train/text_to_image/diffusion_loss.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>

#include "ringlet/core/error.h"
#include "ringlet/data/caption_operations.h"
#include "ringlet/diffusion/prediction.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/device_copy.h"
#include "ringlet/nn/random_tensor.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/control.h"

namespace ringlet::train {
namespace {

/// What denoising_errors needs of the rows' levels as numbers, so that one copy brings all of them
/// to the device.
struct LevelNumbers {
  enum Row : std::int64_t { alpha, sigma, timestep, scale, weight, width, count };
  at::Tensor numbers;     ///< [count, B] in fp32
  bool scaled = false;    ///< whether a scale is not 1
  bool weighted = false;  ///< whether a weight is not 1

  at::Tensor row(Row which) const { return numbers[which]; }
  at::Tensor over_latents(Row which) const { return row(which).view({-1, 1, 1, 1}); }
};

LevelNumbers level_numbers(const diffusion::NoiseProcess& process,
                           const std::vector<diffusion::NoiseLevel>& levels,
                           const diffusion::LossRule& rule) {
  const auto rows = static_cast<std::int64_t>(levels.size());
  LevelNumbers of{at::empty({LevelNumbers::count, rows}, at::kFloat)};
  auto* const numbers = of.numbers.data_ptr<float>();
  for (std::int64_t i = 0; i < rows; ++i) {
    const diffusion::NoiseLevel& level = levels[static_cast<std::size_t>(i)];
    const double scale = process.input_scale(level);
    const double weight = diffusion::level_weight(process, level, rule);
    const double width = diffusion::huber_width(process, level, rule);
    of.scaled = of.scaled || scale != 1.0;
    of.weighted = of.weighted || weight != 1.0;
    const std::array<double, LevelNumbers::count> column = {
        level.alpha, level.sigma, level.timestep, scale, weight, width};
    for (std::size_t k = 0; k < column.size(); ++k)
      numbers[static_cast<std::int64_t>(k) * rows + i] = static_cast<float>(column[k]);
  }
  return of;
}

/// `levels` are the batch's, their numbers on its device.
at::Tensor errors_at(const diffusion::NoiseProcess& process, const NoisyBatch& batch,
                     const LevelNumbers& levels, diffusion::LossKind kind,
                     const Predictor& predict) {
  const diffusion::RowLevels rows{levels.over_latents(LevelNumbers::alpha),
                                  levels.over_latents(LevelNumbers::sigma)};
  const at::Tensor seen =
      batch.perturbation.defined() ? batch.noise + batch.perturbation : batch.noise;
  at::Tensor x = diffusion::add_noise(batch.latents, seen, rows);
  if (levels.scaled) x = levels.over_latents(LevelNumbers::scale) * x;
  const at::Tensor said = predict(x, levels.row(LevelNumbers::timestep));
  const at::Tensor target =
      diffusion::training_target(process.prediction(), batch.latents, batch.noise, rows);
  at::Tensor errors = diffusion::loss_of(
      kind, said - target,
      kind == diffusion::LossKind::l2 ? at::Tensor() : levels.over_latents(LevelNumbers::width));
  if (batch.mask.defined()) errors = errors * batch.mask;
  const at::Tensor error = errors.mean({1, 2, 3});
  return levels.weighted ? error * levels.row(LevelNumbers::weight) : error;
}

/// The model as it sees the batch; both must live as long.
Predictor predictor(const pipeline::TextToImageModel& model, const NoisyBatch& batch,
                    const pipeline::ControlNetwork* control) {
  return [&model, &batch, control](const at::Tensor& x, const at::Tensor& timesteps) {
    if (control == nullptr) return model.predict(x, timesteps, batch.conditions);
    const pipeline::ControlInput input{*control, batch.control};
    return model.predict(x, timesteps, batch.conditions, &input);
  };
}

/// The class pictures of each bucket of the others: those of its size, which must be there.
std::vector<std::vector<std::size_t>> beside(
    const TrainingSet& prior, const TrainingSet& instance,
    const std::vector<std::vector<std::size_t>>& instance_buckets) {
  if (prior.order.empty()) return {};
  const auto sizes = [](const TrainingSet& set, const std::vector<std::size_t>& bucket) {
    return set.pictures[bucket.front()].crops.front().mean.sizes();
  };
  const std::vector<std::vector<std::size_t>> own = prior.buckets();
  std::vector<std::vector<std::size_t>> found;
  for (const std::vector<std::size_t>& bucket : instance_buckets) {
    const auto same = std::ranges::find_if(own, [&](const std::vector<std::size_t>& candidate) {
      return sizes(prior, candidate) == sizes(instance, bucket);
    });
    if (same == own.end())
      throw Error(ErrorCode::internal, "training", "a bucket has no class pictures of its size");
    found.push_back(*same);
  }
  return found;
}

/// [B, 1, h, w], with ones for rows without a mask; undefined where no row has one.
at::Tensor joined_masks(const std::vector<const EncodedCrop*>& crops) {
  const auto masked = [](const EncodedCrop* crop) { return crop->mask.defined(); };
  if (std::ranges::none_of(crops, masked)) return {};
  std::vector<at::Tensor> masks;
  for (const EncodedCrop* crop : crops) {
    const at::Tensor& mean = crop->mean;
    masks.push_back(
        masked(crop) ? crop->mask
                     : at::ones({1, mean.size(1), mean.size(2)}, mean.options().dtype(at::kFloat)));
  }
  return at::stack(masks);
}

}  // namespace

at::Tensor denoising_errors(const diffusion::NoiseProcess& process, const NoisyBatch& batch,
                            const Predictor& predict, const diffusion::LossRule& rule) {
  LevelNumbers levels = level_numbers(process, batch.levels, rule);
  levels.numbers = nn::to_device(levels.numbers, batch.latents.device());
  return errors_at(process, batch, levels, rule.kind, predict);
}

at::Tensor denoising_errors(const pipeline::TextToImageModel& model, const NoisyBatch& batch,
                            const diffusion::LossRule& rule,
                            const pipeline::ControlNetwork* control) {
  return denoising_errors(*model.noise_process(), batch, predictor(model, batch, control), rule);
}

at::Tensor combine_errors(const at::Tensor& errors, std::int64_t instance_rows,
                          double prior_weight) {
  const std::int64_t class_rows = errors.size(0) - instance_rows;
  const at::Tensor instance = errors.narrow(0, 0, instance_rows).mean();
  if (class_rows == 0) return instance;
  return instance + prior_weight * errors.narrow(0, instance_rows, class_rows).mean();
}

void check_loss(const DiffusionLossOptions& options, const pipeline::TextToImageModel& model) {
  if (options.guidance && !model.embeds_guidance())
    throw Error(ErrorCode::invalid_argument, Field("training_guidance"),
                "this model is not told a guidance scale", "leave it out");
  if (options.times.any()) model.noise_process()->with_times(options.times);
}

DiffusionLoss::DiffusionLoss(const pipeline::TextToImageModel& model, TrainingSet instance,
                             TrainingSet prior, DiffusionLossOptions options)
    : model_(model),
      process_(options.times.any() ? model.noise_process()->with_times(options.times)
                                   : model.noise_process()),
      instance_(std::move(instance)),
      prior_(std::move(prior)),
      instance_buckets_(instance_.buckets()),
      prior_buckets_(beside(prior_, instance_, instance_buckets_)),
      options_(options) {
  check_loss(options_, model_);
  if (options_.train_text) return;
  at::NoGradGuard no_grad;
  const auto encode = [&](const std::string& caption) {
    if (!texts_.contains(caption))
      texts_.emplace(caption, model_.encode_prompts(std::array{caption}, options_.clip_skip));
  };
  encode("");
  for (const TrainingSet* set : {&instance_, &prior_})
    for (const EncodedPicture& picture : set->pictures)
      for (const std::string& caption : picture.all_captions()) encode(caption);
}

/// The part's rows of a batch, whose numbers within the micro-batch begin at `first`.
void DiffusionLoss::draw(const TrainingSet& set, const BucketBatch& batch, std::int64_t micro_batch,
                         const BatchPart& part, std::uint64_t first, std::vector<Row>& rows) const {
  const Random random(options_.seed);
  for (std::int64_t i = part.begin; i < part.end; ++i) {
    const EncodedPicture& picture = set.pictures[batch.rows[static_cast<std::size_t>(i)]];
    const std::uint64_t number = first + static_cast<std::uint64_t>(i);
    RandomStream choice =
        random.stream("crop and caption", static_cast<std::uint64_t>(micro_batch), number);
    const EncodedCrop& crop = picture.crops[choice.uniform_int(picture.crops.size())];
    const bool drop =
        choice.uniform() < picture.caption_dropout.value_or(options_.caption_dropout) ||
        data::drops_captions(picture.dropout_every_epochs, batch.epoch);
    const std::string& caption =
        picture.captions.empty() ? picture.caption
                                 : picture.captions[choice.uniform_int(picture.captions.size())];
    rows.push_back({&picture, &crop, drop ? "" : caption, number});
  }
}

/// Pictures of one bucket, and behind them as many class pictures of the same size.
std::vector<DiffusionLoss::Row> DiffusionLoss::rows_of(std::int64_t micro_batch,
                                                       const BatchPart& part) const {
  std::vector<Row> rows;
  const Random random(options_.seed);
  const BucketBatch batch =
      bucket_batch(instance_buckets_, random, "instance order", micro_batch, part.of);
  draw(instance_, batch, micro_batch, part, 0, rows);
  if (prior_buckets_.empty()) return rows;
  const BucketBatch class_batch{
      batch.bucket, batch.epoch,
      batch_rows(prior_buckets_[batch.bucket], random, "class order", micro_batch, part.of)};
  draw(prior_, class_batch, micro_batch, part, static_cast<std::uint64_t>(part.of), rows);
  return rows;
}

std::vector<std::string> DiffusionLoss::example_names(std::int64_t micro_batch) const {
  const std::int64_t count = options_.batch_size;
  const std::vector<Row> rows = rows_of(micro_batch, {0, count, count});
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(i);
    names.push_back(rows[row].picture->name);
    if (std::cmp_less(count, rows.size()))
      names.back() += " with " + rows[row + static_cast<std::size_t>(count)].picture->name;
  }
  return names;
}

std::vector<diffusion::NoiseLevel> DiffusionLoss::levels(const std::vector<Row>& rows,
                                                         std::int64_t micro_batch) const {
  const Random random(options_.seed);
  std::vector<diffusion::NoiseLevel> drawn;
  for (const Row& row : rows) {
    RandomStream times =
        random.stream("timestep", static_cast<std::uint64_t>(micro_batch), row.number);
    drawn.push_back(process_->draw_level(times, model_.picture_size(row.crop->mean.sizes())));
  }
  return drawn;
}

/// In the order in which add_noise takes them.
std::vector<RandomStream> DiffusionLoss::noise_streams(const std::vector<Row>& rows,
                                                       std::int64_t micro_batch) const {
  const Random random(options_.seed);
  std::vector<RandomStream> streams;
  for (const char* name : {"posterior", "noise", "noise offset"})
    if (options_.noise_offset > 0.0 || name != std::string_view("noise offset"))
      for (const Row& row : rows)
        streams.push_back(random.stream(name, static_cast<std::uint64_t>(micro_batch), row.number));
  return streams;
}

/// The rows' latents and noise, from normal numbers of noise_streams() and their table.
void DiffusionLoss::add_noise(NoisyBatch& batch, const std::vector<Row>& rows,
                              std::span<const RandomStream> streams,
                              const at::Tensor& table) const {
  std::vector<at::Tensor> means, deviations;
  for (const Row& row : rows) {
    means.push_back(row.crop->mean);
    deviations.push_back(row.crop->deviation);
  }
  const at::Tensor mean = at::stack(means);
  const std::int64_t count = mean.size(0), channels = mean.size(1);
  // The first numbers of `groups` times as many streams as rows.
  const auto draw = [&](std::int64_t first, std::int64_t groups, std::int64_t numbers) {
    return nn::normal_numbers(streams.subspan(static_cast<std::size_t>(first * count),
                                              static_cast<std::size_t>(groups * count)),
                              table.narrow(1, first * count, groups * count), numbers);
  };
  const at::Tensor normal = draw(0, 2, mean.numel() / count);
  batch.latents = mean + at::stack(deviations) * normal.narrow(0, 0, count).reshape(mean.sizes());
  batch.noise = normal.narrow(0, count, count).reshape(mean.sizes());
  // A number per channel: drawn apart, since the CPU would draw a whole latent for each row.
  if (options_.noise_offset > 0.0)
    batch.noise =
        batch.noise + options_.noise_offset * draw(2, 1, channels).reshape({count, channels, 1, 1});
}

/// What the noise that the network sees has more than the noise that it should find.
at::Tensor DiffusionLoss::perturbation(const std::vector<Row>& rows, std::int64_t micro_batch,
                                       const at::Tensor& like) const {
  std::vector<RandomStream> streams;
  for (const Row& row : rows)
    streams.push_back(
        Random(options_.seed)
            .stream("input perturbation", static_cast<std::uint64_t>(micro_batch), row.number));
  const at::Tensor normal = nn::normal_numbers(streams, like[0].numel(), like.device());
  return options_.input_perturbation * normal.reshape(like.sizes());
}

/// The noise with coarser noise added to each row; latents of three axes or more end in height and
/// width.
at::Tensor DiffusionLoss::resolutions(const std::vector<Row>& rows, std::int64_t micro_batch,
                                      const at::Tensor& noise) const {
  const Random random(options_.seed);
  const auto step = static_cast<std::uint64_t>(micro_batch);
  std::vector<at::Tensor> shaped;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const at::Tensor own = noise[static_cast<std::int64_t>(i)];
    RandomStream ratios = random.stream("noise resolutions", step, rows[i].number);
    std::vector<at::Tensor> layers;
    for (const auto& [height, width] : diffusion::layer_sizes(
             {own.size(-2), own.size(-1)}, options_.multires.iterations, ratios)) {
      const std::array stream = {
          random.stream("noise layer " + std::to_string(layers.size()), step, rows[i].number)};
      layers.push_back(nn::normal_numbers(stream, own.size(0) * height * width, own.device())
                           .reshape({own.size(0), height, width}));
    }
    shaped.push_back(diffusion::multiresolution_noise(own, layers, options_.multires.discount));
  }
  return at::stack(shaped);
}

pipeline::Conditions DiffusionLoss::conditions(const std::vector<Row>& rows,
                                               at::IntArrayRef latents) const {
  const PictureSize size = model_.picture_size(latents);
  std::vector<std::string> captions;
  std::vector<pipeline::Conditions> texts;
  std::vector<pipeline::PictureFrame> frames;
  for (const Row& row : rows) {
    captions.push_back(row.caption);
    if (!options_.train_text) texts.push_back(texts_.at(row.caption));
    frames.push_back({row.picture->size, row.crop->left, row.crop->top, size});
  }
  pipeline::Conditions joined = options_.train_text
                                    ? model_.encode_prompts(captions, options_.clip_skip)
                                    : pipeline::Conditions::concatenate(texts);
  model_.add_sizes(joined, frames);
  model_.add_guidance(joined, options_.guidance.value_or(kTrainingGuidance));
  return joined;
}

at::Tensor DiffusionLoss::operator()(std::int64_t micro_batch) const {
  return (*this)(micro_batch, BatchPart::of_batch(options_.batch_size, 0, 1));
}

at::Tensor DiffusionLoss::operator()(std::int64_t micro_batch, const BatchPart& part) const {
  return nn::with_ringlet_errors("training", [&] { return compute(micro_batch, part); });
}

at::Tensor DiffusionLoss::compute(std::int64_t micro_batch, const BatchPart& part) const {
  const std::vector<Row> rows = rows_of(micro_batch, part);
  NoisyBatch batch;
  batch.levels = levels(rows, micro_batch);
  const diffusion::NoiseProcess& process = *process_;
  LevelNumbers numbers = level_numbers(process, batch.levels, options_.rule);
  const std::vector<RandomStream> streams = noise_streams(rows, micro_batch);
  const at::Tensor& some = rows.front().crop->mean;

  // All that a step brings to the device.
  std::vector<at::Tensor> host = {nn::stream_table(streams), numbers.numbers};
  std::vector<at::Tensor> controls;
  if (options_.control) {
    for (const Row& row : rows) controls.push_back(row.crop->seen_control());
    host.push_back(at::stack(controls));
  }
  const std::vector<at::Tensor> there = nn::to_device(host, some.device());
  numbers.numbers = there[1];
  if (options_.control) batch.control = pipeline::control_tensor(there[2]);

  std::vector<const EncodedCrop*> crops;
  for (const Row& row : rows) crops.push_back(row.crop);
  batch.mask = joined_masks(crops);
  add_noise(batch, rows, streams, there[0]);
  if (options_.multires.iterations > 0) batch.noise = resolutions(rows, micro_batch, batch.noise);
  if (options_.input_perturbation > 0.0)
    batch.perturbation = perturbation(rows, micro_batch, batch.noise);
  batch.conditions = conditions(rows, batch.latents.sizes());
  const at::Tensor loss = combine_errors(errors_at(process, batch, numbers, options_.rule.kind,
                                                   predictor(model_, batch, options_.control)),
                                         part.end - part.begin, options_.prior_weight);
  return part.end - part.begin == part.of ? loss : loss * part.share();
}

}  // namespace ringlet::train
