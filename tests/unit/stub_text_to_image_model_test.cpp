// A text-to-image model of three layers, known to this file alone: it is trained, sampled, merged,
// saved, evaluated and planned for through what all models share.
#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/targets.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/diffusion/schedule.h"
#include "ringlet/eval/control_metrics.h"
#include "ringlet/eval/evaluation.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/pipeline/model_folder.h"
#include "ringlet/pipeline/picture_text.h"
#include "ringlet/train/adapter_training.h"
#include "ringlet/train/memory_estimate.h"
#include "ringlet/train/text_to_image/diffusion_loss.h"
#include "ringlet/train/text_to_image/sample_sheet.h"
#include "ringlet/train/text_to_image/training_set.h"
#include "ringlet/train/trainable.h"
#include "ringlet/train/trainer.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::three_layers {
namespace {

namespace fs = std::filesystem;
using pipeline::NetworkRole;

constexpr std::int64_t kWords = 50, kWidth = 3, kUnit = 2;
constexpr const char* kFile = "three_layers.safetensors";

/// A table of words, a convolution that denoises, and one between pictures and latents.
class ThreeLayers final : public pipeline::TextToImageModel {
 public:
  ThreeLayers(const fs::path& path, const pipeline::LoadOptions& options)
      : options_(options),
        process_(std::make_shared<diffusion::Schedule>(diffusion::ScheduleConfig{})) {
    const fs::path file = fs::is_directory(path) ? path / kFile : path;
    description_ = {path, "three layers", "tiny", {file}};
    for (const auto& [name, tensor] : io::load_tensors(file))
      stored_[name.substr(0, name.find('.'))][name.substr(name.find('.') + 1)] = tensor.clone();
    const auto words = source("words", NetworkRole::text_encoder);
    words_.emplace(words.at("table"), kWords, kWidth);
    keep("words", NetworkRole::text_encoder, words);
    const auto painter = source("painter", NetworkRole::denoiser);
    mix_.emplace(painter.at("mix"), 2 * kWidth, kWidth, 1);
    keep("painter", NetworkRole::denoiser, painter);
    const auto pixels = source("pixels", NetworkRole::autoencoder);
    code_.emplace(pixels.at("code"), kWidth, kWidth, 1);
    keep("pixels", NetworkRole::autoencoder, pixels);
  }

  const pipeline::ModelDescription& description() const override { return description_; }
  const pipeline::LoadOptions& options() const override { return options_; }
  const pipeline::ModelNetworks& networks() const override { return networks_; }
  const std::shared_ptr<const diffusion::NoiseProcess>& noise_process() const override {
    return process_;
  }
  pipeline::ModelDefaults defaults() const override {
    return {{24, 16}, 4, 2.0, diffusion::find_sampler("ddim")};
  }

  std::int64_t size_unit() const override { return kUnit; }
  nn::Shape latent_shape(PictureSize size) const override {
    return {kWidth, size.height / kUnit, size.width / kUnit};
  }
  PictureSize picture_size(at::IntArrayRef latents) const override {
    return {latents[latents.size() - 1] * kUnit, latents[latents.size() - 2] * kUnit};
  }
  pipeline::LatentPosterior encode(const at::Tensor& pictures) const override {
    const at::Tensor mean = (*code_)(at::avg_pool2d(pictures, {kUnit, kUnit}));
    return {mean, at::full_like(mean, 0.01)};
  }
  at::Tensor decode(const at::Tensor& latents) const override {
    return latents.repeat_interleave(kUnit, 2).repeat_interleave(kUnit, 3);
  }

