#include "ringlet/nn/stored_weight.h"

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include "ringlet/nn/kernels.h"
#include "ringlet/nn/onednn.h"
#include "ringlet/nn/weight_store.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::nn {
namespace {

using golden::uniform;

constexpr WeightStorage kCoded[] = {WeightStorage::fp8, WeightStorage::int8, WeightStorage::nf4};

/// Rows of very different sizes, one of them zero.
at::Tensor spread(const std::string& name, const Shape& shape) {
  at::Tensor w = uniform(name, shape);
  for (std::int64_t row = 0; row < shape[0]; ++row)
    w.select(0, row).mul_(row == 1 ? 0.0 : std::pow(10.0, static_cast<double>(row % 5) - 2.0));
  return w;
}

/// The most that rounding to a storage may change each number of w.
at::Tensor allowed(const at::Tensor& w, WeightStorage storage) {
  const at::Tensor rows = w.flatten(1).to(at::kDouble);
  const at::Tensor largest = rows.abs().amax({1}, true);
  constexpr double kRounding = 1e-6;
  if (storage == WeightStorage::int8)  // half a step of 1 / 127
    return (largest / 254.0).expand_as(rows) + kRounding * largest;
  if (storage ==
      WeightStorage::fp8)  // three bits of mantissa, or half a step below the normal ones
    return at::maximum(rows.abs() / 16.0, largest / 448.0 / 1024.0) + kRounding * largest;
  // Half of the widest gap, between -1 and the next level.
  const std::int64_t rest = (kNf4Block - w.numel() % kNf4Block) % kNf4Block;
  const at::Tensor blocks = at::constant_pad_nd(rows.reshape(-1), {0, rest}).view({-1, kNf4Block});
  return (blocks.abs().amax({1}, true) * (1.0 + kNf4Levels[1]) / 2.0 + kRounding)
      .expand_as(blocks)
      .reshape(-1)
      .narrow(0, 0, w.numel())
      .view_as(rows);
}

TEST(StoredWeight, CodesAreAsNearToTheNumbersAsTheirFormatAllows) {
  for (const Shape& shape : {Shape{7, 128}, Shape{6, 9}, Shape{5, 3, 3, 3}, Shape{1, 1}})
    for (const WeightStorage storage : kCoded) {
      SCOPED_TRACE(weight_storage_name(storage) + " " + std::to_string(shape[1]));
      const at::Tensor w = spread("w", shape);
      const StoredWeight stored = StoredWeight::narrowed(w, storage);
      EXPECT_TRUE(stored.coded());
      EXPECT_EQ(stored.sizes(), w.sizes());
      EXPECT_EQ(stored.storage(), storage);
      EXPECT_EQ(stored.device(), w.device());
      const at::Tensor wide = stored.widened(at::kFloat);
      EXPECT_TRUE(
          at::all((wide - w).flatten(1).abs().to(at::kDouble) <= allowed(w, storage)).item<bool>());
      EXPECT_EQ(wide.select(0, shape[0] > 1 ? 1 : 0).abs().max().item<float>() == 0.0F,
                shape[0] > 1);
      // Once more it is the same: scales and codes stay.
      EXPECT_TRUE(
          at::allclose(StoredWeight::narrowed(wide, storage).widened(at::kFloat), wide, 1e-6, 0.0));
      for (const at::ScalarType type : {at::kDouble, at::kBFloat16, at::kHalf})
        EXPECT_TRUE(at::equal(stored.widened(type), wide.to(type)));
    }
}

TEST(StoredWeight, PartsAreThoseOfTheWhole) {
  for (const Shape& shape : {Shape{9, 64}, Shape{10, 7}, Shape{5, 6, 3, 3}})
    for (const WeightStorage storage : kCoded) {
      const StoredWeight stored = StoredWeight::narrowed(spread("p", shape), storage);
      const at::Tensor whole = stored.widened(at::kFloat).flatten(1);
      for (const StoredWeight::Part& part :
           {StoredWeight::Part{0, shape[0], 0, whole.size(1)}, StoredWeight::Part{2, 3, 1, 5},
            StoredWeight::Part{1, 1, 0, 1}, StoredWeight::Part{3, 2, 2, whole.size(1) - 2}})
        EXPECT_TRUE(at::equal(
            stored.widened(at::kFloat, part),
            whole.narrow(0, part.first_row, part.rows).narrow(1, part.first_column, part.columns)));
    }
}

TEST(StoredWeight, TakesTheBytesThatItsStorageSays) {
  const at::Tensor w = uniform("bytes", {64, 1024});
  const auto bytes = [&](WeightStorage storage) {
    return static_cast<double>(StoredWeight::narrowed(w, storage).nbytes());
  };
  for (const auto& [name, storage] : kWeightStorageNames)
    if (storage != WeightStorage::as_stored)
      EXPECT_EQ(bytes(storage), 65536.0 * bytes_per_number(storage)) << name;
  EXPECT_TRUE(StoredWeight::narrowed(w, WeightStorage::as_stored).plain().is_same(w));
  EXPECT_EQ(StoredWeight::narrowed(w, WeightStorage::bf16).plain().scalar_type(), at::kBFloat16);
}

TEST(StoredWeight, RefusesNumbersWithoutACode) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()})
    for (const WeightStorage storage : kCoded) {
      at::Tensor w = uniform("bad", {3, 70});
      w[2][69] = bad;
      expect_error(ErrorCode::non_finite, "not finite",
                   [&] { StoredWeight::narrowed(w, storage); });
      const WeightSource source(
          std::make_shared<MapStore>(std::map<std::string, at::Tensor>{{"a.b.weight", w}}),
          {.device = test_device(), .storage = storage});
      expect_error(ErrorCode::non_finite, "a.b.weight",
                   [&] { Linear(source.at("a.b"), 70, 3, /*bias=*/false); });
    }
}

