// Models and training runs whose frozen denoiser is kept in a narrow storage.
#include <cmath>
#include <map>
#include <string>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/io/safetensors.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "ringlet/train/memory_estimate.h"
#include "tests/file_content.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

using nn::WeightStorage;

class BaseStorage : public FineTuning {
 protected:
  pipeline::StableDiffusion model(WeightStorage storage, bool for_training = false,
                                  bool low_memory = false) const {
    pipeline::LoadOptions load{.device = test_device(), .low_memory = low_memory};
    load.storage = storage;
    load.for_training = for_training;
    return pipeline::StableDiffusion::open(folder_ / "model", load);
  }

  static at::Tensor predicted(const pipeline::StableDiffusion& model) {
    const at::NoGradGuard no_grad;
    const at::Tensor x = golden::uniform("x", {1, 4, 8, 8});
    const at::Tensor times = at::full({1}, 500.0, x.options());
    return model.predict(x, times, model.encode_prompts(std::vector<std::string>{"a dog"}, 1));
  }

  FineTuneOptions over(WeightStorage storage, const std::string& method,
                       const std::string& out) const {
    FineTuneOptions o = options(out + "/run");
    o.learning = adapt::parse_method(method);
    o.load.storage = storage;
    return o;
  }
};

TEST_F(BaseStorage, TheDenoisersFrozenLayersAreNarrowAndTheRestIsNot) {
  for (const auto& [name, storage] : nn::kWeightStorageNames) {
    SCOPED_TRACE(name);
    const auto sd = model(storage, /*for_training=*/true);
    for (const auto& [component, network] : sd.networks())
      for (const auto& [layer, its] : network.index.layers) {
        bool wide = component != "unet";
        for (const char* front : {"conv_in", "conv_out", "time_embedding"})
          wide = wide || layer.starts_with(front);
        const nn::StoredWeight& weight = its->stored_weight();
        EXPECT_EQ(weight.storage(), wide || !is_coded(storage) ? WeightStorage::as_stored : storage)
            << component << layer;
        if (storage == WeightStorage::bf16 && !wide)
          EXPECT_EQ(weight.plain().scalar_type(), at::kBFloat16) << layer;
        EXPECT_TRUE(!its->bias().defined() || its->bias().scalar_type() == at::kFloat);
      }
  }
}

TEST_F(BaseStorage, PredictionsAreNearThoseOfFp32AndEqualInBothPasses) {
  const at::Tensor fp32 = predicted(model(WeightStorage::as_stored));
  const std::map<WeightStorage, double> most = {{WeightStorage::fp32, 1e-5},
                                                {WeightStorage::bf16, 0.01},
                                                {WeightStorage::int8, 0.02},
                                                {WeightStorage::fp8, 0.15},
                                                {WeightStorage::nf4, 0.45}};
  for (const auto& [storage, relative] : most) {
    SCOPED_TRACE(nn::weight_storage_name(storage));
    const at::Tensor here = predicted(model(storage));
    EXPECT_LT((here - fp32).norm().item<double>(), relative * fp32.norm().item<double>());
    EXPECT_LT((predicted(model(storage, /*for_training=*/true)) - here).abs().max().item<double>(),
              1e-4 * here.abs().max().item<double>());
    EXPECT_LT(
        (predicted(model(storage, false, /*low_memory=*/true)) - here).abs().max().item<double>(),
        1e-4 * here.abs().max().item<double>());
  }
}

TEST_F(BaseStorage, AdaptersTrainOverEveryStorage) {
  const auto losses = [&](WeightStorage storage, const std::string& method) {
    FineTuneOptions o = over(storage, method, nn::weight_storage_name(storage) + method);
    o.trainer.steps = 2;
    EXPECT_TRUE(run(o));
    const std::string training =
        io::SafetensorsFile::open(o.out / "adapter.safetensors")->metadata().at("ringlet.training");
    EXPECT_NE(training.find("\"base storage\":\"" + nn::weight_storage_name(storage) + "\""),
              std::string::npos);
    return metrics(o);
  };
  for (const char* method : {"trm(rank=2)+tr(rank=2)", "lora(rank=2)+magnitude"}) {
    const auto fp32 = losses(WeightStorage::fp32, method);
    for (const WeightStorage storage :
         {WeightStorage::bf16, WeightStorage::int8, WeightStorage::fp8, WeightStorage::nf4}) {
      SCOPED_TRACE(nn::weight_storage_name(storage) + method);
      const auto narrow = losses(storage, method);
      ASSERT_EQ(narrow.size(), fp32.size());
      const double near = storage == WeightStorage::nf4 ? 0.2 : 0.05;
      for (std::size_t i = 0; i < narrow.size(); ++i) {
        EXPECT_FALSE(narrow[i].skipped);
        EXPECT_NEAR(narrow[i].loss, fp32[i].loss, near * fp32[i].loss);
        EXPECT_GT(narrow[i].gradient_norm, 0.0);
      }
    }
  }
}

TEST_F(BaseStorage, ARunOverNf4ResumesBitExactlyAndCheckpointingChangesNothing) {
  const auto all = [&](const std::string& out) {
    FineTuneOptions o = over(WeightStorage::nf4, "trm(rank=2)+lora(rank=2)+magnitude", out);
    o.targets.presets = {"all"};
    return o;
  };
  const FineTuneOptions whole = all("whole");
  EXPECT_TRUE(run(whole));
  FineTuneOptions parts = all("parts");
  EXPECT_FALSE(run(parts, 1));
  parts.resume = true;
  EXPECT_TRUE(run(parts));
  EXPECT_EQ(file_content(parts.out / "adapter.safetensors"),
            file_content(whole.out / "adapter.safetensors"));
  FineTuneOptions checkpointed = all("checkpointed");
  checkpointed.gradient_checkpointing = true;
  EXPECT_TRUE(run(checkpointed));
  const auto a = metrics(whole), b = metrics(checkpointed);
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i].loss, b[i].loss, 1e-4 * a[i].loss);
    EXPECT_NEAR(a[i].gradient_norm, b[i].gradient_norm, 1e-3 * a[i].gradient_norm);
  }
}

TEST_F(BaseStorage, AControlNetStartsFromTheUNetAsItComputes) {
  const auto sd = model(WeightStorage::int8);
  const auto control = sd.create_control(pipeline::ControlKind::controlnet, 1);
  std::size_t copied = 0;
  for (const auto& [name, layer] : sd.networks().at("unet").index.layers)
    if (const auto found = control->tensors().find(name + ".weight");
        found != control->tensors().end()) {
      EXPECT_TRUE(at::equal(found->second, layer->weight())) << name;
      EXPECT_TRUE(found->second.requires_grad());
      copied += layer->stored_weight().coded() ? 1 : 0;
    }
  EXPECT_GT(copied, 10u);
}

TEST_F(BaseStorage, PlansKnowWhatIsInMemory) {
  if (!test_device().is_cpu()) return;
  const auto weights = [&](WeightStorage storage) {
    const auto sd = model(storage, /*for_training=*/true);
    return training_memory(sd, {.size = {32, 32}}).weights;
  };
  const std::uint64_t pages = weights(WeightStorage::as_stored);
  EXPECT_GT(pages, 0u);
  // Codes are resident when the plan is made; only what stays wide is read from the file.
  for (const WeightStorage storage : {WeightStorage::int8, WeightStorage::nf4})
    EXPECT_LT(weights(storage), pages / 2);
}

}  // namespace
}  // namespace ringlet::train
