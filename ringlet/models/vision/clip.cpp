#include "ringlet/models/vision/clip.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linalg_norm.h>
#include <ATen/ops/matmul.h>

#include "ringlet/core/error.h"

namespace ringlet::models {
namespace {

constexpr double kStartOfScale = 2.6592;  // ln(1 / 0.07)

at::Tensor unit(const at::Tensor& rows) {
  return rows / at::linalg_norm(rows, 2, at::IntArrayRef{1}, /*keepdim=*/true);
}

}  // namespace

Clip::Clip(const nn::WeightSource& source, const VisionConfig& vision, const ClipTextConfig& text)
    : logit_scale_(source.get("logit_scale", {}, nn::Init::constant(kStartOfScale))),
      vision_(source, vision),
      text_(source, text) {}

at::Tensor Clip::pictures(const at::Tensor& pixels) const { return unit(vision_.features(pixels)); }

at::Tensor Clip::texts(const at::Tensor& ids) const { return unit(text_.forward(ids).pooled); }

at::Tensor Clip::loss(const at::Tensor& pixels, const at::Tensor& ids) const {
  if (pixels.size(0) != ids.size(0))
    throw Error(ErrorCode::mismatch, "clip",
                std::to_string(pixels.size(0)) + " pictures and " + std::to_string(ids.size(0)) +
                    " texts do not make pairs");
  const at::Tensor cosines = at::matmul(texts(ids), pictures(pixels).t());
  const at::Tensor all = cosines.to(at::kFloat) * logit_scale_.exp();
  const at::Tensor own = at::arange(all.size(0), ids.options());
  return (at::cross_entropy_loss(all, own) + at::cross_entropy_loss(all.t(), own)) / 2.0;
}

}  // namespace ringlet::models