  pipeline::PromptTokens tokens(const std::string& prompt) const override {
    const auto count = static_cast<std::int64_t>(prompt.size());
    constexpr std::int64_t kLimit = 20;
    const bool fits = count <= kLimit;
    return {fits ? count : kLimit, count, kLimit, fits ? "" : prompt.substr(kLimit)};
  }
  pipeline::Conditions encode_prompts(std::span<const std::string> prompts,
                                      std::int64_t) const override {
    std::vector<at::Tensor> rows;
    for (const std::string& prompt : prompts) {
      std::vector<std::int64_t> ids = {0};
      for (const char letter : prompt) ids.push_back(static_cast<unsigned char>(letter) % kWords);
      rows.push_back((*words_)(at::tensor(ids, at::kLong)).mean(0));
    }
    return pipeline::Conditions({{"text", at::stack(rows)}});
  }
  at::Tensor predict(const at::Tensor& x, const at::Tensor& timesteps,
                     const pipeline::Conditions& conditions,
                     const pipeline::ControlInput*) const override {
    EXPECT_TRUE(timesteps.numel() == 1 || timesteps.numel() == x.size(0));
    EXPECT_EQ(conditions.rows(), x.size(0));
    const at::Tensor text = conditions.get("text").unsqueeze(-1).unsqueeze(-1);
    return (*mix_)(at::cat({x, text.expand_as(x)}, 1));
  }

  std::vector<pipeline::StepBlock> training_step(
      const pipeline::TrainingStepShape& shape) const override {
    return {{.before = static_cast<double>(shape.rows * shape.size.width * shape.size.height)}};
  }
  double encoding_bytes(PictureSize size) const override {
    return static_cast<double>(size.width * size.height);
  }
  double decoding_bytes(PictureSize size) const override { return encoding_bytes(size); }
  double denoising_bytes(PictureSize size, std::int64_t rows) const override {
    return encoding_bytes(size) * static_cast<double>(rows);
  }

  void save(const fs::path& folder, const pipeline::SaveModelOptions& options) const override {
    pipeline::refuse_own_path(description_, folder);
    make_folder(folder);
    save_file(folder / kFile, options.replacements);
  }
  void save_file(const fs::path& file, const pipeline::Replacements& replacements) const override {
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [network, own] : stored_)
      for (const auto& [name, tensor] : own) tensors[network + "." + name] = tensor;
    for (const auto& [network, changed] : replacements)
      for (const auto& [name, tensor] : changed)
        tensors[network + "." + name] = tensor.detach().contiguous();
    io::save_tensors(file, tensors, {{"family", "three layers"}});
  }

 private:
  nn::WeightSource source(const std::string& name, NetworkRole role) const {
    return nn::WeightSource(std::make_shared<nn::MapStore>(stored_.at(name)),
                            {.trainable = options_.trainable.contains(role)});
  }
  void keep(const std::string& name, NetworkRole role, const nn::WeightSource& source) {
    networks_[name] = {role, source.finish(), Json::object()};
  }

  pipeline::ModelDescription description_;
  pipeline::LoadOptions options_;
  std::shared_ptr<const diffusion::NoiseProcess> process_;
  std::map<std::string, std::map<std::string, at::Tensor>> stored_;
  pipeline::ModelNetworks networks_;
  std::optional<nn::EmbeddingTable> words_;
  std::optional<nn::Conv2d> mix_, code_;
};

bool is_three_layers(const std::shared_ptr<const io::SafetensorsFile>& file) {
  return file->metadata().contains("family");
}

const std::array kFamilies = {pipeline::ModelFamily{
    "three layers", [](const fs::path& folder) { return fs::exists(folder / kFile); },
    is_three_layers,
    [](const fs::path& path,
       const pipeline::LoadOptions& options) -> std::unique_ptr<pipeline::TextToImageModel> {
      return std::make_unique<ThreeLayers>(path, options);
    },
    [](const fs::path& path, const std::string&) -> Json {
      return {{"path", path.string()}, {"kind", "three layers"}};
    }}};

class StubTextToImageModel : public testing::Test {
 protected:
  StubTextToImageModel() {
    io::save_tensors(file(),
                     {{"words.table.weight", golden::uniform("words", {kWords, kWidth})},
                      {"painter.mix.weight", golden::weight("mix", {kWidth, 2 * kWidth, 1, 1})},
                      {"painter.mix.bias", at::zeros({kWidth})},
                      {"pixels.code.weight", at::eye(kWidth).view({kWidth, kWidth, 1, 1})},
                      {"pixels.code.bias", at::zeros({kWidth})}},
                     {{"family", "three layers"}});
    train::write_pictures(folder_ / "pictures", 4);
  }

