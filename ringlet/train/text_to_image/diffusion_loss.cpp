#include "ringlet/train/text_to_image/diffusion_loss.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <c10/util/accumulate.h>

#include "ringlet/core/random.h"
#include "ringlet/diffusion/prediction.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/epoch_order.h"

namespace ringlet::train {
namespace {

/// Standard normal numbers of a whole batch: drawn into one array, which one copy brings to the
/// device.
class NormalNumbers {
 public:
  NormalNumbers(std::int64_t count, at::Device device)
      : host_(at::empty({count}, at::TensorOptions(at::kFloat).pinned_memory(device.is_cuda()))),
        device_(device) {}

  void draw(std::int64_t count, RandomStream random) {
    random.fill_normal({host_.data_ptr<float>() + drawn_, static_cast<std::size_t>(count)});
    drawn_ += count;
  }

  /// The next ones in the order in which they were drawn, on the device.
  at::Tensor next(at::IntArrayRef shape) {
    if (!moved_.defined()) moved_ = nn::to_device(host_, device_);
    const std::int64_t count = c10::multiply_integers(shape);
    taken_ += count;
    return moved_.narrow(0, taken_ - count, count).view(shape);
  }

 private:
  at::Tensor host_, moved_;
  at::Device device_;
  std::int64_t drawn_ = 0, taken_ = 0;
};

}  // namespace

at::Tensor denoising_errors(const diffusion::NoiseProcess& process, const NoisyBatch& batch,
                            const Predictor& predict, double min_snr_gamma) {
  const diffusion::Prediction prediction = process.prediction();
  std::vector<at::Tensor> noisy, targets;
  std::vector<double> weights;
  for (std::size_t i = 0; i < batch.levels.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    const diffusion::NoiseLevel& level = batch.levels[i];
    const at::Tensor x = diffusion::add_noise(batch.latents[row], batch.noise[row], level);
    const double scale = process.input_scale(level);
    noisy.push_back(scale == 1.0 ? x : scale * x);
    targets.push_back(
        diffusion::training_target(prediction, batch.latents[row], batch.noise[row], level));
    weights.push_back(process.loss_weight(level, min_snr_gamma));
  }
  const at::Tensor said = predict(at::stack(noisy), batch.levels);
  const at::Tensor error = (said - at::stack(targets)).pow(2).mean({1, 2, 3});
  // Usually all are 1: then nothing goes to the device for them.
  if (std::ranges::all_of(weights, [](double weight) { return weight == 1.0; })) return error;
  return error * nn::to_device(at::tensor(weights, at::kFloat), batch.latents.device());
}

at::Tensor denoising_errors(const pipeline::TextToImageModel& model, const NoisyBatch& batch,
                            double min_snr_gamma, const pipeline::ControlNetwork* control) {
  std::optional<pipeline::ControlInput> input;
  if (control != nullptr) input.emplace(pipeline::ControlInput{*control, batch.control});
  return denoising_errors(
      *model.noise_process(), batch,
      [&](const at::Tensor& x, const std::vector<diffusion::NoiseLevel>& levels) {
        return model.predict(x, levels, batch.conditions, input ? &*input : nullptr);
      },
      min_snr_gamma);
}

at::Tensor combine_errors(const at::Tensor& errors, std::int64_t instance_rows,
                          double prior_weight) {
  const std::int64_t class_rows = errors.size(0) - instance_rows;
  const at::Tensor instance = errors.narrow(0, 0, instance_rows).mean();
  if (class_rows == 0) return instance;
  return instance + prior_weight * errors.narrow(0, instance_rows, class_rows).mean();
}

DiffusionLoss::DiffusionLoss(const pipeline::TextToImageModel& model, TrainingSet instance,
                             TrainingSet prior, DiffusionLossOptions options)
    : model_(model), instance_(std::move(instance)), prior_(std::move(prior)), options_(options) {
  if (options_.train_text) return;
  at::NoGradGuard no_grad;
  const auto encode = [&](const std::string& caption) {
    if (!texts_.contains(caption))
      texts_.emplace(caption, model_.encode_prompts(std::array{caption}, options_.clip_skip));
  };
  encode("");
  for (const TrainingSet* set : {&instance_, &prior_})
    for (const EncodedPicture& picture : set->pictures) encode(picture.caption);
}

void DiffusionLoss::draw(const TrainingSet& set, const char* name, std::int64_t micro_batch,
                         std::vector<Row>& rows) const {
  const Random random(options_.seed);
  for (const std::size_t index :
       batch_rows(set.order, random, name, micro_batch, options_.batch_size)) {
    const EncodedPicture& picture = set.pictures[index];
    const auto number = static_cast<std::uint64_t>(rows.size());
    RandomStream choice =
        random.stream("crop and caption", static_cast<std::uint64_t>(micro_batch), number);
    const EncodedCrop& crop = picture.crops[choice.uniform_int(picture.crops.size())];
    const bool drop = choice.uniform() < options_.caption_dropout;
    rows.push_back({&picture, &crop, drop ? "" : picture.caption, number});
  }
}

NoisyBatch DiffusionLoss::noisy(const std::vector<Row>& rows, std::int64_t micro_batch) const {
  const Random random(options_.seed);
  const auto step = static_cast<std::uint64_t>(micro_batch);
  const at::Tensor& first = rows.front().crop->mean;  // all are of one size
  const std::int64_t size = first.numel();
  const std::int64_t channels = options_.noise_offset > 0.0 ? first.size(0) : 0;
  NormalNumbers numbers(static_cast<std::int64_t>(rows.size()) * (2 * size + channels),
                        first.device());
  for (const Row& row : rows) {
    numbers.draw(size, random.stream("posterior", step, row.number));
    numbers.draw(size, random.stream("noise", step, row.number));
    if (channels > 0) numbers.draw(channels, random.stream("noise offset", step, row.number));
  }
  std::vector<at::Tensor> latents, noises, controls;
  NoisyBatch batch;
  for (const Row& row : rows) {
    const at::Tensor& mean = row.crop->mean;
    latents.push_back(mean + row.crop->deviation * numbers.next(mean.sizes()));
    at::Tensor noise = numbers.next(mean.sizes());
    if (channels > 0) noise = noise + options_.noise_offset * numbers.next({channels, 1, 1});
    noises.push_back(std::move(noise));
    if (options_.control) controls.push_back(row.crop->control);
    RandomStream times = random.stream("timestep", step, row.number);
    batch.levels.push_back(
        model_.noise_process()->draw_level(times, model_.picture_size(mean.sizes())));
  }
  batch.latents = at::stack(latents);
  batch.noise = at::stack(noises);
  if (options_.control) batch.control = nn::to_device(at::stack(controls), batch.latents.device());
  return batch;
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
  if (options_.train_text) return model_.conditions(captions, frames, options_.clip_skip);
  pipeline::Conditions joined = pipeline::Conditions::concatenate(texts);
  model_.add_sizes(joined, frames);
  return joined;
}

at::Tensor DiffusionLoss::operator()(std::int64_t micro_batch) const {
  return nn::with_ringlet_errors("training", [&] { return compute(micro_batch); });
}

at::Tensor DiffusionLoss::compute(std::int64_t micro_batch) const {
  std::vector<Row> rows;
  draw(instance_, "instance order", micro_batch, rows);
  if (!prior_.order.empty()) draw(prior_, "class order", micro_batch, rows);
  NoisyBatch batch = noisy(rows, micro_batch);
  batch.conditions = conditions(rows, batch.latents.sizes());
  return combine_errors(denoising_errors(model_, batch, options_.min_snr_gamma, options_.control),
                        options_.batch_size, options_.prior_weight);
}

}  // namespace ringlet::train
