// Names in adapter files of other programs, and whole files of them.
#include <algorithm>
#include <filesystem>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/formats/adapter_names.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/io/tensor_file.h"
#include "tests/expect_error.h"
#include "tests/hollow_networks.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

/// Adapter files of other programs, which lie beside the repository on machines that have them.
class RealAdapters : public testing::Test {
 protected:
  static std::filesystem::path folder() {
    return std::filesystem::path(RINGLET_SOURCE_DIR) / "../shared/data/adapters";
  }

  void SetUp() override {
    if (!std::filesystem::exists(folder())) GTEST_SKIP() << "no " << folder();
  }

  /// The tensors of each layer by their endings, in order. What has no known ending is left out.
  static std::map<ModuleName, std::map<std::string, nn::Shape>> read(
      const char* name, const Indices& indices, const std::vector<std::string>& endings) {
    const ModuleNames names(components(indices));
    const auto file = io::SafetensorsFile::open(folder() / name);
    std::map<ModuleName, std::map<std::string, nn::Shape>> found;
    std::size_t skipped = 0;
    for (const io::TensorInfo& info : file->tensors()) {
      const auto ending = std::ranges::find_if(
          endings, [&](const std::string& known) { return info.name.ends_with(known); });
      if (ending == endings.end()) {
        EXPECT_TRUE(info.name.starts_with("<s")) << info.name;
        ++skipped;
        continue;
      }
      const auto module = names.find(info.name.substr(0, info.name.size() - ending->size()));
      EXPECT_TRUE(module) << info.name;
      if (!module) continue;
      EXPECT_TRUE(found[*module].emplace(*ending, info.shape).second) << info.name;
    }
    EXPECT_EQ(found.size() * endings.size() + skipped, file->tensors().size());
    return found;
  }

  static nn::Shape weight(const Indices& indices, const ModuleName& module) {
    return indices.at(module.component).layers.at(module.path)->weight().sizes().vec();
  }

  static void expect_low_rank(const char* file, const Indices& indices, const std::string& down,
                              const std::string& up, std::size_t count) {
    const auto found = read(file, indices, {down, up});
    EXPECT_EQ(found.size(), count);
    for (const auto& [module, parts] : found)
      EXPECT_EQ((nn::Shape{parts.at(up)[0], parts.at(down)[1]}), weight(indices, module))
          << module.component << " " << module.path;
  }
};

TEST_F(RealAdapters, CloneofsimoPositionsFitTheirLayers) {
  const Indices indices = stable_diffusion_1();
  for (const char* file :
       {"cloneofsimo_analog_svd_rank4.safetensors", "cloneofsimo_lora_disney.safetensors"}) {
    expect_low_rank(file, indices, ":down", ":up", 144 + 48);
    const auto metadata = io::SafetensorsFile::open(folder() / file)->metadata();
    for (const char* component : {"unet", "text_encoder"}) {
      const auto stated = Json::parse(metadata.at(component)).get<std::set<std::string>>();
      const auto classes = cloneofsimo_classes(component);
      EXPECT_EQ(stated, std::set<std::string>(classes.begin(), classes.end()));
    }
  }
}

TEST_F(RealAdapters, DiffusersNamesFitTheirLayers) {
  expect_low_rank("diffusers_sd21base_whale_r4.safetensors", stable_diffusion_2(),
                  ".lora.down.weight", ".lora.up.weight", 128);
}

TEST_F(RealAdapters, KohyaNamesFitTheirLayers) {
  const Indices indices = stable_diffusion_1();
  for (const char* file :
       {"lycoris_smart_falcon_4_lokr.safetensors", "lycoris_smart_falcon_8_lokr.safetensors"}) {
    const auto found =
        read(file, indices, {".alpha", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2_a", ".lokr_w2_b"});
    EXPECT_EQ(found.size(), 350U);
    for (const auto& [module, parts] : found) {
      const nn::Shape shape = weight(indices, module);
      std::int64_t in = 1;
      for (std::size_t axis = 1; axis < shape.size(); ++axis) in *= shape[axis];
      EXPECT_EQ(parts.at(".lokr_w1_a")[0] * parts.at(".lokr_w2_a")[0], shape[0]) << module.path;
      EXPECT_EQ(parts.at(".lokr_w1_b")[1] * parts.at(".lokr_w2_b")[1], in) << module.path;
    }
  }
}

// Weights and biases of every layer from the real files, for models of the real shapes.
TEST_F(RealAdapters, EveryFileIsReadWhole) {
  const Indices first = stable_diffusion_1(), second = stable_diffusion_2();
  struct Expected {
    const char* file;
    const Indices& model;
    const char* dialect;
    std::size_t layers;
    const char* method;  ///< of some layer
  };
  for (const Expected& one : std::vector<Expected>{
           {"cloneofsimo_analog_svd_rank4.safetensors", first, "cloneofsimo", 192,
            "lora(alpha=4,rank=4)"},
           {"cloneofsimo_lora_disney.safetensors", first, "cloneofsimo", 192,
            "lora(alpha=1,rank=1)"},
           {"diffusers_sd21base_whale_r4.safetensors", second, "diffusers", 128,
            "lora(alpha=4,rank=4)"},
           {"lycoris_smart_falcon_4_lokr.safetensors", first, "kohya", 350, "lokr("},
           {"lycoris_smart_falcon_8_lokr.safetensors", first, "kohya", 350, "lokr("}}) {
    const ReadAdapter read = read_adapter(folder() / one.file, components(one.model));
    EXPECT_EQ(read.summary.dialect, one.dialect);
    EXPECT_EQ(read.set.entries().size(), one.layers);
    EXPECT_TRUE(read.summary.methods.lower_bound(one.method)->first.starts_with(one.method));
    const auto& entry = read.set.entries().front();
    const at::Tensor w0 = entry.target.layer->weight();
    EXPECT_GT((entry.adapter->weight(w0) - w0).abs().max().item<double>(), 0.0) << one.file;
  }
}

// Names of real files for other networks, without their numbers.
TEST_F(RealAdapters, FilesForTransformersAreSaidToBeThat) {
  const Indices indices = stable_diffusion_1();
  const TemporaryFolder scratch;
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder() / "../keylists")) {
    const Json names = read_json_file(entry.path());  // must outlive the loop
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [name, shape] : names.items()) tensors[name] = at::zeros({1});
    io::save_tensors(scratch / "adapter.safetensors", tensors);
    const bool flux = entry.path().filename().string().starts_with("flux");
    expect_error(ErrorCode::mismatch,
                 flux ? "is an adapter of FLUX" : "is an adapter of a diffusion transformer",
                 [&] { read_adapter(scratch / "adapter.safetensors", components(indices)); });
    ++count;
  }
  EXPECT_GT(count, 0U);
}

}  // namespace
}  // namespace ringlet::formats