  fs::path file() const { return folder_ / "model.safetensors"; }
  static std::unique_ptr<pipeline::TextToImageModel> open(const fs::path& path) {
    return pipeline::open_text_to_image_model(path, {}, kFamilies);
  }
  train::TrainingSet pictures(const pipeline::TextToImageModel& model) const {
    auto found = data::read_picture_folder(folder_ / "pictures").pictures;
    for (data::Picture& picture : found) picture.caption = picture.path.stem().string();
    return train::encode_pictures(model, found, {.size = {16, 24}}, folder_ / "cache");
  }
  static train::AdapterTraining adapters(const pipeline::TextToImageModel& model) {
    train::AdapterTrainingOptions options;
    options.learning = adapt::parse_method("lora(rank=2)");
    const auto targets = adapt::select_targets(pipeline::adaptable(model),
                                               {.include = {"painter.mix", "words.table"}});
    return train::AdapterTraining(options, targets, 1);
  }
  /// Trains an adapter and leaves it attached; the mean losses before and after.
  std::pair<double, double> learn(const pipeline::TextToImageModel& model,
                                  adapt::AdapterSet& set) const {
    const train::DiffusionLoss loss(model, pictures(model), {},
                                    {.seed = 1, .batch_size = 2, .train_text = true});
    const auto mean = [&] {
      const at::NoGradGuard no_grad;
      double sum = 0.0;
      for (std::int64_t n = 0; n < 16; ++n) sum += loss(1000 + n).item<double>();
      return sum / 16.0;
    };
    set.attach();
    const double before = mean();
    train::TrainerOptions options{.steps = 60};
    options.learning_rate.peak = 3e-2;
    train::Trainer trainer(
        train::trainables(set), [&](std::int64_t n) { return loss(n); }, options);
    EXPECT_TRUE(trainer.run());
    return {before, mean()};
  }

  TemporaryFolder folder_;
};

pipeline::GenerateRequest request() {
  pipeline::GenerateRequest request;
  request.prompt = "a wave";
  request.seeds = {3, 4};
  return request;
}

TEST_F(StubTextToImageModel, IsOpenedByItsFamilyAlone) {
  EXPECT_EQ(pipeline::find_family(file()), nullptr);  // no row of the library's own table
  const auto model = open(file());
  EXPECT_EQ(model->description().kind, "three layers");
  EXPECT_EQ(kFamilies.front().describe(file(), "").at("kind"), "three layers");
  EXPECT_EQ(pipeline::adaptable(*model).size(), 2u);  // not the autoencoder
  expect_error(ErrorCode::not_found, "does not exist", [&] { open(folder_ / "none"); });
  expect_error(ErrorCode::unsupported, "does not support control networks",
               [&] { model->create_control(pipeline::ControlKind::encoder, 1); });
  expect_error(ErrorCode::unsupported, "does not support textual inversion",
               [&] { model->add_embeddings(file()); });
}

TEST_F(StubTextToImageModel, MakesPicturesWithItsOwnDefaults) {
  const auto model = open(file());
  const auto whole = pipeline::checked(*model, request());
  EXPECT_EQ(whole.size, (PictureSize{24, 16}));
  EXPECT_EQ(whole.guidance, 2.0);
  EXPECT_EQ(whole.steps, 4);
  EXPECT_EQ(whole.sampler.name(), "ddim");
  const std::vector<io::Image> made = pipeline::generate(*model, request());
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(made[0].size(), (PictureSize{24, 16}));
  EXPECT_NE(made[0].pixels, made[1].pixels);
  EXPECT_NE(pipeline::generation_parameters(whole, 3, model->description(),
                                            pipeline::model_hash(model->description()))
                .find("CFG scale: 2, "),
            std::string::npos);

  pipeline::GenerateRequest from_picture = request();
  from_picture.init_image = train::waves(1, 24, 16);
  from_picture.strength = 0.5;
  EXPECT_NE(pipeline::generate(*model, from_picture)[0].pixels, made[0].pixels);
  from_picture.mask_image = from_picture.init_image;
  expect_error(ErrorCode::invalid_argument, "not an inpainting model",
               [&] { pipeline::generate(*model, from_picture); });
  from_picture = request();
  from_picture.size = {17, 16};
  expect_error(ErrorCode::invalid_argument, "17 is not a multiple of 2",
               [&] { pipeline::generate(*model, from_picture); });
}

