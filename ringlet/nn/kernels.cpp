#include "ringlet/nn/kernels.h"

#include <array>

#include "ringlet/nn/onednn.h"

namespace ringlet::nn {
namespace {

struct KernelRow {
  c10::DeviceType device;
  at::ScalarType type;
  const KernelSet* (*set)();  ///< null where this LibTorch or this machine lacks it
};

constexpr std::array kKernelTable = {
    KernelRow{c10::DeviceType::CPU, at::kFloat, onednn_kernels},
};

}  // namespace

const KernelSet& kernels_for(c10::Device device, at::ScalarType type) {
  for (const KernelRow& row : kKernelTable)
    if (row.device == device.type() && row.type == type)
      if (const KernelSet* set = row.set()) return *set;
  static const KernelSet libtorch;
  return libtorch;
}

}  // namespace ringlet::nn
