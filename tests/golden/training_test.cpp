// Training against PEFT, diffusers and torch.optim.AdamW (make_training.py).
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/json.h"
#include "ringlet/diffusion/schedule.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/train/text_to_image/diffusion_loss.h"
#include "ringlet/train/trainer.h"
#include "tests/golden/tiny_model.h"

namespace ringlet {
namespace {

constexpr double kLossTolerance = 1e-6;      // relative, fp32
constexpr double kWeightTolerance = 1e-5;    // absolute, after ten steps of 1e-3
constexpr double kGradientTolerance = 1e-5;  // relative, norm of the whole gradient

const Json& golden_training() {
  static const Json json = read_json_file(golden::data_folder() / "training.json");
  return json;
}

/// One of the tiny U-Nets with formula weights.
struct TinyUNet {
  explicit TinyUNet(const std::string& model)
      : json(golden::pipelines().at("models").at(model)),
        source(std::make_shared<golden::FormulaStore>()),
        unet(source, models::UNetConfig::from_json(json.at("unet"), model)),
        index(source.finish()) {}

  diffusion::Schedule schedule(bool zero_terminal = false) const {
    Json config = json.at("scheduler");
    config["rescale_betas_zero_snr"] = zero_terminal;
    return diffusion::Schedule(diffusion::ScheduleConfig::from_json(config, "scheduler"));
  }

  const Json& json;
  nn::WeightSource source;
  models::UNet unet;
  nn::ModuleIndex index;
};

/// The errors of rows at these timesteps, whose latents, noise and text follow from the key.
at::Tensor errors_of(const models::UNet& unet, const diffusion::Schedule& schedule,
                     const std::string& key, const std::vector<std::int64_t>& timesteps,
                     double min_snr_gamma = 0.0) {
  const auto rows = static_cast<std::int64_t>(timesteps.size());
  const nn::Shape shape = {rows, 4, 16, 12};
  train::NoisyBatch batch;
  batch.latents = 1.7 * golden::uniform(key + ".latents", shape);
  batch.noise = 1.7 * golden::uniform(key + ".noise", shape);
  for (const std::int64_t timestep : timesteps) batch.levels.push_back(schedule.level(timestep));
  const at::Tensor times = at::tensor(timesteps, at::kFloat);
  const at::Tensor text = golden::uniform(key + ".text", {rows, 7, 64});
  return train::denoising_errors(
      schedule, batch,
      [&](const at::Tensor& x, const auto&) { return unet.forward(x, times, text); },
      {.min_snr_gamma = min_snr_gamma});
}

/// PEFT's name of a parameter of ringlet's: "unet.LAYER.residual.down" -> "LAYER.lora_A.weight".
std::string peft_name(const std::string& name) {
  const std::size_t part = name.find(".residual.");
  const std::size_t layer = std::string("unet.").size();
  return name.substr(layer, part - layer) +
         (name.ends_with(".down") ? ".lora_A.weight" : ".lora_B.weight");
}

/// Ten steps of LoRA; made anew for every run.
class LoraRun {
 public:
  explicit LoraRun(const std::string& key)
      : run_(golden_training().at("runs").at(key)),
        model_("sd1"),
        adapters_(make_adapters()),
        schedule_(model_.schedule()) {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : adapters_.parameters()) {
      const double scale = name.ends_with(".up") ? run_.at("up").get<double>() : 1.0;
      tensor.copy_(scale * golden::weight(peft_name(name), tensor.sizes().vec()));
    }
    adapters_.attach();
  }

  std::vector<train::StepResult> train() const {
    train::TrainerOptions options;
    options.steps = static_cast<std::int64_t>(run_.at("losses").size());
    options.clip_norm = run_.at("clip_norm");
    options.learning_rate.peak = golden_training().at("learning_rate");
    options.optimizer = train::adamw({.weight_decay = golden_training().at("weight_decay")});
    std::vector<train::StepResult> reports;
    train::Trainer(
        train::trainables(adapters_), [this](std::int64_t step) { return loss(step); }, options)
        .run([&](const train::StepResult& report) {
          reports.push_back(report);
          return true;
        });
    return reports;
  }

  adapt::Parameters parameters() const { return adapters_.parameters(); }

