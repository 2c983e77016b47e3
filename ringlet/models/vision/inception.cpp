#include "ringlet/models/vision/inception.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

namespace ringlet::models {
namespace {

using Pair = InceptionConv::Pair;

constexpr double kEpsilon = 1e-3;  // of the batch norms, as in TensorFlow
constexpr Pair k1 = {1, 1}, k3 = {3, 3}, k5 = {5, 5}, kWide = {1, 7}, kTall = {7, 1};
constexpr Pair kAround1 = {1, 1}, kAround2 = {2, 2}, kBesideWide = {0, 3}, kBesideTall = {3, 0};

at::Tensor through(const InceptionPath& path, at::Tensor x) {
  for (const InceptionConv& conv : path) x = conv.forward(x);
  return x;
}

at::Tensor shrunk(const at::Tensor& x) { return at::max_pool2d(x, {3, 3}, {2, 2}); }

/// The classifier behind the last pooling, which features do not need.
void take_classifier(const nn::WeightSource& s) {
  constexpr std::int64_t kClasses = 1008;
  const nn::WeightSource fc = s.at("fc");
  if (fc.has("weight")) fc.get("weight", {kClasses, InceptionV3::kWidth});
  if (fc.has("bias")) fc.get("bias", {kClasses});
}

}  // namespace

InceptionConv::InceptionConv(const nn::WeightSource& s, std::int64_t in, std::int64_t out,
                             Pair kernel, std::int64_t stride, Pair padding)
    : kernel_(s.at("conv").get("weight", {out, in, kernel[0], kernel[1]})),
      norm_(s.at("bn"), out, kEpsilon),
      stride_(stride),
      padding_(padding) {}

at::Tensor InceptionConv::forward(const at::Tensor& x) const {
  return at::relu(norm_(at::conv2d(x, kernel_, {}, stride_, padding_)));
}

at::Tensor InceptionV3::pooled(const at::Tensor& x, Pool pool, std::int64_t stride) {
  if (stride == 2) return shrunk(x);
  if (pool == Pool::maximum) return at::max_pool2d(x, {3, 3}, {1, 1}, {1, 1});
  // TensorFlow's mean leaves the padding out, unlike torchvision's.
  return at::avg_pool2d(x, {3, 3}, {1, 1}, {1, 1}, /*ceil_mode=*/false,
                        /*count_include_pad=*/false);
}

at::Tensor InceptionV3::MixedBlock::forward(const at::Tensor& x) const {
  std::vector<at::Tensor> parts;
  for (const InceptionPath& path : paths) parts.push_back(through(path, x));
  parts.push_back(through(pooled, InceptionV3::pooled(x, pool, stride)));
  return at::cat(parts, 1);
}

InceptionV3::MixedBlock InceptionV3::block_a(const nn::WeightSource& s, std::int64_t in,
                                             std::int64_t pooled) {
  return {{{{s.at("branch1x1"), in, 64, k1}},
           {{s.at("branch5x5_1"), in, 48, k1}, {s.at("branch5x5_2"), 48, 64, k5, 1, kAround2}},
           {{s.at("branch3x3dbl_1"), in, 64, k1},
            {s.at("branch3x3dbl_2"), 64, 96, k3, 1, kAround1},
            {s.at("branch3x3dbl_3"), 96, 96, k3, 1, kAround1}}},
          {{s.at("branch_pool"), in, pooled, k1}}};
}

InceptionV3::MixedBlock InceptionV3::block_b(const nn::WeightSource& s, std::int64_t in) {
  return {{{{s.at("branch3x3"), in, 384, k3, 2}},
           {{s.at("branch3x3dbl_1"), in, 64, k1},
            {s.at("branch3x3dbl_2"), 64, 96, k3, 1, kAround1},
            {s.at("branch3x3dbl_3"), 96, 96, k3, 2}}},
          {},
          Pool::maximum,
          2};
}

InceptionV3::MixedBlock InceptionV3::block_c(const nn::WeightSource& s, std::int64_t in,
                                             std::int64_t inner) {
  return {{{{s.at("branch1x1"), in, 192, k1}},
           {{s.at("branch7x7_1"), in, inner, k1},
            {s.at("branch7x7_2"), inner, inner, kWide, 1, kBesideWide},
            {s.at("branch7x7_3"), inner, 192, kTall, 1, kBesideTall}},
           {{s.at("branch7x7dbl_1"), in, inner, k1},
            {s.at("branch7x7dbl_2"), inner, inner, kTall, 1, kBesideTall},
            {s.at("branch7x7dbl_3"), inner, inner, kWide, 1, kBesideWide},
            {s.at("branch7x7dbl_4"), inner, inner, kTall, 1, kBesideTall},
            {s.at("branch7x7dbl_5"), inner, 192, kWide, 1, kBesideWide}}},
          {{s.at("branch_pool"), in, 192, k1}}};
}

InceptionV3::MixedBlock InceptionV3::block_d(const nn::WeightSource& s, std::int64_t in) {
  return {{{{s.at("branch3x3_1"), in, 192, k1}, {s.at("branch3x3_2"), 192, 320, k3, 2}},
           {{s.at("branch7x7x3_1"), in, 192, k1},
            {s.at("branch7x7x3_2"), 192, 192, kWide, 1, kBesideWide},
            {s.at("branch7x7x3_3"), 192, 192, kTall, 1, kBesideTall},
            {s.at("branch7x7x3_4"), 192, 192, k3, 2}}},
          {},
          Pool::maximum,
          2};
}

InceptionV3::SplitBlock::SplitBlock(const nn::WeightSource& s, std::int64_t in, Pool kind)
    : branch1x1(s.at("branch1x1"), in, 320, k1),
      branch3x3_1(s.at("branch3x3_1"), in, 384, k1),
      branch3x3_2a(s.at("branch3x3_2a"), 384, 384, {1, 3}, 1, {0, 1}),
      branch3x3_2b(s.at("branch3x3_2b"), 384, 384, {3, 1}, 1, {1, 0}),
      branch3x3dbl_1(s.at("branch3x3dbl_1"), in, 448, k1),
      branch3x3dbl_2(s.at("branch3x3dbl_2"), 448, 384, k3, 1, kAround1),
      branch3x3dbl_3a(s.at("branch3x3dbl_3a"), 384, 384, {1, 3}, 1, {0, 1}),
      branch3x3dbl_3b(s.at("branch3x3dbl_3b"), 384, 384, {3, 1}, 1, {1, 0}),
      branch_pool(s.at("branch_pool"), in, 192, k1),
      pool(kind) {}

at::Tensor InceptionV3::SplitBlock::forward(const at::Tensor& x) const {
  const at::Tensor three = branch3x3_1.forward(x);
  const at::Tensor twice = branch3x3dbl_2.forward(branch3x3dbl_1.forward(x));
  return at::cat({branch1x1.forward(x), branch3x3_2a.forward(three), branch3x3_2b.forward(three),
                  branch3x3dbl_3a.forward(twice), branch3x3dbl_3b.forward(twice),
                  branch_pool.forward(pooled(x, pool, 1))},
                 1);
}

InceptionV3::InceptionV3(const nn::WeightSource& s)
    : first_{{s.at("Conv2d_1a_3x3"), 3, 32, k3, 2},
             {s.at("Conv2d_2a_3x3"), 32, 32, k3},
             {s.at("Conv2d_2b_3x3"), 32, 64, k3, 1, kAround1}},
      second_{{s.at("Conv2d_3b_1x1"), 64, 80, k1}, {s.at("Conv2d_4a_3x3"), 80, 192, k3}},
      mixed_{block_a(s.at("Mixed_5b"), 192, 32),  block_a(s.at("Mixed_5c"), 256, 64),
             block_a(s.at("Mixed_5d"), 288, 64),  block_b(s.at("Mixed_6a"), 288),
             block_c(s.at("Mixed_6b"), 768, 128), block_c(s.at("Mixed_6c"), 768, 160),
             block_c(s.at("Mixed_6d"), 768, 160), block_c(s.at("Mixed_6e"), 768, 192),
             block_d(s.at("Mixed_7a"), 768)},
      mixed_7b_(s.at("Mixed_7b"), 1280, Pool::average),
      mixed_7c_(s.at("Mixed_7c"), 2048, Pool::maximum) {
  take_classifier(s);
}

at::Tensor InceptionV3::features(const at::Tensor& pixels) const {
  at::Tensor x = shrunk(through(second_, shrunk(through(first_, pixels))));
  for (const MixedBlock& block : mixed_) x = block.forward(x);
  return mixed_7c_.forward(mixed_7b_.forward(x)).mean({2, 3});
}

}  // namespace ringlet::models