TEST_F(StubTextToImageModel, TrainsAnAdapterThatIsSavedMergedAndEvaluated) {
  const auto model = open(file());
  train::AdapterTraining trained = adapters(*model);
  const auto plain = pipeline::generate(*model, request());
  const auto [before, after] = learn(*model, trained.set());
  EXPECT_LT(after, 0.9 * before);
  const at::Tensor adapted = pipeline::sample(*model, request());
  const auto sheet = train::sample_sheet(*model, {.prompts = {"a", "b"}, .steps = 2});
  EXPECT_EQ(sheet.size(), (PictureSize{48, 32}));

  // Saved and loaded beside a fresh model.
  adapt::save_adapter(folder_ / "adapter.safetensors", trained.set());
  const auto other = open(file());
  auto loaded =
      adapt::load_adapter(folder_ / "adapter.safetensors", pipeline::adaptable(*other)).set;
  loaded.attach();
  EXPECT_TRUE(at::allclose(pipeline::sample(*other, request()), adapted, 1e-5, 1e-5));
  loaded.detach();

  // Merged into a file and into a folder.
  const adapt::AdapterSet* set = &trained.set();
  pipeline::merge_into_file(*other, {&set, 1}, folder_ / "merged.safetensors");
  pipeline::merge_into_folder(*other, {&set, 1}, folder_ / "merged");
  for (const char* name : {"merged.safetensors", "merged"}) {
    const auto merged = open(folder_ / name);
    EXPECT_TRUE(at::allclose(pipeline::sample(*merged, request()), adapted, 1e-4, 1e-4)) << name;
  }
  EXPECT_EQ(pipeline::generate(*other, request())[0].pixels, plain[0].pixels);  // as it was

  // Evaluated.
  std::vector<eval::Sample> samples;
  const std::vector<io::Image> made = pipeline::generate(*model, request());
  for (std::size_t i = 0; i < made.size(); ++i)
    samples.push_back(
        {std::to_string(i), std::to_string(i), eval::edge_agreement(plain[i], made[i]).f1});
  const eval::Measured measured = eval::measured("F1 of edges", true, samples);
  EXPECT_EQ(measured.samples.size(), 2u);
  EXPECT_GE(measured.interval.mean, 0.0);
  EXPECT_LE(measured.interval.mean, 1.0);
}

TEST_F(StubTextToImageModel, LearnsWhole) {
  pipeline::LoadOptions load;
  load.trainable = {NetworkRole::denoiser};
  const auto model = pipeline::open_text_to_image_model(file(), load, kFamilies);
  const std::vector<train::Trainable> parameters =
      train::trainables(model->networks().at("painter").index, "painter.");
  const train::DiffusionLoss loss(*model, pictures(*model), {}, {.seed = 1});
  train::TrainerOptions options{.steps = 3};
  train::Trainer trainer(
      parameters, [&](std::int64_t n) { return loss(n); }, options);
  EXPECT_TRUE(trainer.run());
  model->save(folder_ / "learnt", {.replacements = pipeline::trained_tensors(*model), .dtype = {}});
  const auto again = open(folder_ / "learnt");
  EXPECT_TRUE(at::equal(again->networks().at("painter").index.tensors.at("mix.weight"),
                        parameters.back().value));
  expect_error(ErrorCode::invalid_argument, "the model itself",
               [&] { again->save(folder_ / "learnt", {}); });
}

TEST_F(StubTextToImageModel, IsPlannedFor) {
  const auto model = open(file());
  const train::TrainingMemory memory =
      train::training_memory(*model, {.parameters = 1000, .rows = 2, .size = {16, 24}});
  EXPECT_EQ(memory.learning, 12000u);
  EXPECT_EQ(memory.step({}), static_cast<std::uint64_t>(1.15 * 2 * 16 * 24));
  EXPECT_EQ(model->newly_cut(std::array<std::string, 2>{"short", std::string(30, 'x')}).size(), 1u);
  EXPECT_TRUE(model->newly_cut(std::array<std::string, 1>{std::string(30, 'x')}).empty());  // told
}

}  // namespace
}  // namespace ringlet::three_layers
