// Stable Diffusion 3 and FLUX.1 as whole pipelines and in training, against diffusers and PEFT
// (make_flow_pipelines.py).
#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/train/text_to_image/diffusion_loss.h"
#include "ringlet/train/trainer.h"
#include "tests/golden/tiny_flow_model.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

using golden::flow_pipelines;

constexpr double kFlowTolerance = 1e-4;  // relative, fp32, after guided steps
constexpr double kFlowLoss = 1e-5;       // relative, fp32
constexpr double kFlowWeight = 1e-5;     // absolute, after ten steps of 1e-3
constexpr double kFlowGradient = 5e-5;   // relative, norm of the whole gradient

const std::map<std::string, at::Tensor>& expected_tensors() {
  static const auto tensors =
      io::load_tensors(golden::data_folder() / "flow_pipelines.safetensors");
  return tensors;
}

class FlowPipelineGolden : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<pipeline::TextToImageModel> open() const {
    golden::write_flow_folder(folder_ / "model", GetParam());
    pipeline::LoadOptions options;
    options.files.text_tokens = flow_pipelines().at("text_tokens");
    return pipeline::open_text_to_image_model(folder_ / "model", options);
  }
  static pipeline::GenerateRequest request() { return golden::flow_request(GetParam()); }
  static void expect_near(const std::string& part, const at::Tensor& actual) {
    const at::Tensor& want = expected_tensors().at(GetParam() + part);
    ASSERT_EQ(actual.sizes(), want.sizes()) << part;
    const double difference = (actual - want).abs().max().item<double>();
    EXPECT_LE(difference, kFlowTolerance * want.abs().max().item<double>()) << part;
  }

  TemporaryFolder folder_;
};

TEST_P(FlowPipelineGolden, LatentsAndPicturesEqualDiffusers) {
  const at::NoGradGuard no_grad;
  const auto model = open();
  const at::Tensor latents = pipeline::sample(*model, request());
  expect_near(".latents", latents);
  expect_near(".pixels", model->decode(latents.narrow(0, 0, 1)));
  if (GetParam() != "flux_dev") return;
  auto guided = request();
  guided.guidance = 2.0;
  guided.true_guidance = 4.0;
  expect_near(".true_guidance", pipeline::sample(*model, guided));
}

INSTANTIATE_TEST_SUITE_P(Models, FlowPipelineGolden,
                         testing::Values("sd3", "sd3_without_t5", "sd35", "flux_dev",
                                         "flux_schnell"),
                         [](const auto& entry) { return entry.param; });

/// PEFT's name of a parameter of ringlet's: "transformer.LAYER.residual.down" ->
/// "LAYER.lora_A.weight".
std::string peft_parameter(const std::string& name) {
  const std::size_t part = name.find(".residual.");
  const std::size_t layer = std::string("transformer.").size();
  return name.substr(layer, part - layer) +
         (name.ends_with(".down") ? ".lora_A.weight" : ".lora_B.weight");
}

