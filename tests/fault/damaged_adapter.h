// Damaged adapters: what is done to a right file, and what must be said of it.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats::damaged {

namespace fs = std::filesystem;

inline constexpr const char* kToQ = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";

/// An adapter until something has been done to it.
struct Content {
  std::map<std::string, at::Tensor> tensors;
  io::Metadata metadata;
  Json config;              ///< PEFT's; null for none
  std::string config_text;  ///< in place of `config`

  fs::path write(const TemporaryFolder& folder) const {
    const fs::path weights = folder / "adapter_model.safetensors",
                   settings = folder / "adapter_config.json";
    fs::remove(settings);
    io::save_tensors(weights, tensors, metadata);
    if (config.is_null() && config_text.empty()) return weights;
    std::ofstream(settings) << (config_text.empty() ? config.dump() : config_text);
    return folder.path();
  }
};

/// A golden file, or what good() makes, with one damage and the error that it must lead to.
struct Case {
  std::string name, what;
  std::function<void(Content&)> damage;
  ErrorCode code;
  std::string words;

  friend void PrintTo(const Case& one, std::ostream* stream) { *stream << one.what; }
};

inline auto set(const std::string& name, const at::Tensor& tensor) {
  return [=](Content& content) { content.tensors[name] = tensor; };
}
inline auto drop(const std::string& name) {
  return [=](Content& content) { EXPECT_EQ(content.tensors.erase(name), 1U); };
}
/// Another tensor type, or other numbers of the same.
inline auto to(const std::string& name, at::ScalarType type) {
  return [=](Content& content) { content.tensors.at(name) = content.tensors.at(name).to(type); };
}
inline auto fill(const std::string& name, double value) {
  return [=](Content& content) {
    content.tensors.at(name) = at::full_like(content.tensors.at(name), value);
  };
}
inline auto field(const std::string& name, const Json& value) {
  return [=](Content& content) { content.config[name] = value; };
}
inline auto metadata(const std::string& name, const std::string& value) {
  return [=](Content& content) { content.metadata[name] = value; };
}
inline auto text(const std::string& config) {
  return [=](Content& content) { content.config_text = config; };
}
/// diffusers' metadata with one field more.
inline auto saved(const std::string& name, const Json& value) {
  return [=](Content& content) {
    Json all = parse_json(content.metadata.at("lora_adapter_metadata"), "metadata");
    all[name] = value;
    content.metadata["lora_adapter_metadata"] = all.dump();
  };
}
inline auto both(const std::function<void(Content&)>& one,
                 const std::function<void(Content&)>& two) {
  return [=](Content& content) {
    one(content);
    two(content);
  };
}

std::vector<Case> low_rank_cases();
std::vector<Case> name_cases();
std::vector<Case> lycoris_cases();
std::vector<Case> peft_cases();
std::vector<Case> own_cases();

}  // namespace ringlet::formats::damaged
