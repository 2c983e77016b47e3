// Small things to train: parameters by formula, and pictures for the tiny models.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/io/image.h"
#include "ringlet/train/trainer.h"
#include "tests/golden/formula.h"

namespace ringlet::train {

/// A parameter with numbers in [-1, 1).
inline Trainable trainable(const std::string& name, const nn::Shape& shape,
                           at::ScalarType type = at::kFloat) {
  return {name, golden::uniform(name, shape).to(type).set_requires_grad(true), {}};
}

inline std::vector<at::Tensor> values_of(const std::vector<Trainable>& parameters) {
  std::vector<at::Tensor> values;
  for (const Trainable& parameter : parameters) values.push_back(parameter.value.detach().clone());
  return values;
}

/// Every bit the same.
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.cpu().contiguous().const_data_ptr(), b.cpu().contiguous().const_data_ptr(),
                     a.nbytes()) == 0;
}

inline bool same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!same_bits(a[i], b[i])) return false;
  return true;
}

/// A picture of soft waves, another one for each number.
inline io::Image waves(int number, std::int64_t width = 32, std::int64_t height = 32) {
  io::Image image{width, height, {}};
  for (std::int64_t y = 0; y < height; ++y)
    for (std::int64_t x = 0; x < width; ++x)
      for (int channel = 0; channel < 3; ++channel) {
        const double phase = 0.2 * static_cast<double>((number + 1) * x + (channel + 2) * y);
        image.pixels.push_back(static_cast<std::uint8_t>(127.0 + 120.0 * std::sin(phase)));
      }
  return image;
}

/// Pictures a.png (32 x 32), b.png (48 x 32), c.png (32 x 40), …
inline void write_pictures(const std::filesystem::path& folder, int count = 3) {
  std::filesystem::create_directories(folder);
  for (int i = 0; i < count; ++i)
    io::write_png(folder / (std::string(1, static_cast<char>('a' + i)) + ".png"),
                  waves(i, i % 3 == 1 ? 48 : 32, i % 3 == 2 ? 40 : 32));
}

}  // namespace ringlet::train
