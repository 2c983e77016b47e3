// Adapters as other programs wrote them (tests/golden/data/adapters), and ringlet's own, each
// damaged in one way: an error that says which, before any weight changes. What wrong numbers would
// cost is tested here, too: nothing is built that the file does not bring along.
#include <fstream>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/core/random.h"
#include "ringlet/formats/adapter_reader.h"
#include "tests/expect_error.h"
#include "tests/fault/damaged_adapter.h"
#include "tests/file_content.h"

namespace ringlet::formats {
namespace {

using namespace damaged;

const fs::path& golden_folder() {
  static const fs::path path = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/adapters";
  return path;
}

/// The network that the golden files were made on, and a layer without a bias.
class Network {
 public:
  Network() {
    for (const char* name : {"linear", "wide", "conv", kToQ,
                             "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"})
      add(unet_, name);
    add(text_encoder_, "text_model.encoder.layers.0.self_attn.q_proj");
    unet_.layers["bare"] =
        std::make_shared<nn::LinearLayer>(base_.at("linear.weight"), at::Tensor());
    for (const char* norm : {"group_norm", "layer_norm"})
      for (const char* part : {".weight", ".bias"})
        unet_.tensors[std::string(norm) + part] = base_.at(std::string(norm) + part).clone();
    unet_.tensors["linear.weight"] = unet_.layers.at("linear")->weight();
  }

  adapt::Components components() const {
    return {{"unet", &unet_}, {"text_encoder", &text_encoder_}};
  }

  void expect_untouched() const {
    for (const auto& [component, index] : components()) {
      for (const auto& [name, layer] : index->layers) {
        EXPECT_EQ(layer->adapter, nullptr) << name;
        const auto before = base_.find(name + ".weight");
        if (before != base_.end()) {
          EXPECT_TRUE(at::equal(layer->weight(), before->second)) << name;
        }
      }
      for (const auto& [name, tensor] : index->tensors)
        EXPECT_TRUE(at::equal(tensor, base_.at(name))) << name;
    }
  }

 private:
  void add(nn::ModuleIndex& index, const std::string& name) const {
    const at::Tensor weight = base_.at(name + ".weight").clone(), bias = base_.at(name + ".bias");
    if (weight.dim() == 4)
      index.layers[name] =
          std::make_shared<nn::Conv2dLayer>(weight, bias, nn::Conv2dOptions{.padding = 1});
    else
      index.layers[name] = std::make_shared<nn::LinearLayer>(weight, bias);
  }

