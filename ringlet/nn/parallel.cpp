#include "ringlet/nn/parallel.h"

#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>

namespace ringlet::nn {

void parallel_for(std::int64_t count, std::int64_t grain,
                  c10::function_ref<void(std::int64_t begin, std::int64_t end)> work) {
  if (count <= 0) return;
  if (count <= grain || at::get_num_threads() == 1 || at::in_parallel_region()) {
    work(0, count);
    return;
  }
  // One byte for each number, which nobody reads or writes: its place is the number.
  const at::Tensor places = at::empty({count}, at::kByte);
  const char* const first = static_cast<const char*>(places.const_data_ptr());
  at::TensorIterator loop = at::TensorIterator::borrowing_nullary_op(places);
  loop.for_each([&](char** data, const std::int64_t*, std::int64_t length,
                    std::int64_t) { work(data[0] - first, data[0] - first + length); },
                grain);
}

}  // namespace ringlet::nn
