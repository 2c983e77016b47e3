// The laws that every adapter obeys, over every part of the registry, every pair of parts, kinds
// and sizes of layers, and number types. A new method is tested here without an edit.
#include <cmath>
#include <memory>
#include <optional>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/registry.h"
#include "ringlet/core/error.h"
#include "tests/golden/formula.h"

namespace ringlet::adapt {
namespace {

struct Size {
  std::int64_t out, in, kernel = 0, stride = 1;  ///< kernel 0 = linear
};

struct Case {
  std::string method;
  Size size;
  at::ScalarType type;
};

/// Relative to the largest value. Raising one needs a written reason.
double tolerance(at::ScalarType type) {
  if (type == at::kDouble) return 1e-10;
  return type == at::kFloat ? 1e-5 : 3e-2;  // bf16: eight bits of mantissa, several roundings
}

void expect_close(const at::Tensor& actual, const at::Tensor& expected, double relative) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const double scale = expected.to(at::kDouble).abs().max().item<double>();
  const double worst =
      (actual.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
  EXPECT_LE(worst, relative * std::max(scale, 1e-3));
}

constexpr Contraction kContractions[] = {Contraction::through_input, Contraction::transform_folded,
                                         Contraction::everything_folded};

std::vector<std::string> names_of(PartKind kind) {
  std::vector<std::string> names;
  for (const PartEntry& entry : part_registry())
    if (entry.kind == kind) names.push_back(entry.name);
  return names;
}

/// Every part alone, in its forms.
std::vector<std::string> methods() {
  std::vector<std::string> all;
  for (const PartKind kind : {PartKind::transform, PartKind::residual, PartKind::bias})
    for (const std::string& name : names_of(kind)) all.push_back(name);
  // Ranks that are no power of two, rank one, the paper's start, what other programs do.
  for (const char* more : {"trm(rank=1)",
                           "trm(rank=3)+tr(rank=2)",
                           "trm(rank=2,init=paper)",
                           "trm(rank=2)+lora(rank=1)",
                           "lora(rank=3,alpha=1.5)",
                           "lora(rank=2,init=gaussian,scaling=sqrt)",
                           "lora(rank=2,init=orthogonal)",
                           "lora(rank=2,init=pissa)",
                           "lora(rank=2,init=olora)",
                           "lora(rank=3,tucker=yes)",
                           "glora(rank=2)",
                           "loha(rank=2,tucker=yes)",
                           "lokr(rank=2,both=yes)",
                           "lokr(rank=2,tucker=yes,factor=2)",
                           "lokr(w2=full)",
                           "fourierft(n=7,scale=3)",
                           "foura(gate=no)",
                           "diagonal(side=output)",
                           "diagonal(form=offset)",
                           "diagonal(side=output,bias=yes)+lora",
                           "oft(block=4,cayley=neumann,transpose=yes)",
                           "oft(block=4,form=matrix,side=output,transpose=yes)",
                           "oft(block=4,share=yes)",
                           "oft(blocks=2,constraint=0.2)",
                           "oft(block=4,side=output,constraint=0.01,constrain=all)",
                           "oft(block=8,over=patches)",
                           "boft(block=2,factors=3)",
                           "boft(block=4,factors=2,side=output,pairs=interleaved,skew=full)",
                           "boft(block=4,factors=1,over=patches,constraint=0.01)",
                           "hra(rank=2,over=patches)",
                           "magnitude(norm=exact)",
                           "magnitude(axis=input,norm=exact)",
                           "lora+magnitude(axis=input,norm=exact)",
                           "trm+lora+magnitude(norm=exact)+bias(scale=0.5)",
                           "oft(block=4)+diagonal(side=output)+boft(block=2,factors=1)+tt(rank=3)"})
    all.emplace_back(more);
  return all;
}

/// Every transform with every residual, every residual with a magnitude.
std::vector<std::string> combinations() {
  std::vector<std::string> all;
  for (const std::string& residual : names_of(PartKind::residual)) {
    all.push_back(residual + "+magnitude(norm=exact)");
    for (const std::string& transform : names_of(PartKind::transform))
      all.push_back(transform + "+" + residual);
  }
  return all;
}

at::Tensor make_weight(const Size& size) {
  nn::Shape weight = {size.out, size.in};
  if (size.kernel > 0) weight.insert(weight.end(), {size.kernel, size.kernel});
  return golden::uniform("w0", weight);
}

std::unique_ptr<nn::Layer> make_layer(const Size& size, at::ScalarType type,
                                      const nn::StoredWeight& w0) {
  const at::Tensor bias = golden::uniform("bias", {size.out}).to(type);
  if (size.kernel == 0) return std::make_unique<nn::LinearLayer>(w0, bias);
  return std::make_unique<nn::Conv2dLayer>(
      w0, bias, nn::Conv2dOptions{.stride = size.stride, .padding = size.kernel / 2});
}

std::unique_ptr<nn::Layer> make_layer(const Size& size, at::ScalarType type) {
  return make_layer(size, type, make_weight(size).to(type));
}

std::shared_ptr<TransformResidual> make_adapter(const std::string& method, const nn::Layer& layer) {
  FactorTable factors;
  return build_adapter(parse_method(method), layer, factors, Random(7), "a.layer");
}

/// Whether the method's mathematics exists for the layer.
bool exists(const std::string& method, const Size& size) {
  try {
    make_adapter(method, *make_layer(size, at::kFloat));
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported) << method << ": " << error.what();
    return false;
  }
}

std::vector<Case> cases() {
  const std::vector<Size> sizes = {
      {1, 1},       {3, 5},        {12, 18},   {13, 7},        {48, 40},
      {40, 48},     {97, 1},       {64, 64},   {8, 12, 1},     {12, 8, 3},
      {7, 5, 3, 2}, {16, 9, 1, 2}, {5, 11, 3}, {24, 24, 3, 1}, {320, 8},
  };
  const std::vector<Size> few = {{13, 7}, {48, 40}, {12, 8, 3}, {24, 16, 3, 2}};
  std::vector<Case> all;
  const auto add = [&](const std::vector<std::string>& some, const std::vector<Size>& on) {
    for (const std::string& method : some)
      for (const Size& size : on)
        if (exists(method, size))
          for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16})
            all.push_back({method, size, type});
  };
  add(methods(), sizes);
  add(combinations(), few);
  return all;
}