  std::map<std::string, at::Tensor> base_ = io::load_tensors(golden_folder() / "base.safetensors");
  nn::ModuleIndex unet_, text_encoder_;
};

/// A golden file; "own METHOD" is an adapter of ringlet's own for two layers, "cloneofsimo" one
/// with its numbered names.
Content good(const std::string& what) {
  Content content;
  if (what == "cloneofsimo") {
    content.tensors = {{"unet:0:down", at::ones({4, 48})},
                       {"unet:0:up", at::ones({40, 4})},
                       {"<word>", at::ones({8})}};
    content.metadata["unet"] = R"(["CrossAttention","Attention","GEGLU"])";
    return content;
  }
  if (what.starts_with("own ")) {
    const TemporaryFolder folder;
    const Network network;
    const adapt::AdapterSet set = adapt::AdapterSet::create(
        adapt::parse_method(what.substr(4)),
        adapt::select_targets(network.components(), {.include = {"unet.linear", "unet.conv"}}),
        adapt::FactorTable(), Random(4));
    adapt::save_adapter(folder / "own", set);
    for (const auto& [name, tensor] : io::load_tensors(folder / "own"))
      content.tensors[name] = tensor.clone();
    content.metadata = io::SafetensorsFile::open(folder / "own")->metadata();
    return content;
  }
  const fs::path path = golden_folder() / what;
  const bool folder = fs::is_directory(path);
  const fs::path file =
      folder ? path / "adapter_model.safetensors" : golden_folder() / (what + ".safetensors");
  content.tensors = io::load_tensors(file);
  content.metadata = io::SafetensorsFile::open(file)->metadata();
  if (folder) content.config = read_json_file(path / "adapter_config.json");
  return content;
}

std::vector<Case> all_cases() {
  std::vector<Case> all;
  for (const auto& some :
       {low_rank_cases(), name_cases(), lycoris_cases(), peft_cases(), own_cases()})
    all.insert(all.end(), some.begin(), some.end());
  return all;
}

/// The message is the reader's own: short, printable, without LibTorch's inside.
void expect_proper(const Error& error) {
  constexpr std::size_t kLong = 1500;
  const std::string message = error.what();
  EXPECT_NE(error.code(), ErrorCode::internal) << message;
  EXPECT_NE(error.code(), ErrorCode::out_of_memory) << message;
  EXPECT_NE(error.code(), ErrorCode::invalid_argument) << message;  // nobody gave an argument
  EXPECT_FALSE(error.where().empty());
  EXPECT_FALSE(error.message().empty());
  EXPECT_LT(message.size(), kLong) << message.substr(0, kLong);
  for (const char* inside :
       {"c10", "at::", "Tensor", "Exception", ".cpp", "defect", "json.exception"})
    EXPECT_EQ(message.find(inside), std::string::npos) << message;
  for (const char letter : message) EXPECT_TRUE(letter == '\n' || letter < 0 || letter >= ' ');
}

class AdapterReaderFault : public testing::TestWithParam<Case> {};

TEST_P(AdapterReaderFault, IsRefusedBeforeAnythingChanges) {
  const Case& one = GetParam();
  at::manual_seed(1);
  const TemporaryFolder folder;
  const Network network;
  Content content = good(one.what);
  EXPECT_NO_THROW(read_adapter(content.write(folder), network.components()));  // right before
  one.damage(content);
  const fs::path path = content.write(folder);
  try {
    read_adapter(path, network.components());
    ADD_FAILURE() << "was taken";
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(one.code)) << error.what();
    EXPECT_NE(std::string(error.what()).find(one.words), std::string::npos) << error.what();
    expect_proper(error);
  }
  network.expect_untouched();
}

INSTANTIATE_TEST_SUITE_P(All, AdapterReaderFault, testing::ValuesIn(all_cases()),
                         [](const auto& one) { return one.param.name; });

/// What is unusual, but not wrong.
class UnusualAdapters : public testing::Test {
 protected:
  std::string spec(const std::string& what, const std::function<void(Content&)>& change) const {
    Content content = good(what);
    change(content);
    ReadAdapter read = read_adapter(content.write(folder_), network_.components());
    for (const auto& entry : read.set.entries())
      EXPECT_TRUE(
          at::isfinite(entry.adapter->weight(entry.target.layer->weight())).all().item<bool>());
    for (const auto& entry : read.set.entries())
      if (entry.target.name == "linear") return entry.adapter->spec();
    return "";
  }

