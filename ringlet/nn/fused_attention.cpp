#include "ringlet/nn/fused_attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/nn/attention_tiles.h"
#include "ringlet/nn/parallel.h"

namespace ringlet::nn {
namespace {

constexpr std::int64_t kKeys = 128;  ///< of a block: its tiles of scores stay in the cache

constexpr float kLog2E = 1.44269504F;  ///< scores are exponents of 2 here

using Numbers = std::vector<float>;

Numbers zeros_of(std::int64_t count) { return Numbers(static_cast<std::size_t>(count)); }

/// A head of a tensor [B, N, H*d]: rows that lie `stride` apart.
template <class Number>
struct HeadOf {
  Number* first;
  std::int64_t rows, stride;

  Number* row(std::int64_t i) const { return first + i * stride; }
};
using Head = HeadOf<const float>;
using HeadToFill = HeadOf<float>;

/// `count` numbers and those that fill the last vector.
std::int64_t lanes_of(std::int64_t count) {
  return (count + kTileLanes - 1) / kTileLanes * kTileLanes;
}

struct AttentionShape {
  std::int64_t batch, heads, queries, keys, width;

  std::int64_t tiles() const { return (queries + kTileQueries - 1) / kTileQueries; }
  /// Multiply-adds of a head, forward.
  std::int64_t work() const { return 2 * queries * keys * width; }
  std::int64_t padded_width() const { return (width + kTileEven - 1) / kTileEven * kTileEven; }
  /// Head `number` of all those of the batch, in a contiguous tensor.
  Head head(const at::Tensor& x, std::int64_t number) const {
    return {x.const_data_ptr<float>() + place(x, number), x.size(1), x.size(2)};
  }
  HeadToFill head_to_fill(at::Tensor& x, std::int64_t number) const {
    return {x.data_ptr<float>() + place(x, number), x.size(1), x.size(2)};
  }

 private:
  std::int64_t place(const at::Tensor& x, std::int64_t number) const {
    return number / heads * x.stride(0) + number % heads * width;
  }
};

AttentionShape attention_shape(const at::Tensor& q, const at::Tensor& k, std::int64_t heads) {
  return {q.size(0), heads, q.size(1), k.size(1), q.size(2) / heads};
}

/// The rows of a head side by side [rows, width]. In the tensor they may lie so far apart that they
/// take each other's place in the cache.
void gather(const Head& head, std::int64_t width, float* to) {
  for (std::int64_t i = 0; i < head.rows; ++i) std::copy_n(head.row(i), width, to + i * width);
}

/// A tile of queries, s x, as rows [kTileQueries, padded] with zeros elsewhere.
void rows_of_tile(const Head& head, std::int64_t first, std::int64_t count, std::int64_t width,
                  std::int64_t padded, float s, float* to) {
  std::fill_n(to, kTileQueries * padded, 0.0F);
  for (std::int64_t i = 0; i < count; ++i) {
    const float* const row = head.row(first + i);
    for (std::int64_t c = 0; c < width; ++c) to[i * padded + c] = s * row[c];
  }
}

/// Keys and values of one head side by side.
struct KeysAndValues {
  explicit KeysAndValues(const AttentionShape& shape)
      : width(shape.width),
        keys(zeros_of(shape.keys * width)),
        values(zeros_of(shape.keys * width)) {}

  void take(const Head& k, const Head& v) {
    gather(k, width, keys.data());
    gather(v, width, values.data());
  }

  std::int64_t width;
  Numbers keys, values;  ///< [M, width]
};

/// The passes over one head. Both keep their tiles between calls.
class HeadForward {
 public:
  HeadForward(const AttentionShape& shape, float scale)
      : shape_(shape),
        scale_(scale),
        tiles_(attention_tiles()),
        q_(zeros_of(shape.width * kTileQueries)),
        y_(zeros_of(shape.width * kTileQueries)),
        scores_(zeros_of(kKeys * kTileQueries)) {}

  /// Rows of y from `first`, and log2(sum(2^scores)) of each.
  void tile(const Head& q, const KeysAndValues& kv, std::int64_t first, const HeadToFill& y,
            float* log_sums) {
    const std::int64_t count = std::min(kTileQueries, shape_.queries - first);
    tiles_.columns(q.row(first), q.stride, count, shape_.width, scale_ * kLog2E, q_.data());
    std::fill(y_.begin(), y_.end(), 0.0F);
    std::fill_n(largest_, kTileQueries, -std::numeric_limits<float>::infinity());
    std::fill_n(sums_, kTileQueries, 0.0F);
    const std::int64_t lanes = lanes_of(count);
    for (std::int64_t key = 0; key < shape_.keys; key += kKeys)
      block(kv, key, std::min(kKeys, shape_.keys - key), lanes);
    for (std::int64_t i = 0; i < lanes; ++i) factors_[i] = 1.0F / sums_[i];
    tiles_.scale(y_.data(), shape_.width, lanes, factors_);
    tiles_.rows(y_.data(), count, shape_.width, 1.0F, y.row(first), y.stride);
    for (std::int64_t i = 0; i < count; ++i)
      log_sums[first + i] = largest_[i] + std::log2(sums_[i]);
  }

