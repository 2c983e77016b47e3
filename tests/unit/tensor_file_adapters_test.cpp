// Adapters of all programs merged into bare .safetensors files, which are known by the names of
// their tensors alone.
#include <array>
#include <fstream>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/formats/adapter_writer.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/other_network.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"
#include "tests/temporary_folder.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;
using Tensors = std::map<std::string, at::Tensor>;

at::Tensor numbers(const std::string& name, at::IntArrayRef sizes) {
  return golden::uniform(name, sizes.vec());
}

class TensorFileAdapters : public testing::Test {
 protected:
  /// A file of one network.
  void write_base(const Tensors& tensors) {
    base_ = tensors;
    io::save_tensors(folder_ / "base.safetensors", tensors);
  }

  fs::path write_adapter(const Tensors& tensors, const io::Metadata& metadata = {}) const {
    io::save_tensors(folder_ / "lora.safetensors", tensors, metadata);
    return folder_ / "lora.safetensors";
  }

  fs::path write_peft(const Tensors& tensors, const std::string& config) const {
    fs::create_directories(folder_ / "peft");
    io::save_tensors(folder_ / "peft" / "adapter_model.safetensors", tensors);
    std::ofstream(folder_ / "peft" / "adapter_config.json") << config;
    return folder_ / "peft";
  }

  struct Opened {
    std::map<std::string, nn::ModuleIndex> networks;
    adapt::Components components() const {
      adapt::Components all;
      for (const auto& [name, index] : networks) all.emplace(name, &index);
      return all;
    }
  };

  Opened open(const std::vector<fs::path>& adapters) const {
    return {networks_of(nn::FileStore::open(folder_ / "base.safetensors"), adapters)};
  }

  Tensors merged(const std::vector<fs::path>& adapters) const {
    const Opened opened = open(adapters);
    std::vector<formats::ReadAdapter> read;
    std::vector<const adapt::AdapterSet*> sets;
    for (const fs::path& adapter : adapters)
      read.push_back(formats::read_adapter(adapter, opened.components()));
    for (const formats::ReadAdapter& one : read) sets.push_back(&one.set);
    merge_tensor_file(*nn::FileStore::open(folder_ / "base.safetensors"), sets,
                      folder_ / "merged.safetensors");
    Tensors copies;  // the file is written again
    for (const auto& [name, tensor] : io::load_tensors(folder_ / "merged.safetensors"))
      copies[name] = tensor.clone();
    return copies;
  }

  /// `changed` has the expected tensors, all others are as they were.
  void expect_merged(const std::vector<fs::path>& adapters, const Tensors& changed) const {
    const Tensors after = merged(adapters);
    ASSERT_EQ(after.size(), base_.size());
    for (const auto& [name, tensor] : after) {
      const auto expected = changed.find(name);
      if (expected == changed.end()) {
        EXPECT_TRUE(at::equal(tensor, base_.at(name))) << name;
        continue;
      }
      EXPECT_EQ(tensor.sizes(), expected->second.sizes()) << name;
      EXPECT_LE((tensor - expected->second).abs().max().item<double>(), 2e-6) << name;
    }
  }

  /// PEFT -> adapter -> PEFT: the same tensors and a configuration with this field.
  Json written_peft(const fs::path& adapter) const {
    const Opened opened = open({adapter});
    const formats::ReadAdapter read = formats::read_adapter(adapter, opened.components());
    formats::write_adapter(folder_ / "again", read.set, read.info, opened.components(),
                           {.format = formats::AdapterFormat::peft});
    const Tensors before = io::load_tensors(adapter / "adapter_model.safetensors");
    const Tensors after = io::load_tensors(folder_ / "again" / "adapter_model.safetensors");
    EXPECT_EQ(after.size(), before.size());
    for (const auto& [name, tensor] : before) {
      EXPECT_TRUE(after.contains(name) && at::equal(after.at(name), tensor)) << name;
    }
    return read_json_file(folder_ / "again" / "adapter_config.json");
  }

  TemporaryFolder folder_;
  Tensors base_;
};

const std::string kAttention = "h.0.attn.c_attn";

/// GPT-2 as it is published: Conv1D weights are [in, out].
Tensors gpt2(const std::string& prefix) {
  return {{prefix + "wte.weight", numbers("wte", {11, 8})},
          {prefix + kAttention + ".weight", numbers("attn", {8, 24})},
          {prefix + kAttention + ".bias", numbers("bias", {24})},
          {prefix + "h.0.ln_1.weight", numbers("norm", {8})}};
}