  TemporaryFolder folder_;
  Network network_;
};

TEST_F(UnusualAdapters, AlphaOfEveryKind) {
  const std::string file = "lycoris_kohya_locon", alpha = "lora_unet_linear.alpha";
  EXPECT_EQ(spec(file, set(alpha, at::tensor(0.0F))), "lora(alpha=4,rank=4)");
  EXPECT_EQ(spec(file, set(alpha, at::tensor(-0.0F))), "lora(alpha=4,rank=4)");
  EXPECT_EQ(spec(file, drop(alpha)), "lora(alpha=4,rank=4)");
  EXPECT_EQ(spec(file, set(alpha, at::tensor(3))), "lora(alpha=3,rank=4)");
  EXPECT_EQ(spec(file, set(alpha, at::tensor({2.5}, at::kDouble))), "lora(alpha=2.5,rank=4)");
  EXPECT_EQ(spec(file, set(alpha, at::tensor(2, at::kByte))), "lora(alpha=2,rank=4)");
}

TEST_F(UnusualAdapters, AlphaOfTwoWholeFactorsMeansNothing) {
  for (const double alpha : {-1.0, 0.0, 1e30, -1e30, 1e300, 0.5})
    EXPECT_EQ(
        spec("lycoris_lokr_full", set("lycoris_linear.alpha", at::tensor({alpha}, at::kDouble))),
        "lokr(alpha=1,in=6x8,out=5x8,rank=1,w1=full,w2=full)")
        << alpha;
}

TEST_F(UnusualAdapters, DoublesAreFloatsWhereTheyFit) {
  EXPECT_EQ(spec("lycoris_kohya_locon", to("lora_unet_linear.lora_up.weight", at::kDouble)),
            "lora(alpha=2,rank=4)");
}

// Backtracking would take 2^n steps for these.
TEST_F(UnusualAdapters, PatternsTakeNoLongerThanTheyAreLong) {
  const auto patterns = [](const std::string& key) {
    return [key](Content& content) { content.config["alpha_pattern"] = {{key, 3}}; };
  };
  const std::string none = "lora(alpha=2,rank=4)", found = "lora(alpha=3,rank=4)";
  EXPECT_EQ(spec("peft_lora", patterns("(([a-z]*)*)*!")), none);
  EXPECT_EQ(spec("peft_lora", patterns("(.|.|.)*(.|.|.)*(.|.|.)*!")), none);
  std::string nested = "[a-z]!";
  while (nested.size() < 120) nested = "(?:.*" + nested + ")+";
  EXPECT_EQ(spec("peft_lora", patterns(nested)), none);
  // PEFT's keys are expressions for the end of the path, dots included.
  EXPECT_EQ(spec("peft_lora", patterns("linear")), found);
  EXPECT_EQ(spec("peft_lora", patterns("l.near")), found);
  EXPECT_EQ(spec("peft_lora", patterns("^l[hi]n.*")), found);
  EXPECT_EQ(spec("peft_lora", patterns("(conv|linear)")), found);
  EXPECT_EQ(spec("peft_lora", patterns("inear")), none);
  EXPECT_EQ(spec("peft_lora", patterns("linear.")), none);
  EXPECT_EQ(spec("peft_lora", patterns("x.linear")), none);
  EXPECT_EQ(spec("peft_lora", patterns("")), none);
}

TEST_F(UnusualAdapters, FoldersThatAreIncomplete) {
  const auto refuse = [&](ErrorCode code, const std::string& words) {
    expect_error(code, words, [&] { read_adapter(folder_.path(), network_.components()); });
    network_.expect_untouched();
  };
  refuse(ErrorCode::not_found, "adapter_config.json");
  const Content content = good("peft_lora");
  content.write(folder_);
  fs::remove(folder_ / "adapter_model.safetensors");
  refuse(ErrorCode::not_found, "adapter_model.safetensors");
  std::ofstream(folder_ / "adapter_model.safetensors")
      << "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
  refuse(ErrorCode::unsupported, "Git LFS");
  content.write(folder_);
  fs::remove(folder_ / "adapter_config.json");
  fs::create_directory(folder_ / "adapter_config.json");
  EXPECT_THROW(read_adapter(folder_.path(), network_.components()), Error);
}

/// Golden files by name, a part of them: one of each form.
class DamagedAdapters : public testing::TestWithParam<std::string> {};

// Every text of the file is hit: names, types, shapes, metadata, the configuration.
TEST_P(DamagedAdapters, FlippedBits) {
  const TemporaryFolder folder;
  const Network network;
  const fs::path written = good(GetParam()).write(folder);
  RandomStream random = Random(23).stream(GetParam());
  int refused = 0;
  for (const char* name : {"adapter_model.safetensors", "adapter_config.json"}) {
    const fs::path path = folder / name;
    if (!fs::exists(path)) continue;
    const std::string whole = file_content(path);
    for (int i = 0; i < 60; ++i) {
      std::string damaged = whole;
      const std::size_t at =
          random.uniform_int(i % 4 > 0 ? std::min<std::size_t>(1000, whole.size()) : whole.size());
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << random.uniform_int(8)));
      std::ofstream(path, std::ios::binary) << damaged;
      try {
        const ReadAdapter read = read_adapter(written, network.components());
        static_cast<void>(read.set.merged_weights());
      } catch (const Error& error) {
        expect_proper(error);
        ++refused;
      }
      network.expect_untouched();
    }
    std::ofstream(path, std::ios::binary) << whole;
  }
  EXPECT_GT(refused, 10);
}

INSTANTIATE_TEST_SUITE_P(
    Some, DamagedAdapters,
    testing::Values("peft_lora_patterns", "peft_adalora", "peft_loha", "peft_lokr_both",
                    "peft_oft_coft", "peft_boft_m2", "peft_hra", "peft_ia3_feedforward",
                    "peft_fourierft", "peft_vera", "peft_lora_pissa", "diffusers_current",
                    "diffusers_kohya", "lycoris_loha_tucker", "lycoris_lokr_tucker",
                    "lycoris_boft_rescaled", "lycoris_glora", "lycoris_ia3_output", "lycoris_full",
                    "lycoris_norm", "cloneofsimo", "own trm+tr", "own oft+lora+magnitude"),
    [](const auto& one) {
      std::string name = one.param;
      for (char& letter : name)
        if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
      return name;
    });

}  // namespace
}  // namespace ringlet::formats
