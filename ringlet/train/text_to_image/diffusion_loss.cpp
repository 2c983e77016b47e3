#include "ringlet/train/text_to_image/diffusion_loss.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/random.h"
#include "ringlet/diffusion/prediction.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/epoch_order.h"

namespace ringlet::train {
namespace {

/// Standard normal numbers of the shape of `like`, on its device.
at::Tensor normal_like(const at::Tensor& like, RandomStream random) {
  at::Tensor numbers = at::empty(like.sizes(), at::kFloat);
  random.fill_normal({numbers.data_ptr<float>(), static_cast<std::size_t>(numbers.numel())});
  return numbers.to(like.device());
}

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
  return error * at::tensor(weights, at::kFloat).to(batch.latents.device());
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
  std::vector<at::Tensor> latents, noises, controls;
  NoisyBatch batch;
  for (const Row& row : rows) {
    const at::Tensor& mean = row.crop->mean;
    latents.push_back(mean + row.crop->deviation *
                                 normal_like(mean, random.stream("posterior", step, row.number)));
    at::Tensor noise = normal_like(mean, random.stream("noise", step, row.number));
    if (options_.noise_offset > 0.0)
      noise += options_.noise_offset * normal_like(mean.slice(1, 0, 1).slice(2, 0, 1),
                                                   random.stream("noise offset", step, row.number));
    noises.push_back(std::move(noise));
    if (options_.control) controls.push_back(row.crop->control);
    RandomStream times = random.stream("timestep", step, row.number);
    batch.levels.push_back(
        model_.noise_process()->draw_level(times, model_.picture_size(mean.sizes())));
  }
  batch.latents = at::stack(latents);
  batch.noise = at::stack(noises);
  if (options_.control) batch.control = at::stack(controls).to(batch.latents.device());
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
