#include "ringlet/adapt/parts/fourier.h"

#include <algorithm>
#include <cmath>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/complex.h>
#include <ATen/ops/fft_fft.h>
#include <ATen/ops/fft_ifft.h>
#include <ATen/ops/fft_ifft2.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/real.h>
#include <ATen/ops/zeros.h>

namespace ringlet::adapt {

Fourier::Fourier(const LayerShape& shape, std::int64_t n, double scale, std::uint64_t seed)
    : shape_(shape), scale_(scale) {
  const std::int64_t all = shape.out * shape.patch();
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor places =
      at::randperm(all, generator, at::TensorOptions(at::kLong)).narrow(0, 0, std::min(n, all));
  rows_ = places.floor_divide(shape.patch());
  columns_ = places.remainder(shape.patch()).contiguous();
  spectrum_ = at::zeros({places.size(0)}).set_requires_grad(true);
}

at::Tensor Fourier::weight() const {
  const std::int64_t width = shape_.patch();
  const at::Tensor places = rows_ * width + columns_;
  const at::Tensor flat = at::zeros({shape_.out * width}, spectrum_.options().requires_grad(false));
  const at::Tensor sparse = flat.index_copy(0, places, spectrum_).view({shape_.out, width});
  return (at::real(at::fft_ifft2(sparse)) * scale_).view(shape_.sizes());
}

at::Tensor Fourier::forward(const nn::Layer& layer, const at::Tensor& x) const {
  const auto type = x.scalar_type();
  if (shape_.convolution) return layer.operate(weight().to(type), {}, x);
  // D x = scale Re ifft(S ifft(x)): the inverse transform over the columns meets x first. No array
  // is larger than one number per token and entry.
  const auto real = type == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor rows = x.reshape({-1, shape_.in}).to(real);
  const at::Tensor picked = at::fft_ifft(rows).index_select(1, columns_) * spectrum_.to(real);
  const at::Tensor sparse =
      at::zeros({rows.size(0), shape_.out}, picked.options().requires_grad(false))
          .index_add(1, rows_, picked);
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = shape_.out;
  return (at::real(at::fft_ifft(sparse)) * scale_).to(type).view(shape);
}

double Fourier::multiply_adds() const {
  // Transforms and scattered sums run at a small part of the speed of matrix products.
  constexpr double kSlow = 20.0;
  const auto in = static_cast<double>(shape_.patch()), out = static_cast<double>(shape_.out);
  return kSlow * (in * std::log2(in + 1.0) + out * std::log2(out + 1.0) +
                  2.0 * static_cast<double>(spectrum_.numel()));
}

double Fourier::forming() const {
  constexpr double kSlow = 20.0;
  const auto all = static_cast<double>(shape_.out * shape_.patch());
  return kSlow * all * std::log2(all + 1.0);
}

}  // namespace ringlet::adapt
