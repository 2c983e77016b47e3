#include "ringlet/adapt/plan.h"

namespace ringlet::adapt {

Way choose_way(const Transform& transform, const LayerShape& shape, std::int64_t tokens,
               bool training) {
  // One number written costs as much as this many multiply-adds of a matrix product. Few, since a
  // ring's wide intermediate is made in pieces that stay in the cache (ring.cpp).
  constexpr double kWrite = 12.0;
  const double each = transform.multiply_adds() + kWrite * transform.written();
  const auto count = static_cast<double>(tokens);
  const auto rows = static_cast<double>(shape.out * shape.positions());
  const auto in = static_cast<double>(shape.in);
  const double passes = training ? 3.0 : 1.0;  // the backward pass has two products for each one
  const double through = passes * count * each;
  double folded = passes * rows * each + kWrite * rows * in;
  if (training) folded += count * rows * in;  // the gradient of W'
  return folded < through ? Way::folded_into_weight : Way::through_input;
}

}  // namespace ringlet::adapt
