#include "ringlet/adapt/parts/low_rank.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

bool reads_weight(LowRankStart start) {
  return start == LowRankStart::pissa || start == LowRankStart::olora;
}

/// Ranks that the product has: as many again where the start is subtracted.
std::int64_t width_of(const LowRankOptions& options) {
  return options.rank * (reads_weight(options.start) ? 2 : 1);
}

}  // namespace

LowRank::LowRank(const at::Tensor& w0, const LowRankOptions& options, RandomStream random)
    : FactoredResidual(LayerShape::of(w0), width_of(options)), scale_(options.scale) {
  const std::int64_t rank = options.rank;
  if (rank < 1) throw Error(ErrorCode::invalid_argument, "lora", "the rank must be at least 1");
  if (reads_weight(options.start) && rank > std::min(shape_.out, shape_.patch()))
    throw Error(ErrorCode::unsupported, "lora(rank=" + std::to_string(rank) + ")",
                "a start from the weight allows at most the weight's rank, " +
                    std::to_string(std::min(shape_.out, shape_.patch())),
                "use a smaller rank or init=kaiming");
  const std::vector<std::int64_t> down = shape_.with_rows(rank);
  up_ = at::zeros({shape_.out, rank});
  if (reads_weight(options.start)) {
    down_ = at::zeros(down);
    if (!options.load) start_from_weight(w0, options.start);
    down_start_ = down_.clone();
    up_start_ = up_.clone();
  } else if (options.start == LowRankStart::orthogonal) {
    start_orthogonal(random);
  } else if (options.start == LowRankStart::glora) {
    down_ = at::zeros(down);
    up_ = kaiming_start({shape_.out, rank}, random);
  } else if (options.tucker) {
    down_ = kaiming_start({rank, shape_.in}, random);
    mid_ = kaiming_start({rank, rank, shape_.kernel_height, shape_.kernel_width}, random);
  } else if (options.start == LowRankStart::gaussian) {
    down_ = normal_start(down, 1.0 / static_cast<double>(rank), random);
  } else {
    down_ = kaiming_start(down, random);
  }
  for (const auto& [name, tensor] : parameters()) tensor.set_requires_grad(true);
  if (mid_.defined())
    whole_ = {"lora tucker", {mid_, down_}, [](const Tensors& from) -> Tensors {
                return {at::einsum("nijkl,njc->nickl", {from[0], from[1]})};
              }};
  else if (down_start_.defined())
    whole_ = {"lora from its start",
              {down_, down_start_, up_, up_start_},
              [](const Tensors& from) -> Tensors {
                return {at::cat({from[0], -from[1]}, 1),
                        at::cat({from[2].transpose(1, 2), from[3].transpose(1, 2)}, 1)};
              }};
}

void LowRank::start_from_weight(const at::Tensor& w0, LowRankStart start) {
  const std::int64_t rank = up_.size(1);
  const at::Tensor w = w0.detach().to(at::kFloat).cpu().flatten(1);
  if (start == LowRankStart::pissa) {
    const auto [u, s, vt] = at::linalg_svd(w, false);
    const at::Tensor root = (s.narrow(0, 0, rank) / scale_).sqrt();
    up_ = (u.narrow(1, 0, rank) * root).contiguous();
    down_ = (root.unsqueeze(1) * vt.narrow(0, 0, rank)).contiguous().view(down_.sizes());
  } else {
    const auto [q, r] = at::linalg_qr(w);
    up_ = q.narrow(1, 0, rank).contiguous();
    down_ = r.narrow(0, 0, rank).contiguous().view(down_.sizes());
  }
}

void LowRank::start_orthogonal(RandomStream& random) {
  const std::int64_t rank = up_.size(1), half = rank / 2;
  if (rank % 2 != 0)
    throw Error(ErrorCode::unsupported, "lora(init=orthogonal)",
                "splits the ranks into two halves, and " + std::to_string(rank) + " is odd",
                "use an even rank");
  constexpr double kDeviation = 0.1;
  const at::Tensor q = std::get<0>(at::linalg_qr(normal_start({rank, rank}, 1.0, random)));
  const at::Tensor odd = q.slice(0, 0, rank, 2), even = q.slice(0, 1, rank, 2);
  down_ = at::matmul(odd.t(), normal_start({half, shape_.patch()}, kDeviation, random))
              .view(shape_.with_rows(rank));
  up_ = at::matmul(normal_start({shape_.out, half}, kDeviation, random), even);
}

Parameters LowRank::parameters() const {
  Parameters named = {{"down", down_}, {"up", up_}};
  if (mid_.defined()) named.emplace_back("mid", mid_);
  return named;
}

Parameters LowRank::starts() const {
  if (!down_start_.defined()) return {};
  return {{"down", down_start_}, {"up", up_start_}};
}

Parameters LowRank::constants() const {
  if (!down_start_.defined()) return {};
  return {{"down_start", down_start_}, {"up_start", up_start_}};
}

std::vector<const Derived*> LowRank::derived() const {
  if (!mid_.defined() && !down_start_.defined()) return {};
  return {&whole_};
}

FactoredResidual::Pair LowRank::factors() const {
  if (mid_.defined()) return {whole_.values().front(), up_, scale_};
  if (!down_start_.defined()) return {down_, up_, scale_};
  const Tensors whole = whole_.values();
  return {whole[0], whole[1].t(), scale_};
}

}  // namespace ringlet::adapt
