// What an optimiser is: an update of parameters from their gradients, with a state of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/train/trainable.h"

namespace ringlet::train {

/// An optimiser with decoupled weight decay (Loshchilov and Hutter 2019) towards where a parameter
/// starts. A new one derives from this class, says how it updates a group of tensors and which
/// tensors it keeps, and is handed to a Trainer as an OptimizerSpec.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One update from the gradients that the parameters hold, each at its factor on the rate:
  /// prepare(), p <- p - rate * weight_decay * (p - start), then update(). Parameters without a
  /// gradient are left alone. Those in bf16 are updated in fp32, one after the other, and rounded
  /// stochastically by their names and the update's number; their state is in fp32.
  void step(double learning_rate);

  /// The values to look at and to save, one for each of parameters(), where they are others than
  /// those that gradients are taken at; empty = they are the same.
  virtual std::vector<at::Tensor> shown_values() const { return {}; }

  /// Updates done so far.
  std::int64_t updates() const { return updates_; }

  /// All that later updates depend on besides updates(), by name, "SLOT.PARAMETER" as a rule. The
  /// tensors are shared, not copied: a resumed run fills them in place.
  virtual std::map<std::string, at::Tensor> state() const = 0;

  /// Sets how many updates the state holds after its tensors have been filled.
  void set_updates(std::int64_t updates) { updates_ = updates; }

  const std::vector<Trainable>& parameters() const { return parameters_; }

 protected:
  /// Parameters with a gradient that share a learning rate, a device and a type.
  struct Group {
    double learning_rate;
    std::vector<std::size_t> numbers;  ///< their places in parameters()
    std::vector<at::Tensor> values, gradients;

    /// The tensors of a slot of state, which has one for each of parameters().
    std::vector<at::Tensor> of(const std::vector<at::Tensor>& slot) const;
  };

  Optimizer(std::vector<Trainable> parameters, double weight_decay);

  /// Before anything is changed: what depends on all groups at once. It may set their rates, which
  /// are `learning_rate` times the parameters' factors. updates() counts this update already.
  virtual void prepare(double learning_rate, std::vector<Group>& groups);

  /// Changes the values from the gradients. updates() counts this update already; no gradients are
  /// recorded.
  virtual void update(const Group& group) = 0;

  /// value - start: what weight decay pulls away.
  at::Tensor from_start(std::size_t number) const;

  /// fp32 zeros, or fp64 ones, like every parameter: a slot of state.
  std::vector<at::Tensor> zeros() const;

  /// Copies of the parameters: a slot of state.
  std::vector<at::Tensor> copies() const;

  /// Adds a slot to a state, as "NAME.PARAMETER".
  void add_slot(std::map<std::string, at::Tensor>& state, const std::string& name,
                const std::vector<at::Tensor>& slot) const;

 private:
  std::vector<Group> groups(double learning_rate) const;
  void decay(const Group& group) const;
  void update_rounded(const Group& group);

  std::vector<Trainable> parameters_;
  double weight_decay_;
  std::int64_t updates_ = 0;
};

/// An optimiser before it knows its parameters: what a run's options hold.
struct OptimizerSpec {
  std::string name;
  Json settings;  ///< its numbers by name: a resumed run must repeat them
  /// Bytes of state for a tensor of these sizes that learns in fp32: for the plan of the memory.
  std::function<std::size_t(at::IntArrayRef)> state_bytes;
  std::function<std::unique_ptr<Optimizer>(std::vector<Trainable>)> make;
  /// The rate that it wants where that is another than AdamW's; 0 = it is not.
  double usual_rate = 0.0;
};

/// OptimizerSpec::state_bytes of so many fp32 numbers for each number that learns.
std::function<std::size_t(at::IntArrayRef)> floats_per_number(double count);

}  // namespace ringlet::train
