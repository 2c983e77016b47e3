// NaN and infinity in a run: which step, which picture, which layer; and no file that holds one.
#include <algorithm>
#include <limits>

#include <ATen/ops/full_like.h>
#include <gtest/gtest.h>

#include "ringlet/io/tensor_file.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "ringlet/train/not_finite.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

const float kNaN = std::numeric_limits<float>::quiet_NaN();

class NotFiniteRun : public FineTuning {
 protected:
  /// Replaces one tensor of the model by such numbers.
  void spoil(const std::string& file, const std::string& tensor, float number) const {
    const fs::path path = folder_ / "model" / file;
    auto tensors = io::load_tensors(path);
    tensors.at(tensor) = at::full_like(tensors.at(tensor), number);
    io::save_tensors(path, tensors);
  }

  pipeline::StableDiffusion open_model() const {
    pipeline::LoadOptions load;
    load.for_training = true;
    return pipeline::StableDiffusion::open(folder_ / "model", load);
  }

  /// All numbers of all tensor files of the run.
  static void expect_finite_files(const fs::path& out) {
    for (const auto& entry : fs::recursive_directory_iterator(out))
      if (entry.path().extension() == ".safetensors") {
        for (const auto& [name, tensor] : io::load_tensors(entry.path()))
          EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << entry.path() << " " << name;
      }
  }
};

TEST_F(NotFiniteRun, AnActivationIsToldByLayerPictureAndStep) {
  spoil("unet/diffusion_pytorch_model.safetensors", "mid_block.resnets.0.conv1.bias", kNaN);
  FineTuneOptions o = options();
  o.trainer.steps = 30;
  const LogCapture log;
  try {
    run(o);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::non_finite);
    const std::string text = error.what();
    EXPECT_NE(text.find("10 steps in a row"), std::string::npos) << text;
    EXPECT_NE(text.find("in step 10 the loss of micro-batch 9"), std::string::npos) << text;
    EXPECT_NE(text.find(".png)"), std::string::npos) << text;
    EXPECT_NE(text.find("it begins in unet.mid_block.resnets.0.conv1"), std::string::npos) << text;
    EXPECT_NE(text.find("step-00000010.safetensors"), std::string::npos) << text;
  }
  EXPECT_NE(log.warnings().find("step 1: "), std::string::npos) << log.warnings();
  const TrainState state =
      CheckpointFolder::load(*CheckpointFolder(o.out / "checkpoints", 1).latest());
  EXPECT_EQ(state.skipped, 10);
  EXPECT_EQ(state.updates, 0);
  EXPECT_FALSE(fs::exists(o.out / "adapter.safetensors"));
  expect_finite_files(o.out);
}

// One bad picture among three: steps with it are skipped and named, the run goes on.
TEST_F(NotFiniteRun, ABadPictureIsNamedAndItsStepsAreSkipped) {
  const auto model = open_model();
  TrainingSet set = encode_pictures(model, data::read_picture_folder(folder_ / "pictures").pictures,
                                    {.size = {16, 16}}, {});
  set.pictures[1].crops[0].mean.fill_(kNaN);
  const DiffusionLoss loss(model, set, {}, {.seed = 3, .batch_size = 2});
  std::ptrdiff_t bad = 0;
  for (std::int64_t n = 0; n < 6; ++n) {
    const std::vector<std::string> names = loss.example_names(n);
    ASSERT_EQ(names.size(), 2u);
    const auto shown = std::ranges::count(names, "b.png");
    EXPECT_EQ(std::isfinite(loss(n).item<double>()), shown == 0) << n;
    bad += shown;
  }
  EXPECT_EQ(bad, 4);  // four epochs of three pictures
}

// The autoencoder overflows: every picture is named at once, and the cache stays empty.
TEST_F(NotFiniteRun, LatentsThatAreNotFiniteAreToldAndNotCached) {
  spoil("vae/diffusion_pytorch_model.safetensors", "encoder.conv_in.bias", kNaN);
  FineTuneOptions o = options();
  o.trainer.steps = 12;
  o.cache = folder_ / "cache";
  const LogCapture log;
  expect_error(ErrorCode::non_finite, "10 steps in a row", [&] { run(o); });
  for (const char* name : {"a.png", "b.png", "c.png"})
    EXPECT_NE(log.warnings().find(std::string(name) + ": the autoencoder makes numbers"),
              std::string::npos)
        << log.warnings();
  EXPECT_EQ(entry_count(folder_ / "cache"), 0u);
  expect_finite_files(o.out);
}

TEST_F(NotFiniteRun, AGradientIsToldByParameter) {
  const std::vector<Trainable> parameters = {trainable("unet.a.residual.up", {3}),
                                             trainable("unet.b.residual.up", {3})};
  Trainer trainer(parameters,
                  [&](std::int64_t n) {
                    const at::Tensor w = parameters[1].value;
                    // At the third step the loss is 0 and its gradient 0 * inf.
                    return n == 2 ? (w - w).sqrt().sum() : (w + parameters[0].value).sum();
                  },
                  {.steps = 4, .learning_rate = {.peak = 0.1}});
  const LogCapture log;
  std::vector<std::string> problems;
  EXPECT_TRUE(trainer.run([&](const StepResult& step) {
    problems.push_back(step.problem);
    return true;
  }));
  EXPECT_EQ(problems, (std::vector<std::string>{"", "", "the gradient of unet.b.residual.up", ""}));
  EXPECT_EQ(trainer.skipped(), 1);
  EXPECT_NE(log.warnings().find("step 3: the loss or its gradient is not finite"),
            std::string::npos)
      << log.warnings();
}

// Sample pictures are for people: those that cannot be made are a warning, and no file.
TEST_F(NotFiniteRun, APictureIsAWarningAndIsNotWritten) {
  spoil("vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.bias",
        std::numeric_limits<float>::infinity());
  const FineTuneOptions o = options();
  const LogCapture log;
  EXPECT_TRUE(run(o));
  EXPECT_NE(log.warnings().find("no sample pictures"), std::string::npos) << log.warnings();
  EXPECT_EQ(entry_count(o.out / "samples"), 0u);
  EXPECT_TRUE(fs::exists(o.out / "adapter.safetensors"));
  expect_finite_files(o.out);
}

// An update that overflows: the step after it finds it, and what is saved is from before.
TEST_F(NotFiniteRun, AnUpdateThatOverflowsIsNeverWritten) {
  FineTuneOptions o = options();
  o.trainer.steps = 14;
  o.trainer.checkpoint_every = 1;
  o.trainer.learning_rate.peak = 1e30;
  EXPECT_THROW(run(o), Error);
  EXPECT_FALSE(fs::exists(o.out / "adapter.safetensors"));
  if (fs::exists(o.out / "checkpoints")) expect_finite_files(o.out);
}

TEST_F(NotFiniteRun, ProbesLeaveTheNetworkAsItWas) {
  const auto model = open_model();
  const nn::ModuleIndex& index = model.networks().at("unet").index;
  const adapt::Components components = {{"unet", &index}};
  const auto& first = index.layers.begin()->second;
  int calls = 0;
  EXPECT_FALSE(first_not_finite_layer(components, [&] {
    ++calls;
    EXPECT_TRUE(first->adapter);
  }));
  EXPECT_THROW(first_not_finite_layer(components, [] { throw std::bad_alloc(); }), std::bad_alloc);
  EXPECT_EQ(calls, 1);
  for (const auto& [name, layer] : index.layers) EXPECT_FALSE(layer->adapter) << name;
}

}  // namespace
}  // namespace ringlet::train