// PEFT sets fan_in_fan_out by the layer's class and saves what it set.
TEST_F(TensorFileAdapters, PeftOnGpt2WithEitherFanInFanOut) {
  const at::Tensor a = numbers("a", {2, 8}), b = numbers("b", {24, 2});
  for (const std::string prefix : {"", "transformer."})
    for (const std::string named : {"", "transformer."})
      for (const std::string flag : {"true", "false"}) {
        SCOPED_TRACE(prefix + "|" + named + "|" + flag);
        write_base(gpt2(prefix));
        const std::string layer = "base_model.model." + named + kAttention;
        const fs::path adapter = write_peft(
            {{layer + ".lora_A.weight", a}, {layer + ".lora_B.weight", b}},
            R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "fan_in_fan_out": )" + flag + "}");
        expect_merged({adapter},
                      {{prefix + kAttention + ".weight",
                        base_.at(prefix + kAttention + ".weight") + 3.0 * b.matmul(a).t()}});
        if (prefix == named) {
          EXPECT_EQ(written_peft(adapter).at("fan_in_fan_out"), true);
        }
      }
}

// PEFT puts its layers into GPT2LMHeadModel, where "transformer." stands before them.
TEST_F(TensorFileAdapters, PeftIsWrittenForTheClassThatTheConfigurationNames) {
  const fs::path folder = folder_ / "gpt2";
  fs::create_directories(folder);
  const auto called = [&](const std::string& architecture, const std::string& prefix) {
    io::save_tensors(folder / "model.safetensors", gpt2(prefix));
    std::ofstream(folder / "config.json") << R"({"architectures": [")" << architecture << "\"]}";
    const auto file = nn::FileStore::open(folder / "model.safetensors");
    const auto names = class_names(folder, *file, networks_of(file, std::array{folder_ / "none"}));
    const auto name = names.find("model." + prefix + kAttention);
    return name == names.end() ? prefix + kAttention : name->second;
  };
  EXPECT_EQ(called("GPT2LMHeadModel", ""), "transformer." + kAttention);
  EXPECT_EQ(called("GPT2LMHeadModel", "transformer."), "transformer." + kAttention);
  EXPECT_EQ(called("GPT2Model", ""), kAttention);
  EXPECT_EQ(called("GPT2Model", "transformer."), kAttention);
  EXPECT_EQ(called("GPT2ForSequenceClassification", ""), "transformer." + kAttention);
  EXPECT_EQ(called("SomethingElse", ""), kAttention);

  write_base(gpt2(""));
  const Opened opened = open({folder_ / "none"});
  const nn::ModuleIndex whole = layers_of(nn::FileStore::open(folder_ / "base.safetensors"));
  const auto set = adapt::AdapterSet::create(
      adapt::parse_method("lora(rank=2)"),
      adapt::select_targets({{"model", &whole}}, {.include = {"*c_attn"}}), adapt::FactorTable(),
      Random(1));
  formats::write_adapter(folder_ / "out", set, {}, opened.components(),
                         {.format = formats::AdapterFormat::peft,
                          .class_names = {{"model." + kAttention, "transformer." + kAttention}}});
  EXPECT_TRUE(io::load_tensors(folder_ / "out" / "adapter_model.safetensors")
                  .contains("base_model.model.transformer." + kAttention + ".lora_A.weight"));
  EXPECT_EQ(read_json_file(folder_ / "out" / "adapter_config.json").at("target_modules"),
            Json::array({"transformer." + kAttention}));
  EXPECT_EQ(formats::read_adapter(folder_ / "out", opened.components()).set.entries().size(), 1U);
}

// diffusers has classes for the networks of text-to-image models alone.
TEST_F(TensorFileAdapters, DiffusersHoldsNoAdapterOfALanguageModel) {
  write_base(gpt2(""));
  const Opened opened = open({folder_ / "none"});
  const auto set = adapt::AdapterSet::create(
      adapt::parse_method("lora(rank=2)"),
      adapt::select_targets(opened.components(), {.include = {"*c_attn"}}), adapt::FactorTable(),
      Random(1));
  expect_error(ErrorCode::unsupported, "use `to=peft`", [&] {
    formats::write_adapter(folder_ / "out.safetensors", set, {}, opened.components(),
                           {.format = formats::AdapterFormat::diffusers});
  });
  EXPECT_FALSE(fs::exists(folder_ / "out.safetensors"));
}

TEST_F(TensorFileAdapters, PeftHasNoRotationsOfConv1d) {
  write_base(gpt2(""));
  const Opened opened = open({folder_ / "none"});
  for (const std::string method : {"oft(block=4)", "hra(rank=2)", "loha(rank=2)", "lokr(rank=2)"}) {
    const auto set = adapt::AdapterSet::create(
        adapt::parse_method(method),
        adapt::select_targets(opened.components(), {.include = {"*c_attn"}}), adapt::FactorTable(),
        Random(1));
    expect_error(ErrorCode::unsupported, "for layers of class Conv1D", [&] {
      formats::write_adapter(folder_ / "out", set, {}, opened.components(),
                             {.format = formats::AdapterFormat::peft});
    });
  }
}