 private:
  void block(const KeysAndValues& kv, std::int64_t first, std::int64_t count, std::int64_t lanes) {
    const std::int64_t width = shape_.width;
    tiles_.product({count, width, lanes, kv.keys.data() + first * width, width, 1, q_.data(),
                    kTileQueries, scores_.data(), kTileQueries, false});
    tiles_.exponentials(scores_.data(), count, lanes, largest_, sums_, factors_);
    if (first > 0) tiles_.scale(y_.data(), width, lanes, factors_);
    tiles_.product({width, count, lanes, kv.values.data() + first * width, 1, width, scores_.data(),
                    kTileQueries, y_.data(), kTileQueries, true});
  }

  const AttentionShape& shape_;
  float scale_;
  const AttentionTiles& tiles_;
  Numbers q_, y_;   ///< [width, kTileQueries]
  Numbers scores_;  ///< [kKeys, kTileQueries]
  float largest_[kTileQueries], sums_[kTileQueries], factors_[kTileQueries];
};

class HeadBackward {
 public:
  HeadBackward(const AttentionShape& shape, float scale)
      : shape_(shape),
        padded_(shape.padded_width()),
        scale_(scale),
        tiles_(attention_tiles()),
        q_(zeros_of(shape.width * kTileQueries)),
        dy_(zeros_of(shape.width * kTileQueries)),
        dq_(zeros_of(shape.width * kTileQueries)),
        q_rows_(zeros_of(padded_ * kTileQueries)),
        dy_rows_(zeros_of(padded_ * kTileQueries)),
        weights_(zeros_of(kKeys * kTileQueries)),
        gradients_(zeros_of(kKeys * kTileQueries)),
        dk_(zeros_of(shape.keys * padded_)),
        dv_(zeros_of(shape.keys * padded_)) {}

  void begin() {
    std::fill(dk_.begin(), dk_.end(), 0.0F);
    std::fill(dv_.begin(), dv_.end(), 0.0F);
  }

  /// Rows of dq from `first`, and what these queries add to dk and dv.
  void tile(const Head& q, const KeysAndValues& kv, const Head& y, const Head& dy,
            const float* log_sums, std::int64_t first, const HeadToFill& dq) {
    const std::int64_t width = shape_.width, count = std::min(kTileQueries, shape_.queries - first);
    tiles_.columns(q.row(first), q.stride, count, width, scale_ * kLog2E, q_.data());
    tiles_.columns(dy.row(first), dy.stride, count, width, 1.0F, dy_.data());
    rows_of_tile(q, first, count, width, padded_, scale_, q_rows_.data());
    rows_of_tile(dy, first, count, width, padded_, 1.0F, dy_rows_.data());
    std::fill_n(log_sums_, kTileQueries, 0.0F);
    std::copy_n(log_sums + first, count, log_sums_);
    tiles_.columns(y.row(first), y.stride, count, width, 1.0F, dq_.data());
    std::fill_n(dots_, kTileQueries, 0.0F);
    const float *const from_y = dq_.data(), *const of_y = dy_.data();
    for (std::int64_t c = 0; c < width; ++c)
      for (std::int64_t i = 0; i < count; ++i)
        dots_[i] += from_y[c * kTileQueries + i] * of_y[c * kTileQueries + i];
    std::fill(dq_.begin(), dq_.end(), 0.0F);
    for (std::int64_t key = 0; key < shape_.keys; key += kKeys)
      block(kv, key, std::min(kKeys, shape_.keys - key), lanes_of(count));
    tiles_.rows(dq_.data(), count, width, scale_, dq.row(first), dq.stride);
  }

  void end(const HeadToFill& dk, const HeadToFill& dv) const {
    for (std::int64_t i = 0; i < shape_.keys; ++i) {
      std::copy_n(dk_.data() + i * padded_, shape_.width, dk.row(i));
      std::copy_n(dv_.data() + i * padded_, shape_.width, dv.row(i));
    }
  }

