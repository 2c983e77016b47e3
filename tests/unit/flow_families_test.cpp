// Stable Diffusion 3 and FLUX.1 as families: what they are told by, defaults, what they refuse, and
// what a saved one holds.
#include <functional>
#include <map>
#include <string>

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/set/targets.h"
#include "ringlet/diffusion/schedule.h"
#include "ringlet/pipeline/describe.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/model_families.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_flow_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

class FlowFamily : public testing::Test {
 protected:
  fs::path write(const std::string& key) const {
    golden::write_flow_folder(folder_ / key, key);
    return folder_ / key;
  }
  static void edit(const fs::path& file, const std::function<void(Json&)>& change) {
    Json json = read_json_file(file);
    change(json);
    golden::write_json(file, json);
  }
  static std::unique_ptr<TextToImageModel> open(const fs::path& path) {
    LoadOptions options;
    options.files.text_tokens = 16;
    return open_text_to_image_model(path, options);
  }
  static std::size_t count(const TextToImageModel& model, const char* preset) {
    return adapt::select_targets(adaptable(model), {.presets = {preset}}).size();
  }

  TemporaryFolder folder_;
};

TEST_F(FlowFamily, KindAndDefaultsFollowFromTheTransformer) {
  struct Want {
    const char *key, *kind;
    std::int64_t steps;
    double guidance;
    bool told;
  };
  for (const Want& want : {Want{"sd3", "Stable Diffusion 3", 28, 7.0, false},
                           Want{"sd35", "Stable Diffusion 3.5 medium", 28, 7.0, false},
                           Want{"flux_dev", "FLUX.1 dev", 28, 3.5, true},
                           Want{"flux_schnell", "FLUX.1 schnell", 4, 1.0, false}}) {
    const fs::path path = write(want.key);
    const auto model = open(path);
    EXPECT_EQ(model->description().kind, want.kind);
    EXPECT_EQ(model->defaults().steps, want.steps) << want.key;
    EXPECT_EQ(model->defaults().guidance, want.guidance) << want.key;
    EXPECT_EQ(model->defaults().sampler.name(), "euler") << want.key;
    EXPECT_EQ(model->embeds_guidance(), want.told) << want.key;
    EXPECT_EQ(model->size_unit(), 4) << want.key;
    EXPECT_EQ(describe(path).at("kind"), std::string(want.kind) + " model folder");
    EXPECT_GT(model->denoising_bytes({32, 32}, 1), 0.0);
    EXPECT_GT(model->training_step({.size = {32, 32}}).size(), 2u);
  }
}

TEST_F(FlowFamily, PresetsKnowTheLayersOfTheTransformer) {
  const auto sd3 = open(write("sd3")), flux = open(write("flux_dev"));
  EXPECT_EQ(count(*sd3, "attention"), 15u);     // the last block makes nothing of its text
  EXPECT_EQ(count(*sd3, "attention+ff"), 21u);  // of two blocks and one text
  EXPECT_EQ(count(*flux, "attention"), 11u);
  EXPECT_EQ(count(*flux, "attention+ff"), 17u);  // not the last projection
  EXPECT_EQ(count(*flux, "text-encoder"), 26u);  // two layers of CLIP, two of T5
  EXPECT_EQ(count(*sd3, "double-blocks"), 25u);
  EXPECT_EQ(count(*flux, "double-blocks"), 14u);
  EXPECT_EQ(count(*flux, "single-blocks"), 6u);
  EXPECT_EQ(count(*flux, "all-linear"), 30u);  // and ten of embeddings and the end
  expect_error(ErrorCode::invalid_argument, "Stable Diffusion 3 double blocks",
               [&] { count(*sd3, "single-blocks"); });
}

TEST_F(FlowFamily, LayersAreOfBlocksAndKinds) {
  const auto flux = open(write("flux_dev"));
  std::map<std::string, int> groups;
  for (const char* preset : {"all-linear", "text-encoder"})
    for (const auto& target : adapt::select_targets(adaptable(*flux), {.presets = {preset}}))
      ++groups[adapt::layer_group(target)];
  EXPECT_EQ(groups, (std::map<std::string, int>{{"text_encoder, attention", 8},
                                                {"text_encoder, feed-forward", 4},
                                                {"text_encoder_2, attention", 8},
                                                {"text_encoder_2, feed-forward", 6},
                                                {"transformer, double blocks, attention", 8},
                                                {"transformer, double blocks, feed-forward", 4},
                                                {"transformer, double blocks, modulation", 2},
                                                {"transformer, other layers", 10},
                                                {"transformer, single blocks, attention", 3},
                                                {"transformer, single blocks, feed-forward", 2},
                                                {"transformer, single blocks, modulation", 1}}));
}