class AdapterLaw : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Size& size = GetParam().size;
    const at::ScalarType type = GetParam().type;
    layer_ = make_layer(size, type);
    const nn::Shape input =
        size.kernel > 0 ? nn::Shape{2, size.in, 5, 6} : nn::Shape{2, 3, size.in};
    x_ = golden::uniform("x", input).to(type);
    method_ = parse_method(GetParam().method);
    adapter_ = make_adapter(GetParam().method, *layer_);
    for (const at::Tensor& tensor : adapter_->tensors()) tensor.set_data(tensor.to(test_device()));
    for (const Parameters& some : {adapter_->parameters(), adapter_->constants()})
      for (const auto& [name, tensor] : some)
        if (type == at::kDouble) tensor.set_data(tensor.to(at::kDouble));
  }

  /// Moves every parameter away from its start.
  void disturb(double by = 0.3) {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : adapter_->parameters())
      tensor.add_(golden::uniform("disturb " + name, tensor.sizes().vec()), by);
  }

  at::Tensor merged() const { return adapter_->weight(layer_->weight()); }

  /// The layer with the adapted weight and bias.
  at::Tensor merged_forward() const {
    return layer_->operate(merged(), adapter_->bias(layer_->bias()), x_);
  }

  FactorTable factors_;
  Method method_;
  std::unique_ptr<nn::Layer> layer_;
  std::shared_ptr<TransformResidual> adapter_;
  at::Tensor x_;
};

