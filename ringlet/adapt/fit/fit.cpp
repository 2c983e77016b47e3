#include "ringlet/adapt/fit/fit.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/StringUtil.h>

#include "ringlet/adapt/fit/approach.h"
#include "ringlet/adapt/fit/coordinates.h"
#include "ringlet/adapt/fit/fit_closed_form.h"
#include "ringlet/adapt/fit/fit_ring.h"
#include "ringlet/adapt/fit/fit_weight.h"
#include "ringlet/adapt/fit/lbfgs.h"
#include "ringlet/adapt/fit/turns.h"
#include "ringlet/adapt/method.h"
#include "ringlet/adapt/parts/oft.h"
#include "ringlet/adapt/registry.h"
#include "ringlet/core/error.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::adapt {
namespace {

constexpr double kSmallError = 1e-12;  // squared; what is below is rounding of fp32

/// How the best residual is found for what the transforms leave over.
enum class Solver { none, low_rank, train, ring, whole };

Solver solver_of(const Method& method) {
  for (const PartSpec& part : method.parts) {
    if (part.name == "lora" && !part.yes("tucker")) return Solver::low_rank;
    if (part.name == "tt") return Solver::train;
    if (part.name == "tr") return Solver::ring;
    if (part.name == "diff") return Solver::whole;
  }
  return Solver::none;
}

/// The parts that change the weight.
std::vector<const PartSpec*> weight_parts(const Method& method) {
  std::vector<const PartSpec*> parts;
  for (const PartSpec& part : method.parts)
    if (find_part(part.name).kind != PartKind::bias) parts.push_back(&part);
  return parts;
}

at::Tensor find(const Parameters& parameters, const std::string& name) {
  return std::ranges::find(parameters, name, &Parameters::value_type::first)->second;
}

/// One fit, from the adapter's start to its best parameters.
class Fitter {
 public:
  Fitter(TransformResidual& adapter, const at::Tensor& w0, const at::Tensor& wanted,
         const FitOptions& options)
      : adapter_(adapter),
        options_(options),
        w0_(w0.detach().to(at::kFloat)),
        wanted_(wanted.detach().to(w0_.options())),
        method_(adapter.method()),
        solver_(solver_of(method_)),
        parameters_(adapter.parameters()),
        squared_norm_((wanted_ - w0_).to(at::kDouble).square().sum().item<double>()) {
    for (const auto& [name, tensor] : parameters_) trainable_.push_back(tensor.requires_grad());
    set_trainable({});
    strength_ = std::exchange(adapter_.strength, 1.0);
    keep_if_better();
  }

  ~Fitter() {
    adapter_.strength = strength_;
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      parameters_[i].second.set_requires_grad(trainable_[i]);
  }
  Fitter(const Fitter&) = delete;
  Fitter& operator=(const Fitter&) = delete;

  FitResult run() {
    const auto begin = std::chrono::steady_clock::now();
    result_.closed_form = closed_form();
    if (result_.closed_form)
      result_.converged = true;
    else
      search();
    keep_if_better();
    restore();
    result_.relative_error = std::sqrt(best_error_);
    for (const auto& [name, tensor] : parameters_) result_.parameters += tensor.numel();
    result_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result_;
  }

 private:
  at::Tensor weight() const {
    const at::NoGradGuard no_grad;
    return adapter_.weight(w0_);
  }

  /// Squared, relative to the difference.
  double error() const {
    return (weight() - wanted_).to(at::kDouble).square().sum().item<double>() / squared_norm_;
  }

  void keep_if_better() {
    const double now = error();
    if (!best_.empty() && !(now < best_error_)) return;
    best_error_ = now;
    best_.clear();
    for (const auto& [name, tensor] : parameters_) best_.push_back(tensor.detach().clone());
  }

  void restore() {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < parameters_.size(); ++i) parameters_[i].second.copy_(best_[i]);
  }