TEST_F(FlowFamily, PartsOfOtherModelsAreNamed) {
  const auto refused = [](ErrorCode code, const fs::path& path, const char* words) {
    expect_error(code, words, [&] { open(path); });
  };
  const fs::path flux = write("flux_dev");
  edit(flux / "scheduler/scheduler_config.json",
       [](Json& json) { json["_class_name"] = "DDIMScheduler"; });
  refused(ErrorCode::unsupported, flux, "not one of rectified flow");
  const fs::path schnell = write("flux_schnell");
  edit(schnell / "model_index.json", [](Json& json) { json.erase("text_encoder_2"); });
  refused(ErrorCode::unsupported, schnell, "no part \"text_encoder_2\"");
  const fs::path sd3 = write("sd3");
  edit(sd3 / "text_encoder/config.json",
       [](Json& json) { json["architectures"] = {"CLIPTextModel"}; });
  refused(ErrorCode::mismatch, sd3, "text_encoder");
  const fs::path sd35 = write("sd35");
  fs::remove_all(sd35 / "text_encoder_3");
  refused(ErrorCode::not_found, sd35, "text_encoder_3");
}

TEST_F(FlowFamily, GuidanceOfAnotherKindIsRefused) {
  const auto sd3 = open(write("sd3"));
  GenerateRequest request;
  request.size = {32, 32};
  request.true_guidance = 2.0;
  expect_error(ErrorCode::invalid_argument, "true_guidance", [&] { checked(*sd3, request); });
  const auto flux = open(write("flux_dev"));
  EXPECT_EQ(classifier_free_scale(*flux, request), 2.0);
  request.true_guidance.reset();
  EXPECT_EQ(classifier_free_scale(*flux, checked(*flux, request)), 1.0);
  request.size = {34, 32};
  expect_error(ErrorCode::invalid_argument, "not a multiple of 4",
               [&] { checked(*flux, request); });
  expect_error(ErrorCode::invalid_argument, "clip_skip",
               [&] { flux->encode_prompts(std::array{std::string("a dog")}, 2); });
}

TEST_F(FlowFamily, ANewControlNetworkChangesNothing) {
  const at::NoGradGuard no_grad;
  for (const char* key : {"sd35", "flux_dev"}) {
    const auto model = open(write(key));
    GenerateRequest request;
    request.prompt = "a dog";
    request.size = {32, 16};
    request.steps = 2;
    const at::Tensor plain = sample(*model, request);
    request.control_image = io::Image{32, 16, std::vector<std::uint8_t>(32 * 16 * 3, 200)};
    for (const ControlKind kind : {ControlKind::encoder, ControlKind::channels}) {
      const auto control = model->create_control(kind, 1);
      EXPECT_EQ(control->kind(), kind);
      request.control = control.get();
      EXPECT_TRUE(sample(*model, request).equal(plain)) << key << name_of(kind);
      for (const auto& [name, tensor] : control->tensors())
        if (name == "channels.weight" || name == "conv_out.weight") tensor.fill_(0.1);
      const at::Tensor changed = sample(*model, request);
      EXPECT_FALSE(changed.equal(plain)) << key << name_of(kind);
      std::map<std::string, at::Tensor> kept;
      for (const auto& [name, tensor] : control->tensors()) kept[name] = tensor.detach();
      const auto again = model->control_from_tensors(kept, "the file");
      request.control = again.get();
      EXPECT_TRUE(sample(*model, request).equal(changed)) << key << name_of(kind);
    }
    expect_error(ErrorCode::unsupported, model->description().kind,
                 [&] { model->create_control(ControlKind::controlnet, 1); });
  }
}

TEST_F(FlowFamily, ASavedModelHasItsTableOfPositionsAndIsTheSame) {
  const at::NoGradGuard no_grad;
  for (const char* key : {"sd3_without_t5", "flux_schnell"}) {
    const auto model = open(write(key));
    const fs::path saved = folder_ / (std::string(key) + "_saved");
    model->save(saved, {});
    const auto again = open(saved);
    EXPECT_EQ(again->description().kind, model->description().kind);
    GenerateRequest request;
    request.prompt = "a dog";
    request.size = {32, 32};
    request.steps = 2;
    EXPECT_TRUE(sample(*model, request).equal(sample(*again, request))) << key;
    const auto tensors =
        io::load_tensors(saved / "transformer/diffusion_pytorch_model.safetensors");
    EXPECT_EQ(tensors.contains("pos_embed.pos_embed"), std::string(key).starts_with("sd3"));
  }
}

TEST_F(FlowFamily, TrainingTimesAreChosenForRectifiedFlowAlone) {
  const auto model = open(write("flux_dev"));
  diffusion::TrainingTimes times;
  EXPECT_FALSE(times.any());
  times.shift = 1.0;
  times.distribution = diffusion::TimeDistribution::uniform;
  const auto process = model->noise_process()->with_times(times);
  RandomStream one = Random(3).stream("times"), other = Random(3).stream("times");
  EXPECT_EQ(process->draw_level(one, {32, 32}).sigma, other.uniform());
  times.least = 0.25;
  times.most = 0.5;
  const auto part = model->noise_process()->with_times(times);
  EXPECT_EQ(part->draw_level(one, {32, 32}).sigma, 0.25 + 0.25 * other.uniform());
  times.mode_scale = 1.0;
  expect_error(ErrorCode::invalid_argument, "mode_scale",
               [&] { model->noise_process()->with_times(times); });
  times.mode_scale = std::nullopt;
  const diffusion::Schedule ddpm{diffusion::ScheduleConfig()};
  expect_error(ErrorCode::invalid_argument, "rectified flow", [&] { ddpm.with_times(times); });
}

}  // namespace
}  // namespace ringlet::pipeline
