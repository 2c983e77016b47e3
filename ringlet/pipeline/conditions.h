// What a model is told of the pictures that it makes.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include <ATen/core/Tensor.h>

#include "ringlet/core/picture_size.h"

namespace ringlet::pipeline {

/// What a denoiser sees besides latents and noise level: tensors by the names that their model
/// gives them, such as "text" and "pooled", each with a row per picture. Models make them
/// (TextToImageModel::conditions); others join rows and hand them back to the same model.
class Conditions {
 public:
  Conditions() = default;
  explicit Conditions(std::map<std::string, at::Tensor> tensors) : tensors_(std::move(tensors)) {}

  /// The tensor of this name, or an undefined one.
  at::Tensor get(const std::string& name) const;

  /// Adds or replaces a tensor, [rows, …].
  void set(const std::string& name, at::Tensor tensor);

  const std::map<std::string, at::Tensor>& tensors() const { return tensors_; }

  /// 0 where there are no tensors.
  std::int64_t rows() const;

  /// One row alone.
  Conditions row(std::int64_t index) const;

  /// A single row for each of `count` pictures; the memory is shared.
  Conditions repeated(std::int64_t count) const;

  /// Zeros of the same shapes.
  Conditions zeros() const;

  /// All rows below each other. Each must have the same names; empty for none.
  static Conditions concatenate(std::span<const Conditions> parts);

 private:
  std::map<std::string, at::Tensor> tensors_;
};

/// A picture and the one that it was cut from, which some models are told of.
struct PictureFrame {
  PictureSize original;   ///< of the file
  std::int64_t left = 0;  ///< pixels of the resized original that were cut off
  std::int64_t top = 0;
  PictureSize size;  ///< of the picture
};

}  // namespace ringlet::pipeline
