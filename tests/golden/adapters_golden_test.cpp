// Adapters of PEFT, LyCORIS and diffusers, as those libraries saved them: the adapted weight, the
// output and the gradients (tests/golden/make_adapters.py).
#include <filesystem>
#include <set>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/formats/adapter_writer.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/weight_source.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

const std::filesystem::path& folder() {
  static const std::filesystem::path path =
      std::filesystem::path(RINGLET_SOURCE_DIR) / "tests/golden/data/adapters";
  return path;
}

struct Case {
  std::string name, library, file, expected;
  std::vector<std::string> layers;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const Json list = read_json_file(folder() / "cases.json");  // must outlive the loop
  for (const Json& one : list.at("cases"))
    all.push_back(
        {one.at("name"), one.at("library"), one.at("file"), one.at("expected"), one.at("layers")});
  return all;
}

/// PEFT's GLORA multiplies W0 elementwise, which is not the GLoRA of its paper; ringlet refuses it.
bool is_refused(const Case& one) { return one.name.starts_with("peft_glora"); }

/// Files that have lost what their library computed with while it trained: the scale of rsLoRA in
/// LoKr of two whole factors and in GLoRA. LyCORIS itself loads them with another scale, as
/// ringlet.
bool lost_its_scale(const Case& one) {
  return one.name == "lycoris_lokr_full_rs" || one.name == "lycoris_glora_rs";
}

/// Gradients that are not the derivatives of their library's own output.
///   COFT: PEFT projects its parameters in place, outside of the graph; ringlet's projection is a
///   part of W', and its derivative is in the gradient (law test: finite differences).
///   LoHa with effective convolutions: PEFT's backward pass of w1_a and w2_a; LyCORIS's of the same
///   formula agrees with ringlet's (lycoris_loha_tucker).
bool has_other_gradient(const Case& one, const std::string& parameter) {
  if (one.name.starts_with("peft_oft_coft")) return true;
  return one.name == "peft_loha_effective" && parameter.starts_with("unet.conv.") &&
         parameter.ends_with("_a");
}

/// The network that the cases were made on.
struct Network {
  nn::ModuleIndex unet, text_encoder;
  std::map<std::string, at::Tensor> base = io::load_tensors(folder() / "base.safetensors");

  explicit Network(const std::vector<std::string>& layers) {
    for (const std::string& name : layers) {
      const at::Tensor weight = base.at(name + ".weight"), bias = base.at(name + ".bias");
      nn::ModuleIndex& index = name.starts_with("text_model.") ? text_encoder : unet;
      if (weight.dim() == 4)
        index.layers[name] =
            std::make_shared<nn::Conv2dLayer>(weight, bias, nn::Conv2dOptions{.padding = 1});
      else if (weight.dim() == 2)
        index.layers[name] = std::make_shared<nn::LinearLayer>(weight, bias);
      else
        index.tensors.insert({{name + ".weight", weight.clone()}, {name + ".bias", bias.clone()}});
    }
  }
  adapt::Components components() const {
    adapt::Components all = {{"unet", &unet}};
    if (!text_encoder.layers.empty()) all.emplace("text_encoder", &text_encoder);
    return all;
  }
};

void expect_close(const at::Tensor& actual, const at::Tensor& expected, const std::string& what,
                  double relative = 1e-5) {
  ASSERT_EQ(actual.numel(), expected.numel()) << what;
  const double scale = expected.abs().max().item<double>();
  EXPECT_LE((actual.reshape(expected.sizes()) - expected).abs().max().item<double>(),
            relative * std::max(scale, 1e-3))
      << what;
}

constexpr adapt::Contraction kContractions[] = {adapt::Contraction::through_input,
                                                adapt::Contraction::everything_folded};

class AdapterGolden : public testing::TestWithParam<Case> {};