TEST_P(AdapterLaw, IsNeutralAtItsStart) {
  const at::NoGradGuard no_grad;
  // The identity of the asymmetric start is exact to the parameters' own rounding.
  const double relative = std::max(tolerance(GetParam().type), 1e-6);
  expect_close(merged(), layer_->weight(), relative);
  for (const Contraction way : kContractions) {
    adapter_->contraction = way;
    expect_close(adapter_->forward(*layer_, x_), layer_->base(x_), relative);
  }
}

TEST_P(AdapterLaw, ForwardIsTheLayerWithTheAdaptedWeight) {
  disturb();
  for (const bool gradients : {false, true}) {
    const at::AutoGradMode mode(gradients);
    const at::Tensor expected = merged_forward();
    for (const Contraction way : kContractions) {
      adapter_->contraction = way;
      expect_close(adapter_->forward(*layer_, x_), expected, tolerance(GetParam().type));
    }
  }
}

TEST_P(AdapterLaw, StrengthInterpolates) {
  const at::NoGradGuard no_grad;
  disturb();
  const at::Tensor full = merged().to(at::kDouble);
  const at::Tensor base = layer_->weight().to(at::kDouble);
  for (const double s : {0.0, 0.25, 1.0, 1.5, -0.5}) {
    adapter_->strength = s;
    expect_close(merged(), base + s * (full - base), tolerance(GetParam().type));
    expect_close(adapter_->forward(*layer_, x_), merged_forward(), tolerance(GetParam().type));
  }
  adapter_->strength = 0.0;
  EXPECT_TRUE(at::equal(adapter_->forward(*layer_, x_), layer_->base(x_)));
  EXPECT_TRUE(at::equal(merged(), layer_->weight()));
}

TEST_P(AdapterLaw, ParameterCountIsTheFormula) {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : adapter_->parameters()) count += tensor.numel();
  EXPECT_EQ(count, parameter_count(method_, LayerShape::of(layer_->weight()), factors_));
}

TEST_P(AdapterLaw, GradientsAreTheDerivatives) {
  if (GetParam().type != at::kDouble) return;  // finite differences need the digits
  disturb(0.2);
  const at::Tensor probe = golden::uniform("probe", layer_->base(x_).sizes().vec()).to(at::kDouble);
  const auto loss = [&] { return (adapter_->forward(*layer_, x_).tanh() * probe).sum(); };
  for (const Contraction way : kContractions) {
    adapter_->contraction = way;
    const at::Tensor x = x_.clone().set_requires_grad(true);
    (adapter_->forward(*layer_, x).tanh() * probe).sum().backward();
    for (const auto& [name, tensor] : adapter_->parameters()) {
      const at::NoGradGuard no_grad;
      const at::Tensor direction =
          golden::uniform("direction " + name, tensor.sizes().vec()).to(at::kDouble);
      const double analytic = (tensor.grad() * direction).sum().item<double>();
      constexpr double kStep = 1e-5;
      tensor.add_(direction, kStep);
      const double above = loss().item<double>();
      tensor.add_(direction, -2 * kStep);
      const double below = loss().item<double>();
      tensor.add_(direction, kStep);
      tensor.mutable_grad() = at::Tensor();
      const double numeric = (above - below) / (2 * kStep);
      EXPECT_NEAR(analytic, numeric, 1e-6 * std::max(1.0, std::abs(numeric))) << name;
    }
    EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
  }
}

TEST_P(AdapterLaw, SpecBuildsTheSameAdapter) {
  EXPECT_EQ(parse_method(adapter_->spec()), adapter_->method());
  const auto again = make_adapter(adapter_->spec(), *layer_);
  const Parameters expected = adapter_->parameters(), actual = again->parameters();
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i].first, expected[i].first);
    EXPECT_TRUE(
        at::equal(actual[i].second.cpu().to(at::kFloat), expected[i].second.cpu().to(at::kFloat)));
  }
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  std::string name;
  for (const char letter : c.method)
    if (std::isalnum(static_cast<unsigned char>(letter))) name += letter;
  name += "_" + std::to_string(c.size.out) + "x" + std::to_string(c.size.in);
  if (c.size.kernel > 0)
    name += "_k" + std::to_string(c.size.kernel) + "s" + std::to_string(c.size.stride);
  return name + "_" + at::toString(c.type);
}

