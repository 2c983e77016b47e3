// LibTorch's operators on the simulated device: the checks that CUDA makes, then the CPU's kernel
// on the same memory.
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "tests/device/simulated/aliases.h"
#include "tests/device/simulated/counters.h"
#include "tests/device/simulated/memory.h"

namespace ringlet::device {
namespace {

/// One call of an operator: its arguments on the stack of LibTorch's boxed calls.
class Call {
 public:
  Call(const c10::OperatorHandle& handle, torch::jit::Stack& stack)
      : handle_(handle),
        schema_(handle.schema()),
        stack_(stack),
        begin_(stack.size() - schema_.arguments().size()),
        op_(operator_named(&schema_, schema_.name().substr(schema_.name().find(':') + 2),
                           schema_.overload_name())),
        given_(stack.begin() + static_cast<std::ptrdiff_t>(begin_), stack.end()) {}

  void run() {
    for (std::size_t i = 0; i < given_.size(); ++i) stack_[begin_ + i] = on_host(given_[i]);
    if (!device_) device_ = c10::Device(kType, current_device());
    check();
    if (!op_.view) count_launch(op_, doubles_);
    if (op_.waits) count_wait(op_.name);
    const std::vector<c10::IValue> aliases(stack_.begin() + static_cast<std::ptrdiff_t>(begin_),
                                           stack_.end());
    handle_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
    write_back(aliases);
    const std::size_t returns = schema_.returns().size();
    for (std::size_t r = 0; r < returns; ++r) {
      c10::IValue& value = stack_[stack_.size() - returns + r];
      value = returned(value, schema_.returns()[r].alias_info());
    }
  }

 private:
  void look_at(const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    const bool number = tensor.unsafeGetTensorImpl()->is_wrapped_number();
    if (!on_device(tensor)) {
      if (tensor.dim() > 0) host_tensor_ = tensor;
      if (tensor.dim() == 0 && !number) host_scalar_ = true;
      return;
    }
    if (tensor.scalar_type() == at::kDouble && !number) doubles_ = true;
    if (!device_) device_ = tensor.device();
    TORCH_CHECK(*device_ == tensor.device(),
                "Expected all tensors to be on the same device, but found ", *device_, " and ",
                tensor.device(), " (", op_.name, ")");
  }

  c10::IValue on_host(const c10::IValue& value) {
    if (value.isTensor()) {
      look_at(value.toTensor());
      return aliases_.on_host(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> all;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        look_at(tensor);
        all.push_back(aliases_.on_host(tensor));
      }
      return all;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> all;
      for (const c10::IValue& item : value.toListRef()) {
        if (item.isTensor()) look_at(item.toTensor());
        all.push_back(item.isTensor() ? std::optional(aliases_.on_host(item.toTensor()))
                                      : std::nullopt);
      }
      return all;
    }
    if (value.isDevice() && value.toDevice().type() == kType) {
      device_ = value.toDevice();
      return c10::Device(c10::kCPU);
    }
    return value;
  }

  void check() const {
    TORCH_CHECK(op_.has_kernel, "simulated device: could not run '", op_.name,
                "' on CUDA: it has no kernel there");
    const bool host_tensor = host_tensor_.defined() && !op_.takes_host_indices;
    TORCH_CHECK(!host_tensor && !(host_scalar_ && op_.strict),
                "Expected all tensors to be on the same device, but found at least two devices, ",
                *device_, " and cpu! (", op_.name, ", a host tensor ",
                host_tensor ? "of shape " : "without dimensions",
                host_tensor ? c10::str(host_tensor_.sizes()) : std::string(), ")");
  }

  void write_back(const std::vector<c10::IValue>& aliases) const {
    for (std::size_t i = 0; i < given_.size(); ++i) {
      const c10::AliasInfo* info = schema_.arguments()[i].alias_info();
      if (info == nullptr || !info->isWrite()) continue;
      if (given_[i].isTensor() && on_device(given_[i].toTensor()))
        aliases_.write_back(given_[i].toTensor(), aliases[i].toTensor());
      if (!given_[i].isTensorList()) continue;
      const auto before = given_[i].toTensorVector(), after = aliases[i].toTensorVector();
      for (std::size_t k = 0; k < before.size(); ++k)
        if (on_device(before[k])) aliases_.write_back(before[k], after[k]);
    }
  }

  /// An argument that was written to, or the result on the device.
  c10::IValue returned(const c10::IValue& value, const c10::AliasInfo* info) {
    if (value.isTensorList()) {
      c10::List<at::Tensor> all;
      for (const at::Tensor& tensor : value.toTensorVector())
        all.push_back(aliases_.on_device(tensor, *device_));
      return all;
    }
    if (!value.isTensor()) return value;
    if (info != nullptr && info->isWrite())
      for (std::size_t i = 0; i < given_.size(); ++i) {
        const c10::AliasInfo* of = schema_.arguments()[i].alias_info();
        if (of != nullptr && of->isWrite() && of->beforeSets() == info->beforeSets() &&
            given_[i].isTensor())
          return given_[i];
      }
    return aliases_.on_device(value.toTensor(), *device_);
  }

