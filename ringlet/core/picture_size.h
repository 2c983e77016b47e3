// The size of a picture.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace ringlet {

/// In pixels. Zero on both sides stands for a size that is still to be chosen.
struct PictureSize {
  std::int64_t width = 0;
  std::int64_t height = 0;

  static PictureSize square(std::int64_t side) { return {side, side}; }

  bool is_square() const { return width == height; }
  bool empty() const { return width == 0 && height == 0; }

  /// Of something that is `unit` times smaller along each side, such as latents.
  PictureSize divided_by(std::int64_t unit) const { return {width / unit, height / unit}; }

  /// "512x768", width first.
  std::string text() const { return std::to_string(width) + "x" + std::to_string(height); }

  /// "512" for a square, else "512x768".
  std::string short_text() const { return is_square() ? std::to_string(width) : text(); }

  bool operator==(const PictureSize&) const = default;
};

/// A number for a square, as it is in all files from before there were other sizes; else text().
void to_json(nlohmann::json& json, const PictureSize& size);

}  // namespace ringlet
