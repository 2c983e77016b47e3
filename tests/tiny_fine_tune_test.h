// Whole training runs on the tiny model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/train/metrics_file.h"
#include "ringlet/train/run.h"
#include "ringlet/train/text_to_image/text_to_image_task.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::train {

/// All that `ringlet train` takes.
struct FineTuneOptions : RunOptions, TextToImageOptions {};

/// All that it says before it starts.
struct FineTunePlan : RunPlan, TextToImagePlan {};

/// A run on pictures.
class FineTune {
 public:
  explicit FineTune(const FineTuneOptions& options, const RunObserver& observer = {})
      : run_(options, text_to_image(options), observer) {}

  const RunOptions& options() const { return run_.options(); }
  FineTunePlan plan() const {
    return {run_.plan(), dynamic_cast<const TextToImageTask&>(run_.task()).plan()};
  }
  bool run(const RunObserver& observer) { return run_.run(observer); }
  std::filesystem::path result() const { return run_.result(); }
  std::optional<std::filesystem::path> companion() const { return run_.companion(); }

 private:
  Run run_;
};

class FineTuning : public testing::Test {
 protected:
  FineTuning() {
    golden::write_folder(folder_ / "model", "sd1");
    write_pictures(folder_ / "pictures");
  }

  /// Everything small and without pictures to look at. The last part of OUT is in the adapter file.
  FineTuneOptions options(const std::string& out = "run") const {
    FineTuneOptions o;
    o.model = folder_ / "model";
    o.load.device = test_device();
    o.out = folder_ / out;
    o.seed = 5;
    o.instance_images = folder_ / "pictures";
    o.instance_prompt = "a photo of a dog";
    o.crop.size = {16, 16};
    o.learning = adapt::parse_method("trm(rank=2)+lora(rank=2)");
    o.trainer.steps = 3;
    o.trainer.learning_rate.peak = 1e-2;
    o.samples.images = 1;
    o.samples.steps = 1;
    return o;
  }

  /// Everything that draws random numbers or has a state.
  FineTuneOptions all_options(const std::string& out) const {
    FineTuneOptions o = options(out);
    o.train_text_encoder = true;
    o.class_prompt = "a photo of a pet";
    o.class_count = 3;
    o.crop.flip = o.crop.random = true;
    o.identity_penalty = 0.1;
    o.orthogonal_penalty = 0.2;
    o.gradient_checkpointing = true;
    o.trainer.steps = 5;
    o.trainer.gradient_accumulation = 2;
    o.trainer.ema_decay = 0.9;
    o.trainer.clip_norm = 0.5;
    o.trainer.learning_rate.decay = Decay::cosine;
    o.trainer.learning_rate.warmup = 2;
    o.batch_size = 2;
    o.loss.rule.min_snr_gamma = 5.0;
    o.loss.rule.debiased = true;
    o.loss.rule.p2_gamma = 0.5;
    o.loss.rule.kind = diffusion::LossKind::huber;
    o.loss.noise_offset = 0.1;
    o.loss.multires.iterations = 3;
    o.loss.input_perturbation = 0.1;
    o.loss.times.distribution = diffusion::TimeDistribution::logit_normal;
    o.loss.times.most = 0.9;
    o.scale_weight_norms = 0.5;
    o.trainer.part_rates = {{"text_encoder*", 1e-3}};
    o.trainer.lora_plus_ratio = 4.0;
    o.loss.caption_dropout = 0.3;
    return o;
  }

  static bool run(const FineTuneOptions& options, std::int64_t stop_after = -1) {
    return FineTune(options).run({.progress = {}, .step = [&](const StepResult& report) {
                                    return report.step != stop_after;
                                  }});
  }

  static std::vector<MetricsRow> metrics(const FineTuneOptions& options) {
    return read_metrics(options.out / "metrics.csv");
  }

  /// The same steps with the same numbers, but for the time.
  static void expect_same_metrics(const FineTuneOptions& a, const FineTuneOptions& b) {
    const auto x = metrics(a), y = metrics(b);
    ASSERT_EQ(x.size(), y.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(x[i].step, y[i].step);
      EXPECT_EQ(x[i].loss, y[i].loss) << "step " << x[i].step;
      EXPECT_EQ(x[i].gradient_norm, y[i].gradient_norm) << "step " << x[i].step;
      EXPECT_EQ(x[i].learning_rate, y[i].learning_rate);
      EXPECT_EQ(x[i].skipped, y[i].skipped);
    }
  }

  TemporaryFolder folder_;
};

}  // namespace ringlet::train
