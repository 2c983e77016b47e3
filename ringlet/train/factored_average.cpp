#include "ringlet/train/factored_average.h"

#include <cmath>

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/accumulate.h>

namespace ringlet::train {

FactoredAverage::FactoredAverage(const std::vector<Trainable>& parameters, bool vectors)
    : row_(parameters.size()), column_(parameters.size()), full_(parameters.size()) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& value = parameters[i].value;
    const auto type = value.scalar_type() == at::kBFloat16 ? at::kFloat : value.scalar_type();
    if (value.dim() < 2) {
      if (vectors) full_[i] = at::zeros_like(value, type).detach();
      continue;
    }
    std::vector<std::int64_t> rows = value.sizes().vec(), columns = rows;
    rows.pop_back();
    columns.erase(columns.end() - 2);
    row_[i] = at::zeros(rows, value.options().dtype(type));
    column_[i] = at::zeros(columns, value.options().dtype(type));
  }
}

at::Tensor FactoredAverage::update(std::size_t number, const at::Tensor& squares, double decay) {
  if (full_[number].defined()) return full_[number].mul_(decay).add_(squares, 1.0 - decay).rsqrt();
  const at::Tensor &row = row_[number], &column = column_[number];
  row.mul_(decay).add_(squares.mean(-1), 1.0 - decay);
  column.mul_(decay).add_(squares.mean(-2), 1.0 - decay);
  const at::Tensor by_row = (row / row.mean(-1, /*keepdim=*/true)).rsqrt_();
  return by_row.unsqueeze(-1) * column.rsqrt().unsqueeze(-2);
}

void FactoredAverage::add_to(std::map<std::string, at::Tensor>& state, const std::string& name,
                             const std::vector<Trainable>& parameters) const {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (full_[i].defined()) state[name + "." + parameters[i].name] = full_[i];
    if (!row_[i].defined()) continue;
    state[name + "_row." + parameters[i].name] = row_[i];
    state[name + "_col." + parameters[i].name] = column_[i];
  }
}

std::size_t FactoredAverage::bytes(at::IntArrayRef sizes, bool vectors) {
  const auto numbers = static_cast<std::size_t>(c10::multiply_integers(sizes));
  if (sizes.size() < 2) return vectors ? numbers * sizeof(float) : 0;
  const auto last = static_cast<std::size_t>(sizes.back());
  const auto before = static_cast<std::size_t>(sizes[sizes.size() - 2]);
  if (numbers == 0) return 0;
  return (numbers / last + numbers / before) * sizeof(float);
}

at::Tensor root_mean_square(const at::Tensor& tensor) {
  return tensor.norm() / std::sqrt(static_cast<double>(tensor.numel()));
}

}  // namespace ringlet::train