  const Magnitude* magnitude() const { return adapter_.parts().magnitude.get(); }
  Parameters residual() const { return adapter_.parts().residual->parameters(); }

  /// The residual is a chain of cores that makes more numbers than the weight has. Its solvers take
  /// those for zero, where a search may leave them free.
  bool padded() const {
    if (solver_ != Solver::ring && solver_ != Solver::train) return false;
    std::int64_t out = 1, in = 1;
    for (const auto& [name, core] : residual()) {
      if (name.starts_with("out_")) out *= core.size(0);
      if (name.starts_with("in_")) in *= core.size(0);
    }
    return out > w0_.size(0) || in > w0_.size(1);
  }

  /// The best residual can be found for the transforms as they are.
  bool can_solve() const { return solver_ != Solver::none && !magnitude() && !padded(); }

  /// W* less the weight without the residual's trainable part.
  at::Tensor left_over() const {
    const at::NoGradGuard no_grad;
    const char* const name = solver_ == Solver::low_rank ? "up"
                             : solver_ == Solver::whole  ? "diff"
                                                         : "out_0";
    find(residual(), name).zero_();
    return wanted_ - weight();
  }

  /// Sets up and down to the best low rank for a weight's change.
  void set_low_rank(const at::Tensor& change) {
    const auto* low_rank = dynamic_cast<const FactoredResidual*>(adapter_.parts().residual.get());
    const at::Tensor up = find(residual(), "up"), down = find(residual(), "down");
    const double scale = low_rank->pair().scale;
    const LowRankProduct product = best_low_rank(change.flatten(1) / scale, up.size(1));
    up.copy_(product.left);
    down.copy_(product.right.reshape(down.sizes()));
  }

  /// The best residual for the transforms as they are. Needs a weight that the magnitude, where
  /// there is one, does not change: at the start, or none.
  void solve_residual(std::int64_t most_sweeps) {
    const at::NoGradGuard no_grad;
    const at::Tensor rest = left_over();
    const Parameters parts = residual();
    if (solver_ == Solver::whole) find(parts, "diff").copy_(rest);
    if (solver_ == Solver::train) set_tensor_train(parts, rest);
    if (solver_ == Solver::low_rank) set_low_rank(rest);
    if (solver_ == Solver::ring) {
      const SweepResult result = sweep_tensor_ring(parts, rest, most_sweeps, options_.tolerance);
      result_.steps += result.sweeps;
      result_.converged = result.converged;
    }
  }

  bool closed_form() {
    const std::vector<const PartSpec*> parts = weight_parts(method_);
    if (parts.empty()) return true;
    if (solver_ == Solver::whole && !magnitude()) {
      solve_residual(0);
      return true;
    }
    if (parts.size() > 1) return false;
    if (magnitude()) {
      project_magnitude();
      return true;
    }
    if (parts.front()->name == "diagonal") {
      const Transform& transform = *adapter_.parts().transforms.front();
      const at::Tensor scales = best_scales(w0_, wanted_, transform.side());
      const at::Tensor parameter = find(transform.parameters(), "scale");
      parameter.copy_(parts.front()->word("form") == "offset" ? scales - 1.0 : scales);
      return true;
    }
    if (parts.front()->name == "oft") {
      auto& oft = dynamic_cast<Oft&>(*adapter_.parts().transforms.front());
      return oft.turn(rows_for(oft, w0_), rows_for(oft, wanted_));
    }
    if (padded() || (solver_ != Solver::low_rank && solver_ != Solver::train)) return false;
    solve_residual(0);
    return true;
  }

  void search() {
    keep_if_better();
    if (solver_ != Solver::none) {
      constexpr std::int64_t kFirstSweeps = 20;
      const bool alone = weight_parts(method_).size() == 1;  // a ring, or it had a closed form
      solve_residual(alone ? options_.steps : std::min(options_.steps, kFirstSweeps));
      keep_if_better();
      if (alone && !padded()) return;
    }
    result_.converged = false;
    if (alternate()) return;
    push_rings();
    sweep_transform();
    if (solver_ == Solver::low_rank && !magnitude())
      search_transforms();
    else
      search_jointly();
  }

