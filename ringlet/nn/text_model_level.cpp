#include "ringlet/nn/text_model_level.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace ringlet::nn {
namespace {

constexpr std::string_view kLevel = "text_model.";

/// What stands below the level.
constexpr std::array<std::string_view, 3> kBelow = {"embeddings.", "encoder.", "final_layer_norm."};

bool is_below(std::string_view path) {
  return std::ranges::any_of(kBelow, [&](std::string_view part) {
    return path.starts_with(part) || path == part.substr(0, part.size() - 1);
  });
}

}  // namespace

std::string with_text_model_level(const std::string& path) {
  return is_below(path) ? std::string(kLevel) + path : path;
}

std::string without_text_model_level(const std::string& path) {
  return path.starts_with(kLevel) && is_below(std::string_view(path).substr(kLevel.size()))
             ? path.substr(kLevel.size())
             : path;
}

std::string other_text_spelling(const std::string& full_name) {
  const std::size_t dot = full_name.find('.');
  if (dot == std::string::npos) return "";
  const std::string path = full_name.substr(dot + 1);
  const std::string with = with_text_model_level(path);
  const std::string other = with == path ? without_text_model_level(path) : with;
  return other == path ? "" : full_name.substr(0, dot + 1) + other;
}

}  // namespace ringlet::nn
