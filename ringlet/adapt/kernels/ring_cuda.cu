// The ring kernel on CUDA devices: launches of the program of ring_workers.h. No header of LibTorch
// is needed here, so that nvcc compiles it in seconds.
#include <cuda_runtime.h>

#include "ringlet/adapt/kernels/ring_cuda_launch.h"

namespace ringlet::adapt {
namespace {

constexpr int kThreads = 256;

extern __shared__ float common_memory[];

__device__ ring_workers::Worker this_worker() { return {threadIdx.x, blockDim.x}; }

__global__ void __launch_bounds__(kThreads) ring_forward(ring_workers::Operands operands) {
  ring_workers::forward(operands, blockIdx.x, gridDim.x, common_memory, this_worker());
}

__global__ void __launch_bounds__(kThreads) ring_backward(ring_workers::Operands operands) {
  ring_workers::backward(operands, blockIdx.x, gridDim.x, common_memory, this_worker());
}

__global__ void ring_sums(ring_workers::Operands operands, std::int64_t groups, float* dcore_0,
                          float* dcore_1, float* dcore_2) {
  const std::int64_t first = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  float* const gradients[] = {dcore_0, dcore_1, dcore_2};
  for (int core = 0; core < 3; ++core)
    for (std::int64_t i = first; i < operands.ring.size(core); i += gridDim.x * blockDim.x)
      gradients[core][i] = ring_workers::summed(operands, core, i, groups);
}

template <class Kernel>
const char* launch(Kernel kernel, const ring_workers::Operands& operands, std::int64_t groups,
                   bool backward, cudaStream_t stream) {
  const auto bytes =
      static_cast<int>(ring_workers::memory_of(operands.ring, backward) * sizeof(float));
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      error != cudaSuccess)
    return cudaGetErrorString(error);
  kernel<<<static_cast<unsigned>(groups), kThreads, static_cast<std::size_t>(bytes), stream>>>(
      operands);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

RingDevice ring_device(int index) {
  int bytes = 0, processors = 0;
  if (cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index) !=
          cudaSuccess ||
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, index) != cudaSuccess)
    return {};
  return {static_cast<std::int64_t>(bytes) / static_cast<std::int64_t>(sizeof(float)), processors};
}

const char* launch_ring_forward(const ring_workers::Operands& operands, std::int64_t groups,
                                void* stream) {
  return launch(ring_forward, operands, groups, false, static_cast<cudaStream_t>(stream));
}

const char* launch_ring_backward(const ring_workers::Operands& operands, std::int64_t groups,
                                 float* const (&dcores)[3], void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (const char* error = launch(ring_backward, operands, groups, true, on)) return error;
  if (operands.sums == nullptr) return nullptr;
  constexpr int kBlocks = 8;
  ring_sums<<<kBlocks, kThreads, 0, on>>>(operands, groups, dcores[0], dcores[1], dcores[2]);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace ringlet::adapt
