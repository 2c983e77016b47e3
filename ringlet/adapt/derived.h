// What parts compute from their parameters alone, such as chains of cores, rotations or generated
// factors. It is the same for every input, so that a training step needs it once, and for layers
// whose parts are alike together: a hundred small products become one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

using Tensors = std::vector<at::Tensor>;

class DerivedPass;

/// Tensors that follow from a part's parameters by an equation. It is written over a leading axis:
/// a layer alone is one entry of it, and layers that are alike are as many as there are.
class Derived {
 public:
  /// [n, …] for every tensor that it starts from -> [n, …] for every result.
  using Equation = std::function<Tensors(const Tensors& from)>;

  Derived() = default;

  /// `name` says which equation it is, with every option that it depends on: parts with equal names
  /// and shapes are computed together.
  Derived(std::string name, Tensors from, Equation equation);

  /// The results for this part, without the leading axis, in the type of what they come from.
  Tensors values() const;
  /// The same in the type of a computation.
  Tensors values(at::ScalarType type) const;

 private:
  friend class DerivedPass;
  struct State {
    std::string name;
    Tensors from;
    Equation equation;
    DerivedPass* pass = nullptr;       ///< where the results are shared now
    std::size_t group = 0, place = 0;  ///< in it
  };
  std::shared_ptr<State> state_;
};

/// The results of one forward pass with its backward pass. They are leaves of the layers' graphs:
/// gradients gather in them, whether a layer's graph is kept or made again (gradient
/// checkpointing), and go on to the parameters in one backward pass through the equations when that
/// of the loss has ended.
class DerivedPass {
 public:
  /// loss() with results that are shared by all of `derived`. Its backward pass must come before
  /// the parameters change, and once only: Error(invalid_argument) otherwise. Gradients arrive in
  /// the parameters' grad(); torch::autograd::grad does not see them.
  static at::Tensor run(const std::vector<const Derived*>& derived,
                        const std::function<at::Tensor()>& loss);

  ~DerivedPass();
  DerivedPass(const DerivedPass&) = delete;
  DerivedPass& operator=(const DerivedPass&) = delete;

 private:
  friend class Derived;
  using State = Derived::State;

  struct Made {
    Tensors results;              ///< [n, …], with the graph that leads to them
    std::vector<Tensors> leaves;  ///< by member: its rows of the results
  };
  struct Group {
    std::vector<std::shared_ptr<State>> members;
    Tensors stacked;  ///< what the equation starts from, [n, …]: leaves of its graph
    std::vector<std::vector<std::uint64_t>> versions;  ///< of the members' tensors when stacked
    std::map<at::ScalarType, Made> made;               ///< by type
  };

  explicit DerivedPass(const std::vector<const Derived*>& derived);
  std::optional<Tensors> values(const State& state, at::ScalarType type);
  void make(Group& group, at::ScalarType type) const;
  void begin_backward(const std::shared_ptr<DerivedPass>& self);
  void end_backward();
  static void finish(Group& group);
  static void hand_on(const Group& group, const std::vector<bool>& used, const Tensors& gradients);
  void unlink();

  std::vector<Group> groups_;
  bool forward_ = true;  ///< the loss is being computed: graphs made now belong to it
  bool over_ = false;
};

}  // namespace ringlet::adapt
