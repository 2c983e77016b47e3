#include "ringlet/adapt/kernels/low_rank_kernel.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/adapt/kernels/row_chunks.h"
#include "ringlet/nn/parallel.h"
#include "ringlet/nn/small_products.h"

namespace ringlet::adapt {
namespace {

using nn::Places;

constexpr std::int64_t kTileRows = 16;
constexpr std::int64_t kMostRanks = 128;

/// narrow[rows, ranks] = s wide[rows, width] factor[ranks, width]^T, and added to sum [rows,
/// other]: narrow second[ranks, other].
struct NarrowRows {
  std::int64_t rows, ranks, width, other;
  double s;
  const float *wide, *factor, *second;
  float* narrow;
  float* sum;  ///< null: no second product
  bool add;    ///< to what sum holds

  void compute_tile(std::int64_t first, std::int64_t count) const;
};

void NarrowRows::compute_tile(std::int64_t first, std::int64_t count) const {
  const nn::SmallProducts& products = nn::small_products();
  float* const here = narrow + first * ranks;
  std::fill_n(here, count * ranks, 0.0F);
  nn::DotProducts dots = {};
  dots.p = wide + first * width;
  dots.p_rows = Places::even(count, width);
  dots.q = factor;
  dots.q_rows = Places::even(ranks, width);
  dots.out = here;
  dots.out_row = ranks;
  dots.out_column = 1;
  dots.width = width;
  products.dot_products(dots);
  const auto scale = static_cast<float>(s);
  for (std::int64_t i = 0; i < count * ranks; ++i) here[i] *= scale;
  if (sum == nullptr) return;
  products.product({here,
                    ranks,
                    1,
                    second,
                    Places::even(ranks, other),
                    {},
                    sum + first * other,
                    Places::even(count, other),
                    {},
                    other,
                    add});
}

void compute(const NarrowRows& rows) {
  const RowChunks chunks(rows.rows, kTileRows);
  nn::parallel_for(chunks.count(), nn::grain_of(chunks.length * rows.width * rows.ranks),
                   [&](std::int64_t begin, std::int64_t end) {
                     chunks.each_tile(begin, end,
                                      [&](std::int64_t, std::int64_t first, std::int64_t count) {
                                        rows.compute_tile(first, count);
                                      });
                   });
}

/// narrow [rows, ranks]^T wide [rows, width]: each thread has columns of its own.
at::Tensor column_sums(const at::Tensor& narrow, const at::Tensor& wide) {
  constexpr std::int64_t kColumns = 64;
  const std::int64_t rows = wide.size(0), width = wide.size(1), ranks = narrow.size(1);
  at::Tensor sums = at::empty({ranks, width}, wide.options());
  const float *const a = narrow.const_data_ptr<float>(), *const from = wide.const_data_ptr<float>();
  float* const to = sums.data_ptr<float>();
  const nn::SmallProducts& products = nn::small_products();
  nn::parallel_for((width + kColumns - 1) / kColumns, nn::grain_of(rows * ranks * kColumns),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t first = begin * kColumns;
                          first < std::min(width, end * kColumns); first += kColumns)
                       products.product({a,
                                         1,
                                         ranks,
                                         from + first,
                                         Places::even(rows, width),
                                         {},
                                         to + first,
                                         Places::even(ranks, width),
                                         {},
                                         std::min(kColumns, width - first),
                                         false});
                   });
  return sums;
}

at::Tensor as_rows(const at::Tensor& x) { return x.view({-1, x.size(-1)}); }

/// Adds to y in place; s x down^T [rows, rank].
at::Tensor add_in_place(const at::Tensor& y, double s, const at::Tensor& x, const at::Tensor& down,
                        const at::Tensor& up) {
  const at::Tensor second = up.t().contiguous(), first = down.contiguous();
  const std::int64_t rows = x.numel() / x.size(-1), ranks = down.size(0);
  at::Tensor narrow = at::empty({rows, ranks}, x.options());
  compute({rows, ranks, down.size(1), up.size(0), s, x.const_data_ptr<float>(),
           first.const_data_ptr<float>(), second.const_data_ptr<float>(), narrow.data_ptr<float>(),
           static_cast<float*>(y.data_ptr()), true});
  return narrow;
}

struct LowRankAdd : torch::autograd::Function<LowRankAdd> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& y,
                            double s, const at::Tensor& x, const at::Tensor& down,
                            const at::Tensor& up) {
    // Behind autograd's back: y may be another function's view, which could not be marked as
    // changed, and nothing but this sum ever reads it.
    at::Tensor sum = y.detach();
    const at::Tensor narrow = add_in_place(sum, s, x, down, up);
    context->save_for_backward({x, down, up, narrow});
    context->saved_data["s"] = s;
    return sum;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &up = saved[2], &narrow = saved[3];
    // Whether gradients are wanted is counted over the tensors alone: y, x, down, up.
    const at::Tensor down = saved[1].contiguous(), turned = up.t().contiguous();
    const at::Tensor dy = as_rows(gradients.front().contiguous());
    const bool of_x = context->needs_input_grad(1);
    const at::Tensor dnarrow = at::empty_like(narrow);
    at::Tensor dx, ddown, dup;
    if (of_x) dx = at::empty(x.sizes(), x.options());
    if (of_x || context->needs_input_grad(2))
      compute({dy.size(0), narrow.size(1), dy.size(1), down.size(1),
               context->saved_data["s"].toDouble(), dy.const_data_ptr<float>(),
               turned.const_data_ptr<float>(), down.const_data_ptr<float>(),
               dnarrow.data_ptr<float>(), of_x ? dx.data_ptr<float>() : nullptr, false});
    if (context->needs_input_grad(2)) ddown = column_sums(dnarrow, as_rows(x));
    if (context->needs_input_grad(3)) dup = column_sums(narrow, dy).t();
    return {gradients.front(), {}, dx, ddown, dup};
  }
};

}  // namespace

bool has_low_rank_kernel(const at::Tensor& y, const at::Tensor& x, const at::Tensor& down,
                         const at::Tensor& up) {
  const auto taken = [](const at::Tensor& tensor) {
    return tensor.is_cpu() && tensor.scalar_type() == at::kFloat;
  };
  return taken(y) && taken(x) && taken(down) && taken(up) && down.dim() == 2 &&
         down.size(0) <= kMostRanks && y.is_contiguous() && x.is_contiguous();
}

at::Tensor low_rank_add(const at::Tensor& y, double s, const at::Tensor& x, const at::Tensor& down,
                        const at::Tensor& up) {
  if (c10::GradMode::is_enabled()) return LowRankAdd::apply(y, s, x, down, up);
  add_in_place(y, s, x, down, up);
  return y;
}

}  // namespace ringlet::adapt
