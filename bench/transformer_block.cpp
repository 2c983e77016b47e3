// Training passes of one block of a diffusion transformer, timed and counted: ringlet's side of
// bench/compare_blocks.py.
//
//     ringlet_bench_block BLOCK FILE METHOD TOKENS [STEPS]
//
// BLOCK is flux-double, flux-single or sd3 (that of Stable Diffusion 3.5 medium, with dual
// attention), FILE its weights as peer_blocks.py makes them, METHOD as for ringlet train; the
// adapters go onto all projections of attention and feed-forward. TOKENS are those of the picture.
// Forward and backward pass STEPS times (0 = they are counted only), after one of few tokens that
// warms up. Prints one JSON object: seconds, those of the forward passes, what is kept
// (saved_tensors.h), and "norm", by which both sides know that they compute the same.

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "bench/saved_tensors.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/models/diffusion/flux_transformer.h"
#include "ringlet/models/diffusion/joint_block.h"
#include "ringlet/models/diffusion/rotary.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/weight_store.h"

namespace {

using namespace ringlet;

constexpr const char* kProjections =
    "re:(to_[qkv]|to_out\\.0|add_[qkv]_proj|to_add_out|net\\.0\\.proj|net\\.2|proj_mlp|proj_out)$";

struct Kind {
  models::HeadsConfig heads;
  std::int64_t text_tokens;
  std::vector<std::int64_t> axes;  ///< of the rotations; none in Stable Diffusion 3
  bool dual_attention, single;
};

const Kind& kind_named(const std::string& name) {
  const models::HeadsConfig flux{.width = 3072, .heads = 24, .head_width = 128, .rms_norm = true},
      sd3{.width = 1536, .heads = 24, .head_width = 64, .rms_norm = true};
  static const std::map<std::string, Kind> kinds = {
      {"flux-double", {flux, 512, {16, 56, 56}, false, false}},
      {"flux-single", {flux, 512, {16, 56, 56}, false, true}},
      {"sd3", {sd3, 333, {}, true, false}},
  };
  return kinds.at(name);
}

/// The block with adapters. Inputs are those of torch.manual_seed(1), as on the other side.
class BlockTraining {
 public:
  BlockTraining(const Kind& kind, const std::filesystem::path& file, const std::string& method)
      : kind_(kind), source_(nn::FileStore::open(file), {}) {
    const nn::WeightSource at = source_.at("block");
    if (kind.single)
      single_ = std::make_unique<models::FluxSingleTransformerBlock>(at, kind.heads);
    else
      joint_ = std::make_unique<models::JointTransformerBlock>(
          at, models::JointBlockConfig{.heads = kind.heads, .dual_attention = kind.dual_attention});
    index_ = source_.finish();
    adapters_ = std::make_unique<adapt::AdapterSet>(adapt::AdapterSet::create(
        adapt::parse_method(method),
        adapt::select_targets({{"transformer", &index_}}, {.include = {kProjections}}),
        adapt::FactorTable(), Random(1)));
    adapters_->attach();
  }

  void set_tokens(std::int64_t tokens) {
    at::manual_seed(1);
    const std::int64_t width = kind_.heads.width;
    picture_ = at::randn({1, tokens, width}).set_requires_grad(true);
    text_ = at::randn({1, kind_.text_tokens, width}).set_requires_grad(true);
    time_ = at::randn({1, width});
    picture_cotangent_ = at::randn({1, tokens, width});
    text_cotangent_ = at::randn({1, kind_.text_tokens, width});
    if (kind_.axes.empty()) return;
    const at::Tensor places = at::arange(kind_.text_tokens + tokens).to(at::kFloat);
    rotations_ = models::rotations(at::stack({places, places, places}, 1), kind_.axes);
  }

  /// The block's inputs are results of others, as they are in a network.
  at::Tensor loss() const {
    return adapters_->pass([this] {
      const at::Tensor picture = picture_ * 1.0, text = text_ * 1.0;
      const models::TokenStreams out = forward(picture, text);
      return (out.picture * picture_cotangent_).sum() + (out.text * text_cotangent_).sum();
    });
  }

  /// Of the gradients of the inputs.
  double norm() const { return picture_.grad().norm().item<double>(); }
  void forget_gradients() const {
    picture_.mutable_grad().reset();
    text_.mutable_grad().reset();
  }
  std::int64_t parameters() const { return adapters_->parameter_count(); }

 private:
  models::TokenStreams forward(const at::Tensor& picture, const at::Tensor& text) const {
    if (joint_) return joint_->forward({picture, text}, time_, rotations_);
    const at::Tensor both = single_->forward(at::cat({text, picture}, 1), time_, rotations_);
    const auto parts = both.split_with_sizes({text.size(1), picture.size(1)}, 1);
    return {parts[1], parts[0]};
  }

  const Kind& kind_;
  const nn::WeightSource source_;
  std::unique_ptr<models::FluxSingleTransformerBlock> single_;
  std::unique_ptr<models::JointTransformerBlock> joint_;
  nn::ModuleIndex index_;
  std::unique_ptr<adapt::AdapterSet> adapters_;
  at::Tensor picture_, text_, time_, picture_cotangent_, text_cotangent_, rotations_;
};

/// Processor time, which other programs change less than the time on the wall.
double now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Json measure(BlockTraining& training, std::int64_t tokens, int steps) {
  constexpr std::int64_t kFew = 64;
  std::vector<double> seconds, forward;
  double norm = 0.0;
  training.set_tokens(kFew);
  training.loss().backward();
  training.set_tokens(tokens);
  for (int i = 0; i < steps; ++i) {
    training.forget_gradients();
    const double begin = now();
    const at::Tensor loss = training.loss();
    forward.push_back(now() - begin);
    loss.backward();
    seconds.push_back(now() - begin);
    norm = training.norm();
  }
  Json result = bench::count_saved([&training] { return training.loss(); });
  result.update({{"seconds", seconds},
                 {"forward_seconds", forward},
                 {"norm", norm},
                 {"parameters", training.parameters()},
                 {"peak_mib", nn::peak_memory(at::kCPU) >> 20}});
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: %s BLOCK FILE METHOD TOKENS [STEPS]\n", argv[0]);
    return 2;
  }
  try {
    BlockTraining training(kind_named(argv[1]), argv[2], argv[3]);
    const Json result = measure(training, std::atoi(argv[4]), argc > 5 ? std::atoi(argv[5]) : 1);
    std::printf("%s\n", result.dump().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