  std::int64_t steps_left() const { return options_.steps - result_.steps; }

  /// Methods without transforms whose factors have closed forms for each other: in turns. True
  /// where no search has to follow.
  bool alternate() {
    const Parts& parts = adapter_.parts();
    if (!parts.transforms.empty()) return false;
    if (magnitude() && solver_ == Solver::low_rank) {
      alternate_magnitude();
      return true;
    }
    auto* const factors = dynamic_cast<Approaching*>(parts.residual.get());
    if (factors == nullptr || magnitude()) return false;
    const at::Tensor difference = wanted_ - w0_;
    constexpr std::int64_t kFirstTurns = 50;
    const std::int64_t most = factors->turns_suffice() ? options_.steps : kFirstTurns;
    Turns turns(options_.tolerance);
    while (result_.steps < std::min(most, options_.steps) && !result_.converged) {
      if (!factors->approach(difference, result_.steps == 0)) return false;
      ++result_.steps;
      result_.converged = turns.converged(error());
    }
    keep_if_better();
    return factors->turns_suffice() || best_error_ <= kSmallError;
  }

  /// The magnitude makes the lengths of the rows, or columns, free.
  void alternate_magnitude() {
    const at::NoGradGuard no_grad;
    left_over();  // takes the trained part of D away
    const at::Tensor base = w0_ + adapter_.parts().residual->weight();
    const ScaledLowRank found = best_scaled_low_rank(
        base, wanted_, magnitude()->side(), find(residual(), "up").size(1),
        {.most_turns = steps_left(), .tolerance = options_.tolerance, .seed = options_.seed});
    result_.steps += found.turns;
    result_.converged = found.converged;
    set_low_rank(found.change);
    project_magnitude();
  }

  /// The gradient at a tensor ring's identity start is that of a Kronecker product of single modes,
  /// whatever the rank is: a stationary point of its own, which only a step off the start leaves.
  void push_rings() {
    constexpr double kPush = 0.05;
    RandomStream random = Random(options_.seed).stream("fit");
    std::size_t next = 0;
    for (const PartSpec& part : method_.parts) {
      if (find_part(part.name).kind != PartKind::transform) continue;
      const Transform& transform = *adapter_.parts().transforms.at(next++);
      if (part.name != "trm") continue;
      for (const auto& [name, core] : transform.parameters())
        core.add_(
            normal_start(core.sizes(), kPush / part.number("rank"), random).to(core.device()));
    }
  }

  /// A first approach: least squares for one core of T at a time, and the residual in between.
  void sweep_transform() {
    constexpr std::int64_t kSweeps = 8;
    const TensorRingMatrix* const ring = only_ring(adapter_);
    if (ring == nullptr) return;
    const at::NoGradGuard no_grad;
    RingMatrixRows least_squares(ring->parameters(), rows_for(*ring, w0_));
    if (least_squares.padded()) return;
    if (solver_ == Solver::low_rank) left_over();  // takes D away
    at::Tensor gap = wanted_ - weight();
    for (std::int64_t i = 0; i < kSweeps && steps_left() > 0; ++i) {
      const bool low_rank = solver_ == Solver::low_rank;
      const at::Tensor beside = low_rank ? low_rank_of(gap) : at::zeros_like(gap);
      const at::Tensor rest = least_squares.sweep(rows_for(*ring, gap - beside));
      gap = from_rows(*ring, rest, gap.sizes()) + beside;
      ++result_.steps;
      if (solver_ != Solver::ring || padded()) continue;
      const at::Tensor wanted = gap + adapter_.parts().residual->weight();
      sweep_tensor_ring(residual(), wanted, 1, options_.tolerance);
      gap = wanted - adapter_.parts().residual->weight();
    }
    if (solver_ != Solver::low_rank) keep_if_better();
  }

