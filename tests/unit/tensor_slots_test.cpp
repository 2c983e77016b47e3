#include "ringlet/nn/tensor_slots.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace ringlet::nn {
namespace {

TEST(TensorSlots, ChangesAddUpAndTheBaseComesBackInAnyOrder) {
  for (const at::ScalarType type : {at::kFloat, at::kHalf}) {
    const at::Tensor before = at::arange(4, at::kFloat).to(type);
    const at::Tensor tensor = before.clone();
    const at::Tensor seen_by_network = tensor;  // the same handle
    const int first = 0, second = 0;
    TensorSlots slots;
    slots.set(tensor, &first, at::full({4}, 1.0));
    slots.set(tensor, &second, at::full({4}, 10.0));
    EXPECT_TRUE(at::equal(seen_by_network, (before.to(at::kFloat) + 11.0).to(type)));
    EXPECT_TRUE(at::equal(slots.base(tensor), before));
    slots.set(tensor, &second, at::full({4}, 20.0));  // replaces
    slots.remove(tensor, &first);
    EXPECT_TRUE(at::equal(seen_by_network, (before.to(at::kFloat) + 20.0).to(type)));
    slots.remove(tensor, &first);  // not there any more
    slots.remove(tensor, &second);
    EXPECT_TRUE(at::equal(seen_by_network, before));
    EXPECT_EQ(seen_by_network.scalar_type(), type);
  }
}

}  // namespace
}  // namespace ringlet::nn