/// Ten steps of LoRA on a tiny model's transformer.
class FlowTrainingGolden : public testing::TestWithParam<std::string> {
 protected:
  FlowTrainingGolden() : run_(flow_pipelines().at("runs").at(GetParam())) {
    const std::string key = run_.at("model");
    golden::write_flow_folder(folder_ / "model", key);
    model_ = pipeline::open_text_to_image_model(folder_ / "model", {.for_training = true});
    adapters_.emplace(make_adapters());
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : adapters_->parameters())
      tensor.copy_((name.ends_with(".up") ? 0.2 : 1.0) *
                   golden::weight(peft_parameter(name), tensor.sizes().vec()));
    adapters_->attach();
    diffusion::TrainingTimes times;
    const std::string weighting = run_.at("weighting");
    times.weighting = weighting == "none"     ? diffusion::SigmaWeighting::none
                      : weighting == "cosmap" ? diffusion::SigmaWeighting::cosmap
                                              : diffusion::SigmaWeighting::sigma_sqrt;
    process_ = model_->noise_process()->with_times(times);
  }

  std::vector<train::StepResult> train() const {
    train::TrainerOptions options;
    options.steps = static_cast<std::int64_t>(run_.at("losses").size());
    options.clip_norm = flow_pipelines().at("clip_norm");
    options.learning_rate.peak = flow_pipelines().at("learning_rate");
    options.optimizer = train::adamw({.weight_decay = flow_pipelines().at("weight_decay")});
    std::vector<train::StepResult> reports;
    train::Trainer(
        train::trainables(*adapters_), [this](std::int64_t step) { return loss(step); }, options)
        .run([&](const train::StepResult& report) {
          reports.push_back(report);
          return true;
        });
    return reports;
  }

  const Json& run_;
  TemporaryFolder folder_;
  std::unique_ptr<pipeline::TextToImageModel> model_;
  std::optional<adapt::AdapterSet> adapters_;
  std::shared_ptr<const diffusion::NoiseProcess> process_;

 private:
  adapt::AdapterSet make_adapters() const {
    const std::string rank = flow_pipelines().at("rank").dump();
    // diffusers' script leaves the second attention of Stable Diffusion 3.5 medium out.
    adapt::TargetOptions targets{.presets = {"attention"}};
    if (run_.at("model") == "sd35") targets.exclude = {"transformer.*.attn2.*"};
    return adapt::AdapterSet::create(
        adapt::parse_method("lora(rank=" + rank + ",alpha=" + rank + ")"),
        adapt::select_targets(pipeline::adaptable(*model_), targets), adapt::FactorTable(),
        Random(0));
  }

  /// diffusers' scripts take levels from a table of the scheduler, shifted where its shift is
  /// fixed.
  diffusion::NoiseLevel level(std::int64_t index) const {
    const Json& scheduler =
        flow_pipelines().at("models").at(run_.at("model").get<std::string>()).at("scheduler");
    const bool dynamic = scheduler.value("use_dynamic_shifting", false);
    const double shift = dynamic ? 1.0 : scheduler.at("shift").get<double>();
    const double time = static_cast<double>(1000 - index) / 1000.0;
    const double sigma = shift * time / (1.0 + (shift - 1.0) * time);
    return {1.0 - sigma, sigma, 1000.0 * sigma};
  }

  at::Tensor loss(std::int64_t step) const {
    const auto indices = flow_pipelines().at("indices").get<std::vector<std::int64_t>>();
    const std::int64_t instance = run_.at("rows");
    const std::int64_t rows = instance + run_.at("class_rows").get<std::int64_t>();
    const std::string name = run_.at("inputs").get<std::string>() + "." + std::to_string(step);
    const Json& config =
        flow_pipelines().at("models").at(run_.at("model").get<std::string>()).at("transformer");
    train::NoisyBatch batch;
    batch.latents = 1.7 * golden::uniform(name + ".latents", {rows, 4, 16, 12});
    batch.noise = 1.7 * golden::uniform(name + ".noise", {rows, 4, 16, 12});
    for (std::int64_t row = 0; row < rows; ++row)
      batch.levels.push_back(level(indices[static_cast<std::size_t>(step + row) % indices.size()]));
    batch.conditions.set(
        "text", golden::uniform(name + ".text", {rows, 7, config.at("joint_attention_dim")}));
    batch.conditions.set(
        "pooled", golden::uniform(name + ".pooled", {rows, config.at("pooled_projection_dim")}));
    model_->add_guidance(batch.conditions, flow_pipelines().at("guidance"));
    const at::Tensor errors = train::denoising_errors(
        *process_, batch, [&](const at::Tensor& x, const at::Tensor& timesteps) {
          return model_->predict(x, timesteps, batch.conditions);
        });
    return train::combine_errors(errors, instance, run_.value("prior_weight", 0.0));
  }
};

TEST_P(FlowTrainingGolden, LossesAndWeightsEqualPeft) {
  const std::vector<train::StepResult> reports = train();
  ASSERT_EQ(reports.size(), run_.at("losses").size());
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const double loss = run_.at("losses")[i], norm = run_.at("gradient_norms")[i];
    EXPECT_NEAR(reports[i].loss, loss, kFlowLoss * loss) << "step " << i;
    EXPECT_NEAR(reports[i].gradient_norm, norm, kFlowGradient * norm) << "step " << i;
  }
  std::size_t compared = 0;
  for (const auto& [name, tensor] : adapters_->parameters()) {
    const at::Tensor& want = expected_tensors().at(GetParam() + "." + peft_parameter(name));
    ASSERT_EQ(tensor.sizes(), want.sizes()) << name;
    EXPECT_LE((tensor.detach() - want).abs().max().item<double>(), kFlowWeight) << name;
    ++compared;
  }
  const auto& all = expected_tensors();
  EXPECT_EQ(compared, std::ranges::count_if(all, [](const auto& one) {
              return one.first.starts_with(GetParam() + ".") && one.first.ends_with(".weight");
            }));
}

INSTANTIATE_TEST_SUITE_P(Runs, FlowTrainingGolden,
                         testing::Values("sd3", "sd35_sigma_sqrt", "flux_dev",
                                         "flux_schnell_prior"),
                         [](const auto& entry) { return entry.param; });

}  // namespace
}  // namespace ringlet