/// A layer with an adapter, and what a pass through both gives.
struct AdaptedLayer {
  AdaptedLayer(const std::string& method, const Size& size, const nn::StoredWeight& weight)
      : layer(make_layer(size, at::kFloat, weight)), adapter(make_adapter(method, *layer)) {
    for (const at::Tensor& tensor : adapter->tensors()) tensor.set_data(tensor.to(test_device()));
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : adapter->parameters())
      tensor.add_(golden::uniform("disturb " + name, tensor.sizes().vec()), 0.3);
  }

  /// The output, then the gradients of the input and the parameters.
  std::vector<at::Tensor> pass(const at::Tensor& input, std::optional<Contraction> way) {
    adapter->contraction = way;
    const at::Tensor x = input.clone().set_requires_grad(true);
    const at::Tensor y = adapter->forward(*layer, x);
    (y * golden::uniform("probe", y.sizes().vec())).sum().backward();
    std::vector<at::Tensor> all = {y.detach(), x.grad()};
    for (const auto& [name, tensor] : adapter->parameters()) {
      all.push_back(tensor.grad().defined() ? tensor.grad() : at::zeros_like(tensor));
      tensor.mutable_grad() = at::Tensor();
    }
    return all;
  }

  std::unique_ptr<nn::Layer> layer;
  std::shared_ptr<TransformResidual> adapter;
};

/// Over a base in narrow storage a method is what it is over that base widened to fp32.
void expect_same_over_narrow(const std::string& method, const Size& size, nn::WeightStorage storage,
                             const std::vector<std::optional<Contraction>>& ways) {
  SCOPED_TRACE(method + " over " + nn::weight_storage_name(storage));
  const auto stored = nn::StoredWeight::narrowed(make_weight(size), storage);
  AdaptedLayer narrow(method, size, stored), wide(method, size, stored.widened(at::kFloat));
  const nn::Shape input = size.kernel > 0 ? nn::Shape{2, size.in, 5, 6} : nn::Shape{2, 3, size.in};
  const at::Tensor x = golden::uniform("x", input);
  for (const auto& way : ways) {
    const auto actual = narrow.pass(x, way), expected = wide.pass(x, way);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < actual.size(); ++i) expect_close(actual[i], expected[i], 1e-5);
    const at::NoGradGuard no_grad;
    const at::Tensor w = narrow.adapter->weight(stored.widened(at::kFloat));
    const at::Tensor merged =
        narrow.layer->operate(w, narrow.adapter->bias(narrow.layer->bias()), x);
    expect_close(narrow.adapter->forward(*narrow.layer, x), merged, tolerance(at::kFloat));
    narrow.adapter->strength = 0.5;
    wide.adapter->strength = 0.5;
    expect_close(narrow.adapter->forward(*narrow.layer, x), wide.adapter->forward(*wide.layer, x),
                 1e-5);
    narrow.adapter->strength = wide.adapter->strength = 1.0;
  }
}

TEST(AdapterOverNarrowBase, EveryMethodIsWhatItIsOverTheWidenedBase) {
  const std::vector<std::optional<Contraction>> all(std::begin(kContractions),
                                                    std::end(kContractions));
  for (const Size& size : {Size{48, 40}, Size{24, 16, 3, 2}}) {
    for (const std::string& method : methods())
      if (exists(method, size))
        for (const nn::WeightStorage storage :
             {nn::WeightStorage::bf16, nn::WeightStorage::fp8, nn::WeightStorage::int8})
          expect_same_over_narrow(method, size, storage, {std::nullopt});
    for (const auto& some : {methods(), combinations()})
      for (const std::string& method : some)
        if (exists(method, size))
          expect_same_over_narrow(method, size, nn::WeightStorage::nf4, all);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, AdapterLaw, testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace ringlet::adapt
