// Speed of frozen layers of Stable Diffusion 1.5's U-Net, batch 2 at 64x64 latents, and of
// attention in it and in FLUX, batch 1: LibTorch's own operators beside those of
// ringlet/nn/kernels.h, with the weight prepared. Prints a Markdown table.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "ringlet/nn/kernels.h"
#include "ringlet/nn/layer.h"

namespace {

template <class Function>
double median_seconds(const Function& function) {
  using Clock = std::chrono::steady_clock;
  constexpr int kRepeats = 15;
  function();
  std::vector<double> seconds;
  for (int i = 0; i < kRepeats; ++i) {
    const auto begin = Clock::now();
    function();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::ranges::sort(seconds);
  return seconds[kRepeats / 2];
}

void report(const char* kind, const std::string& shape, double operations, double plain,
            double ours) {
  std::printf("| %s | %s | %.0f | %.0f |\n", kind, shape.c_str(), operations / plain / 1e9,
              operations / ours / 1e9);
}

void linear(std::int64_t tokens, std::int64_t in, std::int64_t out) {
  const at::Tensor x = at::randn({tokens, in});
  const ringlet::nn::LinearLayer layer(at::randn({out, in}), at::randn({out}));
  const double plain = median_seconds([&] { at::linear(x, layer.weight(), layer.bias()); });
  const double ours = median_seconds([&] { layer.forward(x); });
  report("linear",
         std::to_string(tokens) + " x " + std::to_string(in) + " -> " + std::to_string(out),
         2.0 * static_cast<double>(tokens * in * out), plain, ours);
}

void convolution(std::int64_t channels, std::int64_t side, std::int64_t out) {
  const at::Tensor plain_x = at::randn({2, channels, side, side});
  const at::Tensor x = plain_x.contiguous(at::MemoryFormat::ChannelsLast);
  ringlet::nn::Conv2dLayer layer(at::randn({out, channels, 3, 3}), at::randn({out}),
                                 {.padding = 1});
  layer.pack(ringlet::nn::WeightUse::inference);
  const double plain =
      median_seconds([&] { at::conv2d(plain_x, layer.weight(), layer.bias(), 1, 1); });
  const double ours = median_seconds([&] { layer.forward(x); });
  report("convolution 3x3",
         std::to_string(channels) + " -> " + std::to_string(out) + " at " + std::to_string(side) +
             " x " + std::to_string(side),
         2.0 * 2.0 * 9.0 * static_cast<double>(side * side * channels * out), plain, ours);
}

/// Forward alone, and both passes: the backward pass has five products for the forward pass's two.
void attention(std::int64_t queries, std::int64_t keys, std::int64_t heads, std::int64_t width) {
  const auto tokens = [&](std::int64_t count) { return at::randn({1, count, heads * width}); };
  const at::Tensor q = tokens(queries), k = tokens(keys), v = tokens(keys), dy = tokens(queries);
  const std::string shape = std::to_string(queries) + " x " + std::to_string(keys) + ", " +
                            std::to_string(heads) + " heads of " + std::to_string(width);
  const double operations = 4.0 * static_cast<double>(queries * keys * heads * width);
  const ringlet::nn::KernelSet plain, &ours = ringlet::nn::kernels_for(q);
  const auto seconds = [&](const ringlet::nn::KernelSet& kernels, bool learn) {
    const at::AutoGradMode recording(learn);
    std::vector<at::Tensor> inputs;
    for (const at::Tensor& x : {q, k, v}) inputs.push_back(x.detach().requires_grad_(learn));
    return median_seconds([&] {
      const at::Tensor y = kernels.attention(inputs[0], inputs[1], inputs[2], {.heads = heads});
      if (learn) torch::autograd::grad({y}, inputs, {dy});
    });
  };
  report("attention", shape, operations, seconds(plain, false), seconds(ours, false));
  report("with its gradients", shape, 3.5 * operations, seconds(plain, true), seconds(ours, true));
}

}  // namespace

int main() {
  const at::NoGradGuard no_grad;
  std::printf("| layer | shape | LibTorch, GFLOP/s | ringlet, GFLOP/s |\n|---|---|---|---|\n");
  linear(8192, 320, 320);
  linear(8192, 320, 2560);
  linear(2048, 640, 640);
  linear(512, 1280, 1280);
  linear(154, 768, 320);
  convolution(320, 64, 320);
  convolution(640, 32, 640);
  convolution(1280, 16, 1280);
  convolution(1280, 8, 1280);
  attention(4096, 4096, 8, 40);
  attention(4096, 77, 8, 40);
  attention(1024, 1024, 8, 80);
  attention(256, 256, 8, 160);
  attention(1536, 1536, 24, 128);
}
