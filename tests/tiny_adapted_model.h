// A model of a few small layers, and adapters for it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/registry.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "tests/golden/formula.h"

namespace ringlet::adapt {

/// Linear layers and a convolution of a U-Net, one layer of a text encoder.
class TinyModel {
 public:
  explicit TinyModel(std::int64_t context = 10, at::ScalarType type = at::kFloat) {
    linear(unet_, "mid.attn1.to_q", 12, 12, type);
    linear(unet_, "mid.attn1.to_out.0", 12, 12, type);
    linear(unet_, "mid.attn2.to_k", 12, context, type);
    const std::string conv = "mid.conv";
    unet_.layers[conv] = std::make_shared<nn::Conv2dLayer>(
        golden::weight(conv, {6, 8, 3, 3}).to(type), golden::uniform("bias", {6}).to(type),
        nn::Conv2dOptions{.stride = 2, .padding = 1});
    linear(text_encoder_, "layers.0.fc1", 20, 7, type);  // 7 is prime: padded
  }

  Components components() const { return {{"unet", &unet_}, {"text_encoder", &text_encoder_}}; }
  std::vector<Target> targets() const { return select_targets(components(), {.include = {"*"}}); }
  nn::Layer& layer(const std::string& name) const { return *unet_.layers.at(name); }

  AdapterSet adapters(const std::string& method, std::uint64_t seed = 3) const {
    return AdapterSet::create(parse_method(method), targets(), FactorTable(), Random(seed));
  }

  /// Every layer's output for a fixed input of fp32.
  std::vector<at::Tensor> outputs() const {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> all;
    for (const Target& target : targets()) {
      const at::Tensor& w = target.layer->weight();
      const nn::Shape shape =
          w.dim() == 2 ? nn::Shape{2, 3, w.size(1)} : nn::Shape{2, w.size(1), 5, 4};
      all.push_back(target.layer->forward(golden::uniform("x", shape)));
    }
    return all;
  }

  std::map<std::string, at::Tensor> weights() const {
    std::map<std::string, at::Tensor> all;
    for (const Target& target : targets())
      all[target.full_name() + ".weight"] = target.layer->weight().clone();
    return all;
  }

  nn::ModuleIndex unet_, text_encoder_;

 private:
  static void linear(nn::ModuleIndex& index, const std::string& name, std::int64_t out,
                     std::int64_t in, at::ScalarType type) {
    index.layers[name] = std::make_shared<nn::LinearLayer>(golden::weight(name, {out, in}).to(type),
                                                           golden::uniform("bias", {out}).to(type));
  }
};

/// Moves every parameter away from its start.
inline void disturb(const AdapterSet& set, const std::string& seed = "disturb") {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : set.parameters())
    tensor.add_(golden::uniform(seed + name, tensor.sizes().vec()), 0.3);
}

inline bool equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return std::ranges::equal(a, b, [](const at::Tensor& x, const at::Tensor& y) {
    return x.scalar_type() == y.scalar_type() && at::equal(x, y);
  });
}

inline bool equal(const std::map<std::string, at::Tensor>& a,
                  const std::map<std::string, at::Tensor>& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.scalar_type() == y.second.scalar_type() &&
           at::equal(x.second, y.second);
  });
}

/// No transform or one, no residual or one, but not neither: from the registry.
inline std::vector<std::string> all_methods() {
  std::vector<std::string> transforms = {""}, residuals = {""}, all;
  for (const PartEntry& entry : part_registry()) {
    // The model has a layer of seven inputs.
    const std::string name =
        entry.name == "boft" ? "boft(block=2,factors=1,side=output)" : entry.name;
    if (entry.kind == PartKind::transform) transforms.push_back(name);
    if (entry.kind == PartKind::residual) residuals.push_back(name);
  }
  for (const std::string& transform : transforms)
    for (const std::string& residual : residuals) {
      const std::string plus = transform.empty() || residual.empty() ? "" : "+";
      if (transform != residual) all.push_back(transform + plus + residual);
    }
  for (const char* more : {"lora+magnitude+bias", "lora(rank=2,init=pissa)", "bias"})
    all.emplace_back(more);
  return all;
}

inline std::string method_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& letter : name)
    if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
  return name;
}

}  // namespace ringlet::adapt