TEST_P(AdapterGolden, DoesWhatItsLibraryDoes) {
  const Case& one = GetParam();
  const Network network(one.layers);
  if (is_refused(one)) {
    expect_error(ErrorCode::unsupported, "is unsupported",
                 [&] { read_adapter(folder() / one.file, network.components()); });
    return;
  }
  if (lost_its_scale(one)) {
    EXPECT_NO_THROW(read_adapter(folder() / one.file, network.components()));
    return;
  }
  const auto expected = io::load_tensors(folder() / one.expected);
  ReadAdapter read = read_adapter(folder() / one.file, network.components());
  read.set.set_trainable(true);
  read.set.attach();
  at::Tensor loss = at::zeros({});
  for (const auto& entry : read.set.entries()) {
    const nn::Layer& layer = *entry.target.layer;
    const std::string& name = entry.target.name;
    expect_close(layer.adapter->weight(layer.weight()), expected.at(name + ".weight"),
                 name + ": " + layer.adapter->spec());
    if (const auto bias = expected.find(name + ".bias"); bias != expected.end())
      expect_close(layer.adapter->bias(layer.bias()), bias->second, name + ".bias");
    for (const adapt::Contraction way : kContractions) {
      entry.adapter->contraction = way;
      const at::Tensor y = layer.forward(network.base.at(name + ".x"));
      expect_close(y, expected.at(name + ".y"), name + ".y");
    }
    entry.adapter->contraction.reset();
    loss = loss +
           (layer.forward(network.base.at(name + ".x")).tanh() * network.base.at(name + ".probe"))
               .sum();
  }
  for (const auto& change : read.set.tensor_changes()) {
    expect_close(change.target.tensor, expected.at(change.target.name), change.target.full_name());
    EXPECT_FALSE(at::equal(change.target.tensor, network.base.at(change.target.name)));
  }
  if (!read.set.tensor_changes().empty()) {  // norms are not trained here
    read.set.detach();
    for (const auto& change : read.set.tensor_changes())
      EXPECT_TRUE(at::equal(change.target.tensor, network.base.at(change.target.name)));
    return;
  }
  loss.backward();
  std::size_t gradients = 0;
  for (const auto& [name, parameter] : read.set.parameters()) {
    const auto in_file = read.names.find(name);
    if (in_file == read.names.end() || has_other_gradient(one, name)) continue;
    const std::string layer = name.substr(name.find('.') + 1);
    for (const std::string& each : one.layers) {
      const auto gradient = expected.find(each + ".grad." + in_file->second);
      if (gradient == expected.end()) continue;
      expect_close(parameter.grad(), gradient->second, "gradient of " + name, 2e-5);
      ++gradients;
    }
  }
  const bool none = one.library == "diffusers" || one.name.starts_with("peft_oft_coft");
  EXPECT_EQ(gradients > 0, !none);
}

/// What ringlet cannot or need not write as it was: another dialect's spelling of the same, starts
/// from the weight (written as a doubled rank), AdaLoRA (becomes LoRA).
bool is_one_way(const Case& one) {
  static const std::set<std::string> kNames = {
      "peft_lora_pissa",        "peft_lora_olora",  "peft_adalora",
      "peft_adalora_pattern",   "diffusers_helper", "diffusers_processor",
      "diffusers_current_bare", "diffusers_kohya",  "lycoris_norm",
      // the factors do not follow from any setting of PEFT
  };
  return kNames.contains(one.name) || is_refused(one) || lost_its_scale(one);
}

AdapterFormat format_of(const Case& one) {
  if (one.library == "peft") return AdapterFormat::peft;
  return one.library == "diffusers" ? AdapterFormat::diffusers : AdapterFormat::lycoris;
}

/// The tensors of a written adapter under the names of the golden file.
std::map<std::string, at::Tensor> written(const Case& one, const std::filesystem::path& path) {
  if (one.library == "peft") return io::load_tensors(path / "adapter_model.safetensors");
  std::map<std::string, at::Tensor> named;
  const bool wrapper = !one.name.starts_with("lycoris_kohya");
  for (const auto& [name, tensor] : io::load_tensors(path)) {
    const bool rename = wrapper && name.starts_with("lora_unet_");
    named[rename ? "lycoris_" + name.substr(10) : name] = tensor;
  }
  return named;
}

// Dialect -> ringlet's file -> dialect: the same tensors, bit for bit.
TEST_P(AdapterGolden, GoesThroughRingletsFileUnchanged) {
  const Case& one = GetParam();
  if (is_one_way(one)) return;
  const TemporaryFolder folder_of_test;
  const Network network(one.layers);
  const ReadAdapter read = read_adapter(folder() / one.file, network.components());
  adapt::save_adapter(folder_of_test / "own.safetensors", read.set, read.info);
  const ReadAdapter own = read_adapter(folder_of_test / "own.safetensors", network.components());
  EXPECT_EQ(own.summary.methods, read.summary.methods);
  write_adapter(folder_of_test / "again", own.set, own.info, network.components(),
                {.format = format_of(one)});
  const std::filesystem::path in = folder() / one.file;
  const auto before =
      io::load_tensors(std::filesystem::is_directory(in) ? in / "adapter_model.safetensors" : in);
  const auto after = written(one, folder_of_test / "again");
  for (const auto& [name, tensor] : before) {
    if (name.starts_with("base_model.vera_")) continue;  // follow from the seed
    ASSERT_TRUE(after.contains(name)) << name;
    const at::Tensor& now = after.at(name);
    EXPECT_EQ(now.sizes(), tensor.sizes()) << name;
    EXPECT_EQ(now.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(now, tensor)) << name;
  }
  for (const auto& [name, tensor] : after) EXPECT_TRUE(before.contains(name)) << name;
  // and what was written computes the same
  const ReadAdapter again = read_adapter(folder_of_test / "again", network.components());
  for (std::size_t i = 0; i < read.set.entries().size(); ++i) {
    const auto& entry = read.set.entries()[i];
    const at::Tensor& w0 = entry.target.layer->weight();
    EXPECT_TRUE(at::equal(again.set.entries()[i].adapter->weight(w0), entry.adapter->weight(w0)));
  }
}

INSTANTIATE_TEST_SUITE_P(All, AdapterGolden, testing::ValuesIn(cases()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace ringlet::formats
