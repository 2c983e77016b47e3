// The loss of denoising (Ho et al. 2020) with prior preservation (DreamBooth, Ruiz et al. 2023).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/random.h"
#include "ringlet/diffusion/denoiser.h"
#include "ringlet/diffusion/loss_rule.h"
#include "ringlet/diffusion/multiresolution_noise.h"
#include "ringlet/diffusion/noise_process.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/train/epoch_order.h"
#include "ringlet/train/task.h"
#include "ringlet/train/text_to_image/training_set.h"

namespace ringlet::train {

/// What one evaluation of the loss depends on, all of B rows.
struct NoisyBatch {
  at::Tensor latents;            ///< clean, [B, C, h, w]
  at::Tensor noise;              ///< [B, C, h, w]: what the network should find
  at::Tensor perturbation = {};  ///< added to the noise that it sees, or undefined
  std::vector<diffusion::NoiseLevel> levels;
  pipeline::Conditions conditions;
  at::Tensor control = {};  ///< control pictures as ControlInput has them, or undefined
  at::Tensor mask = {};     ///< weights of the squared errors [B, 1, h, w], or undefined
};

/// A network's prediction for noisy latents x [B, C, h, w], at the process's input_scale, at the
/// rows' timesteps [B], fp32 on the latents' device.
using Predictor = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& timesteps)>;

/// Mean error per row, [B] in fp32, between a prediction and what it should say under the noise
/// process, with the rule's weights: diffusion::level_weight.
at::Tensor denoising_errors(const diffusion::NoiseProcess& process, const NoisyBatch& batch,
                            const Predictor& predict, const diffusion::LossRule& rule = {});

/// The same of a model, which sees the batch's conditions, and `control` its control pictures.
at::Tensor denoising_errors(const pipeline::TextToImageModel& model, const NoisyBatch& batch,
                            const diffusion::LossRule& rule = {},
                            const pipeline::ControlNetwork* control = nullptr);

/// The loss of a batch from its rows' errors [B]: the mean over the first `instance_rows`, plus
/// `prior_weight` times the mean over the class rows behind them, if there are any.
at::Tensor combine_errors(const at::Tensor& errors, std::int64_t instance_rows,
                          double prior_weight);

/// What FLUX.1 dev is told in training, as in diffusers' and kohya's scripts.
inline constexpr double kTrainingGuidance = 3.5;

struct DiffusionLossOptions {
  std::uint64_t seed = 0;
  std::int64_t batch_size = 1;  ///< instance pictures; as many class pictures come on top
  double prior_weight = 1.0;    ///< of the class pictures' mean error
  diffusion::LossRule rule = {};
  double noise_offset = 0.0;  ///< deviation of a constant added per channel; 0 = off
  diffusion::MultiresolutionOptions multires = {};
  /// Deviation of what is added to the noise that the network sees (Ning et al. 2023, "Input
  /// Perturbation Reduces Exposure Bias in Diffusion Models"); 0 = off.
  double input_perturbation = 0.0;
  double caption_dropout = 0.0;  ///< share of rows with an empty caption
  std::int64_t clip_skip = 1;
  diffusion::TrainingTimes times = {};
  /// What models that are told a guidance scale are told; other models take none.
  std::optional<double> guidance = {};
  bool train_text = false;  ///< text encoders learn, so that their outputs cannot be kept
  const pipeline::ControlNetwork* control = nullptr;  ///< sees the crops' control pictures
};

/// Refuses options that are for models of another kind. Throws Error(invalid_argument).
void check_loss(const DiffusionLossOptions& options, const pipeline::TextToImageModel& model);

/// The loss of micro-batch n as a function of n alone: which pictures, crops, captions, timesteps
/// and noise follow from the seed and n.
class DiffusionLoss {
 public:
  /// `prior` may be empty. Encodes all captions once unless the text encoders learn.
  DiffusionLoss(const pipeline::TextToImageModel& model, TrainingSet instance, TrainingSet prior,
                DiffusionLossOptions options);

  /// Of the whole micro-batch. Whatever goes wrong leaves as an Error.
  at::Tensor operator()(std::int64_t micro_batch) const;

  /// The share of some of its pictures: shares of all parts add up to the loss. They see the same
  /// crops, captions, timesteps and noise as in the whole.
  at::Tensor operator()(std::int64_t micro_batch, const BatchPart& part) const;

  /// The files of its pictures: of each row, with its class picture where there is one.
  std::vector<std::string> example_names(std::int64_t micro_batch) const;

 private:
  struct Row {
    const EncodedPicture* picture;
    const EncodedCrop* crop;
    std::string caption;
    std::uint64_t number;  ///< of the row within the micro-batch
  };
  void draw(const TrainingSet& set, const BucketBatch& batch, std::int64_t micro_batch,
            const BatchPart& part, std::uint64_t first, std::vector<Row>& rows) const;
  std::vector<Row> rows_of(std::int64_t micro_batch, const BatchPart& part) const;
  at::Tensor compute(std::int64_t micro_batch, const BatchPart& part) const;
  std::vector<diffusion::NoiseLevel> levels(const std::vector<Row>& rows,
                                            std::int64_t micro_batch) const;
  std::vector<RandomStream> noise_streams(const std::vector<Row>& rows,
                                          std::int64_t micro_batch) const;
  void add_noise(NoisyBatch& batch, const std::vector<Row>& rows,
                 std::span<const RandomStream> streams, const at::Tensor& table) const;
  at::Tensor perturbation(const std::vector<Row>& rows, std::int64_t micro_batch,
                          const at::Tensor& like) const;
  at::Tensor resolutions(const std::vector<Row>& rows, std::int64_t micro_batch,
                         const at::Tensor& noise) const;
  pipeline::Conditions conditions(const std::vector<Row>& rows, at::IntArrayRef latents) const;

  const pipeline::TextToImageModel& model_;
  std::shared_ptr<const diffusion::NoiseProcess> process_;  ///< the model's, with the chosen times
  TrainingSet instance_, prior_;
  std::vector<std::vector<std::size_t>> instance_buckets_;
  std::vector<std::vector<std::size_t>> prior_buckets_;  ///< in the order of the instances'
  DiffusionLossOptions options_;
  std::map<std::string, pipeline::Conditions> texts_;  ///< by caption, without sizes
};

}  // namespace ringlet::train
