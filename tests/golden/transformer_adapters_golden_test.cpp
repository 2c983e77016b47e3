// Adapters of Stable Diffusion 3 and FLUX in the layouts of other programs: the merged weights, as
// diffusers converts adapters or merged checkpoints (tests/golden/make_transformer_adapters.py).
#include <filesystem>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/formats/adapter_reader.h"
#include "ringlet/formats/adapter_writer.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/weight_source.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

/// The file's tensors whose names begin with `prefix`, under the rest of their names.
Tensors stored_under(const std::string& prefix) {
  static const Tensors all = io::load_tensors(std::filesystem::path(RINGLET_SOURCE_DIR) /
                                              "tests/golden/data/transformer_adapters.safetensors");
  Tensors some;
  for (auto one = all.lower_bound(prefix); one != all.end() && one->first.starts_with(prefix);
       ++one)
    some.emplace(one->first.substr(prefix.size()), one->second);
  return some;
}

nn::ModuleIndex transformer_index(const std::string& family) {
  nn::ModuleIndex index;
  const Tensors base = stored_under(family + "|base|");
  for (const auto& [name, tensor] : base) {
    index.tensors.emplace(name, tensor);
    if (!name.ends_with(".weight") || tensor.dim() < 2) continue;
    const std::string layer = name.substr(0, name.rfind('.'));
    const at::Tensor bias = base.at(layer + ".bias");
    if (tensor.dim() == 2)
      index.layers[layer] = std::make_shared<nn::LinearLayer>(tensor, bias);
    else
      index.layers[layer] =
          std::make_shared<nn::Conv2dLayer>(tensor, bias, nn::Conv2dOptions{.stride = 2});
  }
  return index;
}

double expect_merged(const ReadAdapter& read, const Tensors& expected, const std::string& what) {
  const Tensors merged = read.set.merged_weights();
  double worst = 0.0;
  std::set<std::string> names;
  for (const auto& [name, tensor] : merged) names.insert(name.substr(name.find('.') + 1));
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(names.contains(name)) << what << " changes " << name;
    if (!names.contains(name)) continue;
    const at::Tensor& own = merged.at("transformer." + name);
    EXPECT_EQ(own.sizes(), tensor.sizes()) << what << ": " << name;
    const double error =
        (own - tensor).abs().max().item<double>() / tensor.abs().max().item<double>();
    EXPECT_LE(error, 1e-6) << what << ": " << name;
    worst = std::max(worst, error);
  }
  return worst;
}

struct LayoutCase {
  const char* name;
  const char* dialect;
  /// Formats that hold it; each is written, read again, and found to be the same.
  std::set<AdapterFormat> held;
};

const std::set<AdapterFormat> kAll = {AdapterFormat::kohya, AdapterFormat::lycoris,
                                      AdapterFormat::comfyui, AdapterFormat::diffusers,
                                      AdapterFormat::peft};
const std::set<AdapterFormat> kLycoris = {AdapterFormat::lycoris, AdapterFormat::comfyui};

std::vector<LayoutCase> layout_cases() {
  using enum AdapterFormat;
  return {
      {"flux_kohya", "kohya", kAll},
      {"flux_kohya_sparse", "kohya", kAll},
      {"flux_kohya_final", "kohya", kAll},
      {"flux_xlabs", "XLabs", kAll},
      {"flux_control", "the original layout", {comfyui}},
      {"flux_diffusers", "diffusers", kAll},
      {"flux_peft", "PEFT", kAll},
      {"flux_comfyui", "ComfyUI", kAll},
      {"flux_dora", "kohya", {kohya, lycoris, comfyui}},
      {"flux_loha", "kohya", {lycoris, comfyui, peft}},
      {"flux_lokr", "kohya", kLycoris},
      {"flux_lokr_cut", "ComfyUI", {}},
      {"flux_oft", "kohya", kLycoris},
      {"flux_oft_limited", "kohya", {}},
      {"flux_diff", "kohya", {kohya, lycoris, comfyui}},
      {"sd3_kohya", "kohya", kAll},
      {"sd3_comfyui", "ComfyUI", kAll},
      {"sd3_dora", "kohya", {kohya, lycoris, comfyui}},
      {"sd3_loha", "kohya", {lycoris, comfyui, peft}},
      {"sd3_lokr", "kohya", kLycoris},
      {"sd3_lokr_cut", "ComfyUI", {}},
      {"sd3_oft", "kohya", kLycoris},
      {"sd3_oft_limited", "kohya", {}},
      {"sd3_diff", "kohya", {kohya, lycoris, comfyui}},
  };
}

/// Writes what was read in every format that holds it, and reads that.
void expect_round_trips(const LayoutCase& one, const ReadAdapter& read,
                        const adapt::Components& components, const Tensors& expected) {
  for (const AdapterFormat format : one.held) {
    SCOPED_TRACE(std::string(one.name) + " as " + name_of(format));
    const TemporaryFolder folder;
    const auto path =
        format == AdapterFormat::peft ? folder / "peft" : folder / "again.safetensors";
    write_adapter(path, read.set, read.info, components, {.format = format});
    expect_merged(read_adapter(path, components), expected, one.name);
  }
}

TEST(TransformerAdapterGolden, EveryLayoutMergesAsDiffusersConvertsItAndComesBack) {
  for (const LayoutCase& one : layout_cases()) {
    SCOPED_TRACE(one.name);
    const std::string family = std::string(one.name).starts_with("flux") ? "flux" : "sd3";
    const nn::ModuleIndex network = transformer_index(family);
    const adapt::Components components = {{"transformer", &network}};
    const Tensors adapter = stored_under(std::string(one.name) + "|adapter|");
    const Tensors expected = stored_under(std::string(one.name) + "|merged|");
    ASSERT_FALSE(adapter.empty());
    const TemporaryFolder folder;
    io::save_tensors(folder / "adapter.safetensors", adapter);
    const ReadAdapter read = read_adapter(folder / "adapter.safetensors", components);
    EXPECT_EQ(read.summary.dialect, one.dialect);
    expect_merged(read, expected, one.name);
    // Nothing else is changed.
    for (const auto& [name, tensor] : read.set.merged_weights())
      EXPECT_TRUE(expected.contains(name.substr(name.find('.') + 1))) << name;
    expect_round_trips(one, read, components, expected);
  }
}

TEST(TransformerAdapterGolden, FusedFilesComeBackAsTheyWere) {
  for (const char* name : {"flux_kohya", "flux_kohya_sparse", "flux_loha", "flux_lokr", "flux_oft",
                           "sd3_kohya", "sd3_dora"}) {
    SCOPED_TRACE(name);
    const nn::ModuleIndex network =
        transformer_index(std::string(name).starts_with("flux") ? "flux" : "sd3");
    const adapt::Components components = {{"transformer", &network}};
    const Tensors adapter = stored_under(std::string(name) + "|adapter|");
    const TemporaryFolder folder;
    io::save_tensors(folder / "a.safetensors", adapter);
    const ReadAdapter read = read_adapter(folder / "a.safetensors", components);
    write_adapter(folder / "b.safetensors", read.set, read.info, components,
                  {.format = AdapterFormat::lycoris});
    const Tensors again = io::load_tensors(folder / "b.safetensors");
    EXPECT_EQ(again.size(), adapter.size());
    for (const auto& [key, tensor] : adapter) {
      ASSERT_TRUE(again.contains(key)) << key;
      EXPECT_TRUE(
          at::equal(again.at(key).to(at::kFloat), tensor.to(at::kFloat).reshape_as(again.at(key))))
          << key;
    }
  }
}

}  // namespace
}  // namespace ringlet::formats