  /// The best low rank of the residual's own rank, for matrices that change little.
  at::Tensor low_rank_of(const at::Tensor& gap) {
    if (!tracker_) tracker_.emplace(find(residual(), "up").size(1), options_.seed);
    return tracker_->approximate(gap.flatten(1)).view_as(gap);
  }

  /// The best transforms when every T is judged with the best low rank beside it (variable
  /// projection; Golub and Pereyra 1973).
  void search_transforms() {
    left_over();  // takes D away
    std::vector<std::string> learning;
    for (const auto& [name, tensor] : parameters_)
      if (name.starts_with("transform")) learning.push_back(name);
    const Minimum minimum =
        descend(learning, steps_left(), [&](const at::Tensor& gap) { return low_rank_of(gap); });
    result_.converged = minimum.converged;
    solve_residual(0);
  }

  /// All parameters at once; a ring gets sweeps in between, which gradients are a poor match for.
  void search_jointly() {
    constexpr std::int64_t kRound = 200, kSweeps = 20;
    const bool rounds = solver_ == Solver::ring && can_solve();
    std::vector<std::string> learning;
    for (const auto& [name, tensor] : parameters_)
      if (!name.starts_with("magnitude") && !name.starts_with("bias")) learning.push_back(name);
    double before = 0.0;
    do {
      before = best_error_;
      const Minimum minimum =
          descend(learning, rounds ? std::min(steps_left(), kRound) : steps_left(), {});
      result_.converged = minimum.converged;
      keep_if_better();
      if (!can_solve()) return;
      solve_residual(std::min(steps_left(), kSweeps));
      if (!rounds) return;
      keep_if_better();
      result_.converged = before - best_error_ <= 4.0 * options_.tolerance * before;
    } while (!result_.converged && steps_left() > 0);
  }

  /// The magnitude that is best for the direction of the weight. With it the gradient that takes
  /// the length of W for a constant is the true one.
  void project_magnitude() {
    const at::NoGradGuard no_grad;
    const at::Tensor m = find(magnitude()->parameters(), "m");
    const at::Tensor product = weight() * wanted_;
    const at::Tensor three = product.dim() == 2 ? product.unsqueeze(-1) : product.flatten(2);
    const at::Tensor along = three.sum(magnitude()->side() == Side::output ? at::IntArrayRef{1, 2}
                                                                           : at::IntArrayRef{0, 2});
    m.copy_(at::where(m == 0, m, along / at::where(m == 0, 1.0, m)));
  }

  void set_trainable(const std::vector<std::string>& names) {
    for (const auto& [name, tensor] : parameters_)
      tensor.set_requires_grad(std::ranges::find(names, name) != names.end());
  }

  /// Of the cores by their names, where all named parameters are cores of rings; else none.
  std::vector<at::Tensor> grams_of(const std::vector<std::string>& names) const {
    std::vector<at::Tensor> grams;
    const TensorRingMatrix* const ring = only_ring(adapter_);
    if (ring == nullptr) return grams;
    grams = RingMatrixRows(ring->parameters(), rows_for(*ring, w0_)).grams();
    if (solver_ == Solver::ring)
      for (at::Tensor& gram : ring_grams(residual())) grams.push_back(std::move(gram));
    if (grams.size() != names.size()) return {};
    for (at::Tensor& gram : grams) gram.mul_(2.0 / squared_norm_);
    return grams;
  }