/// Bytes of tensors on the CPU that came and have not gone since the start of this counter.
class BytesAlive final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* /*where*/, std::int64_t bytes, std::size_t /*allocated*/,
                         std::size_t /*reserved*/, c10::Device /*device*/) override {
    now += bytes;
  }
  bool memoryProfilingEnabled() const override { return true; }
  std::int64_t now = 0;
};

struct PassOfLayer {
  at::Tensor y, dx;
  std::int64_t kept = 0;  ///< bytes between the passes, but for y
};

PassOfLayer pass(const Layer& layer, const at::Tensor& x) {
  const at::Tensor in = x.detach().clone().requires_grad_(true);
  const auto counter = std::make_shared<BytesAlive>();
  PassOfLayer result;
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counter);
    result.y = layer.forward(in);
    if (x.is_cpu()) result.kept = counter->now - static_cast<std::int64_t>(result.y.nbytes());
  }
  result.y.backward(uniform("dy", result.y.sizes().vec()).to(result.y.scalar_type()));
  result.dx = in.grad();
  return result;
}

/// Small ones, those that are widened in pieces, and kernels that are computed as matrices.
std::vector<std::pair<std::shared_ptr<Layer>, at::Tensor>> layers_of(const StoredWeight& weight,
                                                                     const at::Tensor& bias,
                                                                     const at::Tensor& x) {
  std::vector<std::pair<std::shared_ptr<Layer>, at::Tensor>> all;
  if (weight.dim() == 2) return {{std::make_shared<LinearLayer>(weight, bias), x}};
  for (const std::int64_t stride : {1, 2})
    for (const bool packs : {false, true}) {
      const Conv2dOptions options = {.stride = stride, .padding = weight.size(2) / 2};
      const auto layer = std::make_shared<Conv2dLayer>(weight, bias, options);
      if (packs) layer->pack(stride == 1 ? WeightUse::narrow : WeightUse::inference);
      all.emplace_back(layer, x);
      all.emplace_back(layer, x.contiguous(at::MemoryFormat::ChannelsLast));
    }
  return all;
}

TEST(StoredWeight, LayersComputeWithTheWidenedWeightAndKeepOnlyTheCodes) {
  struct Case {
    Shape weight, x;
  };
  for (const auto& [shape, input] :
       {Case{{6, 10}, {2, 5, 10}}, Case{{1200, 2048}, {3, 2048}}, Case{{12, 9, 3, 3}, {2, 9, 6, 7}},
        Case{{9, 20, 1, 1}, {1, 20, 4, 5}}, Case{{1024, 768, 3, 3}, {1, 768, 3, 4}}})
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const WeightStorage storage :
           {WeightStorage::bf16, WeightStorage::fp8, WeightStorage::int8, WeightStorage::nf4}) {
        if (type == at::kBFloat16 && shape[0] > 1000) continue;
        SCOPED_TRACE(weight_storage_name(storage) + " " + std::to_string(shape[0]));
        const at::Tensor w = 0.1 * uniform("w", shape), bias = uniform("b", {shape[0]}).to(type);
        const at::Tensor x = uniform("x", input).to(type);
        const StoredWeight stored = StoredWeight::narrowed(w, storage);
        const auto narrow = layers_of(stored, bias, x);
        const auto wide = layers_of(stored.widened(type), bias, x);
        for (std::size_t i = 0; i < narrow.size(); ++i) {
          const PassOfLayer a = pass(*narrow[i].first, narrow[i].second);
          const PassOfLayer b = pass(*wide[i].first, wide[i].second);
          const double relative = type == at::kFloat ? 1e-5 : 2e-2;
          const auto near = [&](const at::Tensor& got, const at::Tensor& want) {
            return (got - want).abs().max().item<double>() <=
                   relative * want.abs().max().item<double>();
          };
          EXPECT_TRUE(near(a.y, b.y));
          EXPECT_TRUE(near(a.dx, b.dx));
          EXPECT_EQ(a.kept, 0);
          const at::NoGradGuard no_grad;
          EXPECT_TRUE(near(narrow[i].first->forward(narrow[i].second), b.y));
          EXPECT_TRUE(near(narrow[i].first->without_bias(narrow[i].second) +
                               (shape.size() == 2 ? bias : bias.view({-1, 1, 1})),
                           b.y));
        }
      }
}