  const c10::OperatorHandle& handle_;
  const c10::FunctionSchema& schema_;
  torch::jit::Stack& stack_;
  std::size_t begin_;
  Operator& op_;
  std::vector<c10::IValue> given_;
  Aliases aliases_;
  std::optional<c10::Device> device_;
  at::Tensor host_tensor_;
  bool host_scalar_ = false, doubles_ = false;
};

void run_on_host(const c10::OperatorHandle& handle, torch::jit::Stack* stack) {
  Call(handle, *stack).run();
}

/// CUDA's layer and group norm read scale and shift in the input's own type, and the group norm
/// makes its input contiguous.
void run_norm(const c10::OperatorHandle& handle, torch::jit::Stack* stack) {
  const auto& arguments = handle.schema().arguments();
  const std::size_t begin = stack->size() - arguments.size();
  const bool groups = handle.schema().name().find("group_norm") != std::string::npos;
  std::optional<c10::ScalarType> type;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    c10::IValue& value = (*stack)[begin + i];
    if (!value.isTensor() || !value.toTensor().defined()) continue;
    const at::Tensor& tensor = value.toTensor();
    const std::string& name = arguments[i].name();
    if (name == "input") type = tensor.scalar_type();
    if (type && (name == "weight" || name == "bias"))
      TORCH_CHECK(tensor.scalar_type() == *type, "expected scalar type ", *type, " but found ",
                  tensor.scalar_type(), " (", handle.schema().name(), ", ", name, ")");
    if (groups && (name == "input" || name == "grad_out")) value = tensor.contiguous();
  }
  run_on_host(handle, stack);
}

c10::Device chosen_device(std::optional<c10::Device> asked) {
  return {kType, asked && asked->has_index() ? asked->index() : current_device()};
}

at::Tensor empty(at::IntArrayRef size, std::optional<c10::ScalarType> type,
                 std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>,
                 std::optional<c10::MemoryFormat> format) {
  const c10::DeviceGuard guard(chosen_device(device));
  return at::detail::empty_generic(size, &allocator(), c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                   c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                         std::optional<c10::ScalarType> type, std::optional<c10::Layout>,
                         std::optional<c10::Device> device, std::optional<bool>) {
  const c10::DeviceGuard guard(chosen_device(device));
  return at::detail::empty_strided_generic(size, stride, &allocator(),
                                           c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                           c10::dtype_or_default(type));
}

/// The one operator that crosses devices. It waits unless the host's side is pinned and the caller
/// does not ask for it.
void copy_across(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  Aliases aliases;
  static Operator& within = operator_named("copy_", "copy_", "");
  if (from.numel() > 0 && on_device(from) && on_device(to)) {
    count_launch(within, from.scalar_type() == at::kDouble || to.scalar_type() == at::kDouble);
  } else if (from.numel() > 0) {
    const bool up = on_device(to);
    const at::Tensor& host = up ? from : to;
    const bool pinned = is_pinned(host.const_data_ptr());
    count_copy(up ? Direction::host_to_device : Direction::device_to_host,
               static_cast<std::int64_t>(up ? to.nbytes() : from.nbytes()), pinned);
    if (!pinned || !non_blocking) count_wait("copy");
  }
  aliases.on_host(to).copy_(aliases.on_host(from));
}

at::Tensor& copy_(at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  copy_across(from, to, non_blocking);
  return to;
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  copy_across(from, to, non_blocking);
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  copy_across(from, to, false);
  return to;
}

bool never_cudnn_ctc_loss(const at::Tensor&, const at::Tensor&, at::IntArrayRef, at::IntArrayRef,
                          std::int64_t) {
  return false;
}

bool never_cudnn_ctc_loss_of_tensors(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                     const at::Tensor&, std::int64_t) {
  return false;
}

/// Names of all operators with a CUDA kernel, in the form that a registration takes.
std::vector<std::string> kernel_names() {
  struct Row {
    const char* name;
    bool strict;
  };
  static constexpr Row kRows[] = {
#include "cuda_operators.inc"
  };
  std::vector<std::string> names;
  for (const Row& row : kRows) {
    std::string name = row.name;
    if (name.ends_with('.')) name.pop_back();
    names.push_back(std::move(name));
  }
  return names;
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("copy_", &copy_);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_from_and_resize);
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("_use_cudnn_ctc_loss", &never_cudnn_ctc_loss);
  library.impl("_use_cudnn_ctc_loss.Tensor", &never_cudnn_ctc_loss_of_tensors);
  library.impl("_use_miopen_ctc_loss", &never_cudnn_ctc_loss);
  library.impl("_use_miopen_ctc_loss.Tensor", &never_cudnn_ctc_loss_of_tensors);
  const std::set<std::string> norms = {"native_group_norm", "native_layer_norm"};
  for (const std::string& name : norms)
    library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&run_norm>());
  const std::set<std::string> own = {"copy_",
                                     "_copy_from",
                                     "_copy_from_and_resize",
                                     "empty.memory_format",
                                     "empty_strided",
                                     "_use_cudnn_ctc_loss",
                                     "_use_cudnn_ctc_loss.Tensor",
                                     "_use_miopen_ctc_loss",
                                     "_use_miopen_ctc_loss.Tensor"};
  // Each by its name, since the fallback does not reach what is a composite on other devices, such
  // as _foreach_mul_. The two convolutions are composites on CUDA as well, whose parts are cuDNN's.
  std::vector<std::string> names = kernel_names();
  names.insert(names.end(), {"convolution", "convolution_overrideable"});
  for (const std::string& name : names)
    if (!norms.contains(name) && !own.contains(name))
      library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

}  // namespace
}  // namespace ringlet::device