// (B A)^t is added to a table; the scale follows the first pattern of the file that fits.
TEST_F(TensorFileAdapters, PeftOfTablesAndHeadsSavedWhole) {
  Tensors bert = {{"bert.embeddings.word_embeddings.weight", numbers("table", {11, 8})},
                  {"bert.encoder.layer.0.attention.self.query.weight", numbers("query", {8, 8})},
                  {"classifier.weight", numbers("classifier", {3, 8})},
                  {"classifier.bias", numbers("classifier.bias", {3})}};
  write_base(bert);
  const std::string table = "bert.embeddings.word_embeddings",
                    query = "bert.encoder.layer.0.attention.self.query", to = "base_model.model.";
  const at::Tensor a = numbers("a", {2, 11}), b = numbers("b", {8, 2}), down = numbers("d", {2, 8}),
                   up = numbers("u", {8, 2}), head = numbers("head", {3, 8}),
                   bias = numbers("head.bias", {3});
  const Tensors low_rank = {{to + table + ".lora_embedding_A", a},
                            {to + table + ".lora_embedding_B", b},
                            {to + query + ".lora_A.weight", down},
                            {to + query + ".lora_B.weight", up}};
  const std::string scales =
      R"("peft_type": "LORA", "r": 2, "lora_alpha": 2,
         "alpha_pattern": {"word_embeddings": 4, "query": 6, "attention.*": 8})";
  const Tensors changed = {
      {table + ".weight", base_.at(table + ".weight") + 2.0 * b.matmul(a).t()},
      {query + ".weight", base_.at(query + ".weight") + 3.0 * up.matmul(down)}};
  expect_merged({write_peft(low_rank, "{" + scales + "}")}, changed);
  EXPECT_EQ(written_peft(folder_ / "peft").contains("fan_in_fan_out"), false);

  Tensors with_head = low_rank, all_changed = changed;
  with_head[to + "classifier.weight"] = all_changed["classifier.weight"] = head;
  with_head[to + "classifier.bias"] = all_changed["classifier.bias"] = bias;
  expect_error(ErrorCode::mismatch, "names no modules_to_save",
               [&] { merged({write_peft(with_head, "{" + scales + "}")}); });
  expect_merged({write_peft(with_head, "{" + scales +
                                           R"(, "task_type": "SEQ_CLS",
                                              "modules_to_save": ["classifier", "score"]})")},
                all_changed);
}

const std::string kQuery = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";

Tensors unet(const std::string& prefix) {
  return {{prefix + "conv_in.weight", numbers("conv_in", {8, 4, 3, 3})},
          {prefix + "time_embedding.linear_1.weight", numbers("time", {16, 8})},
          {prefix + kQuery + ".weight", numbers("query", {8, 8})},
          {prefix + "down_blocks.0.resnets.0.norm1.weight", numbers("norm", {8})}};
}

std::string flat(std::string path) {
  std::ranges::replace(path, '.', '_');
  return path;
}