TEST(StoredWeight, ANetworkKeepsItsLayersInTheStorageThatIsAskedFor) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, shape] : std::map<std::string, Shape>{{"l.weight", {8, 12}},
                                                                {"l.bias", {8}},
                                                                {"t.weight", {12, 8}},
                                                                {"t.bias", {8}},
                                                                {"c.weight", {6, 8, 3, 3}},
                                                                {"first.weight", {6, 3, 3, 3}},
                                                                {"time.l.weight", {8, 12}},
                                                                {"e.weight", {5, 8}}})
    tensors[name] = uniform(name, shape).to(at::kHalf);
  const auto loaded = [&](WeightOptions options) {
    options.device = test_device();
    options.wide_layers = {"time."};
    const WeightSource source(std::make_shared<MapStore>(tensors), options);
    Linear(source.at("l"), 12, 8), Linear(source.at("time.l"), 12, 8, false);
    TransposedLinear(source.at("t"), 12, 8);
    Conv2d(source.at("c"), 8, 6, 3, {}, false), Conv2d(source.at("first"), 3, 6, 3, {}, false);
    EmbeddingTable(source.at("e"), 5, 8);
    return source.finish();
  };
  for (const auto& [name, storage] : kWeightStorageNames) {
    SCOPED_TRACE(name);
    const ModuleIndex index = loaded({.storage = storage});
    for (const auto& [layer_name, layer] : index.layers) {
      const bool narrowed = layer_name == "l" || layer_name == "t" || layer_name == "c";
      const StoredWeight& weight = layer->stored_weight();
      EXPECT_EQ(weight.coded(), narrowed && is_coded(storage)) << layer_name;
      EXPECT_EQ(index.tensors.contains(layer_name + ".weight"), !weight.coded());
      const at::Tensor& own = tensors.at(layer_name + ".weight");
      const at::Tensor as_stored = layer->stored(layer->weight());
      EXPECT_EQ(as_stored.sizes(), own.sizes());
      EXPECT_LT((as_stored.to(at::kFloat) - own.to(at::kFloat)).abs().max().item<double>(), 0.16);
      if (!weight.coded())
        EXPECT_EQ(weight.plain().scalar_type(),
                  narrowed && storage == WeightStorage::bf16 ? at::kBFloat16 : at::kFloat);
    }
    std::uint64_t bytes = 0;
    for (const auto& [tensor, value] : index.tensors) bytes += value.nbytes();
    for (const auto& [layer_name, layer] : index.layers)
      if (layer->stored_weight().coded()) bytes += layer->stored_weight().nbytes();
    EXPECT_EQ(index.bytes(), bytes);
    // What learns is never narrowed.
    for (const auto& [tensor, value] : loaded({.trainable = true, .storage = storage}).tensors)
      EXPECT_EQ(value.scalar_type(), at::kFloat);
  }
}

TEST(StoredWeight, AHeadThatACheckpointLacksIsNotNarrowed) {
  const auto file = std::make_shared<MapStore>(
      std::map<std::string, at::Tensor>{{"body.weight", uniform("body", {4, 64})}});
  const WeightSource source(
      std::make_shared<CompletedStore>(file, std::vector<std::string>{"head."}),
      {.device = test_device(), .storage = WeightStorage::nf4});
  Linear(source.at("body"), 64, 4, false), Linear(source.at("head"), 64, 4, false);
  const ModuleIndex index = source.finish();
  EXPECT_TRUE(index.layers.at("body")->stored_weight().coded());
  EXPECT_TRUE(at::equal(index.layers.at("head")->weight().cpu(),
                        made_linear_layer("head", 64, 4)->weight()));
}

}  // namespace
}  // namespace ringlet::nn