 private:
  void block(const KeysAndValues& kv, std::int64_t first, std::int64_t count, std::int64_t lanes) {
    const std::int64_t width = shape_.width;
    const float *const k = kv.keys.data() + first * width, *const v =
                                                               kv.values.data() + first * width;
    float *const p = weights_.data(), *const ds = gradients_.data();
    tiles_.product(
        {count, width, lanes, k, width, 1, q_.data(), kTileQueries, p, kTileQueries, false});
    tiles_.product(
        {count, width, lanes, v, width, 1, dy_.data(), kTileQueries, ds, kTileQueries, false});
    tiles_.gradients(p, ds, count, lanes, log_sums_, dots_);
    tiles_.product({count, lanes, padded_, p, kTileQueries, 1, dy_rows_.data(), padded_,
                    dv_.data() + first * padded_, padded_, true});
    tiles_.product({count, lanes, padded_, ds, kTileQueries, 1, q_rows_.data(), padded_,
                    dk_.data() + first * padded_, padded_, true});
    tiles_.product(
        {width, count, lanes, k, 1, width, ds, kTileQueries, dq_.data(), kTileQueries, true});
  }

  const AttentionShape& shape_;
  std::int64_t padded_;
  float scale_;
  const AttentionTiles& tiles_;
  Numbers q_, dy_, dq_;          ///< [width, kTileQueries]
  Numbers q_rows_, dy_rows_;     ///< [kTileQueries, padded]
  Numbers weights_, gradients_;  ///< [kKeys, kTileQueries]
  Numbers dk_, dv_;              ///< [M, padded]
  float log_sums_[kTileQueries], dots_[kTileQueries];
};

/// y, and log2(sum(2^scores)) [B, H, N].
struct Attended {
  at::Tensor y, log_sums;
};

Attended attend(const AttentionShape& shape, double scale, const at::Tensor& q, const at::Tensor& k,
                const at::Tensor& v) {
  Attended result = {at::empty(q.sizes(), q.options()),
                     at::empty({shape.batch, shape.heads, shape.queries}, q.options())};
  float* const log_sums = result.log_sums.data_ptr<float>();
  // Tiles in the order of their heads: a thread gathers keys and values when it comes to a head.
  const std::int64_t per_head = shape.tiles();
  parallel_for(shape.batch * shape.heads * per_head, grain_of(shape.work() / per_head),
               [&](std::int64_t begin, std::int64_t end) {
                 HeadForward pass(shape, static_cast<float>(scale));
                 KeysAndValues kv(shape);
                 while (begin < end) {
                   const std::int64_t head = begin / per_head,
                                      last = std::min(end, (head + 1) * per_head);
                   kv.take(shape.head(k, head), shape.head(v, head));
                   for (; begin < last; ++begin)
                     pass.tile(shape.head(q, head), kv, begin % per_head * kTileQueries,
                               shape.head_to_fill(result.y, head), log_sums + head * shape.queries);
                 }
               });
  return result;
}

struct Gradients {
  at::Tensor q, k, v;
};

Gradients gradients_of_attention(const AttentionShape& shape, double scale, const at::Tensor& q,
                                 const at::Tensor& k, const at::Tensor& v, const Attended& attended,
                                 const at::Tensor& dy) {
  Gradients d = {at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  const float* const log_sums = attended.log_sums.const_data_ptr<float>();
  parallel_for(shape.batch * shape.heads, grain_of(2 * shape.work()),
               [&](std::int64_t begin, std::int64_t end) {
                 HeadBackward pass(shape, static_cast<float>(scale));
                 KeysAndValues kv(shape);
                 for (std::int64_t head = begin; head < end; ++head) {
                   kv.take(shape.head(k, head), shape.head(v, head));
                   pass.begin();
                   for (std::int64_t first = 0; first < shape.queries; first += kTileQueries)
                     pass.tile(shape.head(q, head), kv, shape.head(attended.y, head),
                               shape.head(dy, head), log_sums + head * shape.queries, first,
                               shape.head_to_fill(d.q, head));
                   pass.end(shape.head_to_fill(d.k, head), shape.head_to_fill(d.v, head));
                 }
               });
  return d;
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FusedAttention : torch::autograd::Function<FusedAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, std::int64_t heads, double scale) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Attended attended =
        attend(attention_shape(q, k, heads), scale, q.contiguous(), k.contiguous(), v.contiguous());
    context->save_for_backward({q, k, v, attended.y, attended.log_sums});
    context->saved_data["heads"] = heads;
    context->saved_data["scale"] = scale;
    return attended.y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    auto& data = context->saved_data;
    const at::Tensor q = saved[0].contiguous(), k = saved[1].contiguous(),
                     v = saved[2].contiguous();
    const Gradients d = gradients_of_attention(
        attention_shape(q, k, data["heads"].toInt()), data["scale"].toDouble(), q, k, v,
        {saved[3], saved[4]}, gradients.front().contiguous());
    return {d.q, d.k, d.v, {}, {}};
  }
};

}  // namespace

at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           std::int64_t heads, double scale) {
  if (c10::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad()))
    return FusedAttention::apply(q, k, v, heads, scale);
  return attend(attention_shape(q, k, heads), scale, q.contiguous(), k.contiguous(), v.contiguous())
      .y;
}

}  // namespace ringlet::nn