 private:
  adapt::AdapterSet make_adapters() const {
    const std::string rank = golden_training().at("rank").dump();
    return adapt::AdapterSet::create(
        adapt::parse_method("lora(rank=" + rank + ",alpha=" + rank + ")"),
        adapt::select_targets({{"unet", &model_.index}}, {.presets = {"attention"}}),
        adapt::FactorTable(), Random(0));
  }

  at::Tensor loss(std::int64_t step) const {
    const auto all = golden_training().at("timesteps").get<std::vector<std::int64_t>>();
    const std::int64_t instance_rows = run_.at("rows");
    const std::int64_t rows = instance_rows + run_.at("class_rows").get<std::int64_t>();
    std::vector<std::int64_t> timesteps;
    for (std::int64_t row = 0; row < rows; ++row)
      timesteps.push_back(all[static_cast<std::size_t>(step + row) % all.size()]);
    const at::Tensor errors =
        errors_of(model_.unet, schedule_,
                  run_.at("inputs").get<std::string>() + "." + std::to_string(step), timesteps);
    return train::combine_errors(errors, instance_rows, run_.at("prior_weight"));
  }

  const Json& run_;
  TinyUNet model_;
  adapt::AdapterSet adapters_;
  diffusion::Schedule schedule_;
};

class TrainingGolden : public testing::TestWithParam<std::string> {
 protected:
  static void expect_equal_to_peft() {
    const LoraRun run(GetParam());
    expect_reports(run.train());
    expect_weights(run.parameters());
  }

 private:
  static void expect_reports(const std::vector<train::StepResult>& reports) {
    const Json& want = golden_training().at("runs").at(GetParam());
    ASSERT_EQ(reports.size(), want.at("losses").size());
    for (std::size_t i = 0; i < reports.size(); ++i) {
      const double loss = want.at("losses")[i], norm = want.at("gradient_norms")[i];
      EXPECT_NEAR(reports[i].loss, loss, kLossTolerance * loss) << "step " << i;
      EXPECT_NEAR(reports[i].gradient_norm, norm, kGradientTolerance * norm) << "step " << i;
    }
  }

  static void expect_weights(const adapt::Parameters& parameters) {
    auto want = io::load_tensors(golden::data_folder() / "training.safetensors");
    std::erase_if(want, [](const auto& one) { return !one.first.starts_with(GetParam() + "."); });
    ASSERT_EQ(parameters.size(), want.size());
    for (const auto& [name, tensor] : parameters) {
      const at::Tensor& expected = want.at(GetParam() + "." + peft_name(name));
      ASSERT_EQ(tensor.sizes(), expected.sizes()) << name;
      EXPECT_LE((tensor.detach() - expected).abs().max().item<double>(), kWeightTolerance) << name;
    }
  }
};

TEST_P(TrainingGolden, LossesAndWeightsEqualPeft) { expect_equal_to_peft(); }

TEST_P(TrainingGolden, CheckpointingChangesNothing) {
  const nn::GradientCheckpointing on(true);
  expect_equal_to_peft();
}

INSTANTIATE_TEST_SUITE_P(Runs, TrainingGolden,
                         testing::Values("zero_start", "small_start", "prior"),
                         [](const auto& entry) { return entry.param; });

TEST(MinSnrGolden, WeightedErrorsEqualDiffusers) {
  const at::NoGradGuard no_grad;
  for (const auto& [key, want] : golden_training().at("min_snr").items()) {
    const TinyUNet model(want.at("model").get<std::string>());
    const auto timesteps = want.at("timesteps").get<std::vector<std::int64_t>>();
    const at::Tensor errors =
        errors_of(model.unet, model.schedule(want.at("zero_terminal").get<bool>()),
                  "min_snr." + key, timesteps, golden_training().at("min_snr_gamma").get<double>());
    for (std::size_t i = 0; i < timesteps.size(); ++i) {
      const double row = want.at("rows")[i];
      EXPECT_NEAR(errors[static_cast<std::int64_t>(i)].item<double>(), row, kLossTolerance * row)
          << key << " at timestep " << timesteps[i];
    }
    const double loss = want.at("loss");
    EXPECT_NEAR(train::combine_errors(errors, errors.size(0), 1.0).item<double>(), loss,
                kLossTolerance * loss)
        << key;
  }
}

}  // namespace
}  // namespace ringlet