  /// L-BFGS over the named parameters. `residual_for`, where given, makes the best residual for a
  /// gap W* - W'.
  Minimum descend(const std::vector<std::string>& names, std::int64_t steps,
                  const std::function<at::Tensor(const at::Tensor&)>& residual_for) {
    std::vector<at::Tensor> tensors;
    for (const std::string& name : names) tensors.push_back(find(parameters_, name));
    if (tensors.empty() || steps <= 0) return {error(), 0, tensors.empty()};
    const std::vector<at::Tensor> grams = grams_of(names);
    const Coordinates coordinates(tensors, grams);
    at::Tensor x = coordinates.point();
    set_trainable(names);
    constexpr std::int64_t kWindow = 50, kWindowWithGrams = 10;
    const Minimum minimum = minimise(
        [&](const at::Tensor& point, at::Tensor& gradient) {
          coordinates.move_to(point);
          if (magnitude()) project_magnitude();
          const MadeWeight made = make_weight(adapter_, w0_);
          const at::NoGradGuard no_grad;
          at::Tensor gap = wanted_ - made.weight;
          if (residual_for) gap = gap - residual_for(gap);
          made.backward(gap * (-2.0 / squared_norm_));
          gradient = coordinates.take_gradient();
          return gap.square().sum(at::kDouble).item<double>() / squared_norm_;
        },
        x,
        {.steps = steps,
         .tolerance = options_.tolerance,
         .window = grams.empty() ? kWindow : kWindowWithGrams,
         .small = kSmallError});
    set_trainable({});
    coordinates.move_to(x);
    if (magnitude()) project_magnitude();
    result_.steps += minimum.steps;
    return minimum;
  }

  TransformResidual& adapter_;
  const FitOptions& options_;
  at::Tensor w0_, wanted_;
  Method method_;
  Solver solver_;
  Parameters parameters_;
  std::vector<bool> trainable_;  ///< as they were
  double squared_norm_;
  double strength_ = 1.0;  ///< as it was
  std::vector<at::Tensor> best_;
  double best_error_ = 0.0;
  std::optional<LowRankTracker> tracker_;
  FitResult result_;
};

void check(const at::Tensor& w0, const at::Tensor& wanted) {
  if (w0.sizes() != wanted.sizes())
    throw Error(ErrorCode::mismatch, "fit",
                "the target weight has shape " + c10::str(wanted.sizes()) + " instead of " +
                    c10::str(w0.sizes()));
  for (const at::Tensor& weight : {w0, wanted})
    if (!at::isfinite(weight.to(at::kFloat)).all().item<bool>())
      throw Error(ErrorCode::non_finite, "fit", "a weight holds NaN or infinite values");
  if (at::equal(w0.to(at::kFloat), wanted.to(w0.device(), at::kFloat)))
    throw Error(ErrorCode::invalid_argument, "fit", "the target weight equals the layer's weight",
                "there is nothing to fit");
}

void fit_bias(const TransformResidual& adapter, const at::Tensor& bias, const at::Tensor& wanted) {
  const at::NoGradGuard no_grad;
  const Parts& parts = adapter.parts();
  if (!parts.bias.defined() || !bias.defined() || !wanted.defined()) return;
  parts.bias.copy_((wanted.to(bias.device(), at::kFloat) - bias.to(at::kFloat)) / parts.bias_scale);
}

}  // namespace

FitResult fit(TransformResidual& adapter, const nn::Layer& layer, const at::Tensor& wanted,
              const FitOptions& options, const at::Tensor& wanted_bias) {
  return nn::with_ringlet_errors("fit", [&] {
    check(layer.weight(), wanted);
    const FitResult result = Fitter(adapter, layer.weight(), wanted, options).run();
    fit_bias(adapter, layer.bias(), wanted_bias);
    return result;
  });
}

std::int64_t rank_for_error(const at::Tensor& difference, double relative_error) {
  const at::NoGradGuard no_grad;
  const at::Tensor squares =
      at::linalg_svdvals(difference.to(at::kFloat).flatten(1)).to(at::kDouble).square().cpu();
  const double all = squares.sum().item<double>();
  double kept = 0.0;
  std::int64_t rank = 0;
  while (rank < squares.size(0) && all - kept > relative_error * relative_error * all)
    kept += squares[rank++].item<double>();
  return std::max<std::int64_t>(1, rank);
}

}  // namespace ringlet::adapt