TEST_F(TensorFileAdapters, EveryDialectOnABareUNet) {
  const at::Tensor down = numbers("down", {2, 8}), up = numbers("up", {8, 2});
  const at::Tensor w1 = numbers("w1", {2, 4}), w2 = numbers("w2", {4, 2});
  for (const std::string prefix : {"", "unet."}) {
    SCOPED_TRACE(prefix);
    write_base(unet(prefix));
    const at::Tensor w0 = base_.at(prefix + kQuery + ".weight");
    const auto expect = [&](const std::string& what, const fs::path& adapter,
                            const at::Tensor& change) {
      SCOPED_TRACE(what);
      expect_merged({adapter}, {{prefix + kQuery + ".weight", w0 + change}});
    };
    const std::string kohya = "lora_unet_" + flat(kQuery), lycoris = "lycoris_" + flat(kQuery);
    expect("kohya",
           write_adapter({{kohya + ".lora_down.weight", down},
                          {kohya + ".lora_up.weight", up},
                          {kohya + ".alpha", at::scalar_tensor(1.0)}}),
           0.5 * up.matmul(down));
    expect("LyCORIS, LoKr of two whole factors and a large alpha",
           write_adapter({{lycoris + ".lokr_w1", w1},
                          {lycoris + ".lokr_w2", w2},
                          {lycoris + ".alpha", at::scalar_tensor(1e5)}}),
           at::kron(w1, w2));
    expect("diffusers",
           write_adapter({{"unet." + kQuery + ".lora.down.weight", down},
                          {"unet." + kQuery + ".lora.up.weight", up}}),
           up.matmul(down));
    expect("PEFT",
           write_peft({{"base_model.model." + kQuery + ".lora_A.weight", down},
                       {"base_model.model." + kQuery + ".lora_B.weight", up}},
                      R"({"r": 2, "lora_alpha": 3})"),
           1.5 * up.matmul(down));
    // diffusers' unet.save_lora_adapter: neither the names nor the fields say the component.
    expect("save_lora_adapter",
           write_adapter({{kQuery + ".lora_A.weight", down}, {kQuery + ".lora_B.weight", up}},
                         {{"lora_adapter_metadata",
                           R"({"peft_type": "LORA", "r": 2, "lora_alpha": 8,
                               "alpha_pattern": {"attn1.to_q": 5, "to_q": 6}})"}}),
           2.5 * up.matmul(down));
  }
}

TEST_F(TensorFileAdapters, FieldsOfOneAdapterAndOfComponentsDoNotMix) {
  write_base(unet(""));
  const fs::path adapter =
      write_adapter({{kQuery + ".lora_A.weight", numbers("d", {2, 8})},
                     {kQuery + ".lora_B.weight", numbers("u", {8, 2})}},
                    {{"lora_adapter_metadata", R"({"r": 2, "unet.lora_alpha": 8})"}});
  expect_error(ErrorCode::unsupported, "\"r\" is not a component's", [&] { merged({adapter}); });
}

// A text encoder of its own, with ringlet's adapter for a component of another name beside kohya's.
TEST_F(TensorFileAdapters, SeveralProgramsOnOneTextEncoder) {
  const std::string query = "text_model.encoder.layers.0.self_attn.q_proj";
  write_base({{"text_model.embeddings.token_embedding.weight", numbers("table", {11, 8})},
              {query + ".weight", numbers("query", {8, 8})}});
  const at::Tensor down = numbers("down", {2, 8}), up = numbers("up", {8, 2});
  const fs::path kohya = write_adapter({{"lora_te_" + flat(query) + ".lora_down.weight", down},
                                        {"lora_te_" + flat(query) + ".lora_up.weight", up}});
  expect_merged({kohya}, {{query + ".weight", base_.at(query + ".weight") + up.matmul(down)}});

  const auto save_own = [&](const std::string& component) {
    const nn::ModuleIndex whole = layers_of(nn::FileStore::open(folder_ / "base.safetensors"));
    adapt::AdapterSet set = adapt::AdapterSet::create(
        adapt::parse_method("diff"),
        adapt::select_targets({{component, &whole}}, {.include = {"*q_proj"}}),
        adapt::FactorTable(), Random(1));
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : set.stored()) tensor.fill_(0.25);
    adapt::save_adapter(folder_ / (component + ".safetensors"), set);
    return folder_ / (component + ".safetensors");
  };
  expect_merged({save_own("text_encoder"), kohya},
                {{query + ".weight", base_.at(query + ".weight") + up.matmul(down) + 0.25}});
  expect_merged({save_own("model")}, {{query + ".weight", base_.at(query + ".weight") + 0.25}});
  expect_merged({save_own("text_encoder"), save_own("model")},
                {{query + ".weight", base_.at(query + ".weight") + 0.5}});
}

// fp16 would round 1000.3 to 1000.5, and make 1e5 infinite.
TEST_F(TensorFileAdapters, AlphaIsWrittenAsFp32WhateverTheFactorsAre) {
  write_base(unet(""));
  for (const double alpha : {1000.3, 1e5, 3e-8}) {
    const std::string layer = "lora_unet_" + flat(kQuery);
    const fs::path adapter =
        write_adapter({{layer + ".lora_down.weight", numbers("down", {2, 8}).to(at::kHalf)},
                       {layer + ".lora_up.weight", numbers("up", {8, 2}).to(at::kHalf)},
                       {layer + ".alpha", at::scalar_tensor(alpha, at::kDouble)}});
    const Opened opened = open({adapter});
    const formats::ReadAdapter read = formats::read_adapter(adapter, opened.components());
    for (const auto format : {formats::AdapterFormat::kohya, formats::AdapterFormat::lycoris}) {
      formats::write_adapter(folder_ / "again.safetensors", read.set, read.info,
                             opened.components(), {.format = format});
      const Tensors again = io::load_tensors(folder_ / "again.safetensors");
      EXPECT_EQ(again.at(layer + ".lora_up.weight").scalar_type(), at::kHalf);
      EXPECT_EQ(again.at(layer + ".alpha").scalar_type(), at::kFloat);
      EXPECT_EQ(again.at(layer + ".alpha").item<float>(), static_cast<float>(alpha));
    }
  }
}

}  // namespace
}  // namespace ringlet::pipeline
