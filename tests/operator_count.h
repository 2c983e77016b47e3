// How many operators compute something: what a device would launch. Exact and repeatable, so that
// tests can hold what a training step does to a number.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>

namespace ringlet {

/// Counts the operators of this thread while it lives, those of the backward pass on a CPU, too:
/// the outermost ones with a kernel of their own. Views, allocations and what an operator calls
/// inside are none; one over a list of tensors is one.
class OperatorCount {
 public:
  OperatorCount()
      : handle_(at::addThreadLocalCallback(
            at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::FUNCTION}))) {
    state() = State();
  }
  ~OperatorCount() { at::removeCallback(handle_); }
  OperatorCount(const OperatorCount&) = delete;
  OperatorCount& operator=(const OperatorCount&) = delete;

  static std::int64_t total() { return state().total; }
  /// By name.
  static const std::map<std::string, std::int64_t>& by_name() { return state().by_name; }

 private:
  struct State {
    std::int64_t total = 0;
    int inside = 0;  ///< operators that count
    std::map<std::string, std::int64_t> by_name;
  };
  struct Counted final : at::ObserverContext {};

  static State& state() {
    thread_local State state;
    return state;
  }

  static bool computes(const std::string& name, const char* overload) {
    static std::map<std::string, bool> known;
    const auto [place, is_new] = known.emplace(name + "." + overload, false);
    if (!is_new) return place->second;
    const auto op = c10::Dispatcher::singleton().findSchema({name, overload});
    if (!op) return false;
    const std::string_view bare = std::string_view(name).substr(name.find(':') + 2);
    if (bare.starts_with("_foreach") || bare.starts_with("_fused") || bare == "copy_")
      return place->second = true;
    bool tensors = false;
    for (const c10::Argument& result : op->schema().returns()) {
      if (result.alias_info() != nullptr && !result.alias_info()->isWrite()) return false;
      tensors = tensors || result.type()->str().find("Tensor") != std::string::npos;
    }
    const bool allocates = bare.starts_with("empty") || bare == "resize_" || bare == "set_";
    return place->second =
               tensors && !allocates && op->hasKernelForDispatchKey(c10::DispatchKey::CPU);
  }

  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
    State& now = state();
    if (!computes(function.name(), function.overload_name())) return nullptr;
    if (now.inside++ == 0) {
      ++now.total;
      ++now.by_name[function.name()];
    }
    return std::make_unique<Counted>();
  }

  static void end(const at::RecordFunction&, at::ObserverContext* context) {
    if (context != nullptr) --state().inside;
  }

  at::CallbackHandle handle_;
};

}  // namespace ringlet
