// Tensor rings against a slow reference that writes the definitions down as loops over indices, and
// the parameter counts that the paper prints.
#include "ringlet/adapt/parts/ring.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/parts/tr.h"
#include "ringlet/adapt/parts/trm.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::adapt {
namespace {

using Matrix = std::vector<std::vector<double>>;

/// The R x R matrix at the leading indices of a core.
Matrix bond(const at::Tensor& core) {
  Matrix m(static_cast<std::size_t>(core.size(0)));
  for (std::int64_t a = 0; a < core.size(0); ++a)
    for (std::int64_t b = 0; b < core.size(1); ++b)
      m[static_cast<std::size_t>(a)].push_back(core[a][b].item<double>());
  return m;
}

Matrix times(const Matrix& x, const Matrix& y) {
  Matrix out(x.size(), std::vector<double>(y.front().size(), 0.0));
  for (std::size_t a = 0; a < x.size(); ++a)
    for (std::size_t c = 0; c < y.front().size(); ++c)
      for (std::size_t b = 0; b < y.size(); ++b) out[a][c] += x[a][b] * y[b][c];
  return out;
}

double trace(const Matrix& m) {
  double sum = 0.0;
  for (std::size_t a = 0; a < m.size(); ++a) sum += m[a][a];
  return sum;
}

/// T[i, j] = tr(A^1[i1, j1] … A^D[iD, jD]) with i = i1 + i2 I1 + … (little-endian).
double trm_entry(const std::vector<at::Tensor>& cores, std::int64_t i, std::int64_t j) {
  Matrix chain;
  for (const at::Tensor& core : cores) {
    const Matrix here = bond(core[i % core.size(0)][j % core.size(1)]);
    chain = chain.empty() ? here : times(chain, here);
    i /= core.size(0);
    j /= core.size(1);
  }
  return trace(chain);
}

std::vector<at::Tensor> random_cores(const Factors& factors, std::int64_t rank) {
  std::vector<at::Tensor> cores;
  for (std::size_t d = 0; d < factors.size(); ++d)
    cores.push_back(
        golden::uniform("core " + std::to_string(d), {factors[d], factors[d], rank, rank})
            .to(at::kDouble));
  return cores;
}

TEST(Ring, MatrixIsTheTraceOfItsCores) {
  for (const Factors& factors :
       {Factors{6}, Factors{2, 3}, Factors{2, 3, 4}, Factors{2, 2, 3, 2}}) {
    const std::vector<at::Tensor> cores = random_cores(factors, 3);
    const at::Tensor matrix = ring_matrix(cores);
    for (std::int64_t i = 0; i < matrix.size(0); ++i)
      for (std::int64_t j = 0; j < matrix.size(1); ++j)
        ASSERT_NEAR(matrix[i][j].item<double>(), trm_entry(cores, i, j), 1e-12)
            << to_string(factors) << " at " << i << ", " << j;
  }
}

TEST(Ring, TransposedRingIsTheTransposedMatrix) {
  for (const Factors& factors : {Factors{6}, Factors{2, 3, 4}, Factors{2, 2, 3, 2}}) {
    const std::vector<at::Tensor> cores = random_cores(factors, 2);
    const at::Tensor matrix = ring_matrix(cores), x = golden::uniform("x", {5, product(factors)});
    EXPECT_TRUE(at::allclose(apply_ring(ring_factors(cores, true), x.to(at::kDouble)),
                             x.to(at::kDouble).matmul(matrix), 0, 1e-12));
  }
}

/// apply_ring on enough vectors for several pieces, with its gradients, beside the matrix T.
void expect_pieces_are_the_whole(const Factors& factors, at::ScalarType type, double tolerance) {
  constexpr std::int64_t kRank = 2, kVectors = 3'000;
  std::vector<at::Tensor> cores;
  for (const at::Tensor& core : random_cores(factors, kRank))
    cores.push_back(core.set_requires_grad(true));
  const at::Tensor x =
      golden::uniform("x", {kVectors, product(factors)}).to(at::kDouble).set_requires_grad(true);
  const at::Tensor probe = golden::uniform("probe", x.sizes().vec()).to(at::kDouble);
  std::vector<at::Tensor> inputs = cores;
  inputs.push_back(x);
  std::vector<std::vector<at::Tensor>> results;
  for (const bool whole : {true, false}) {
    const RingFactors ring = ring_factors(cores);
    const RingFactors cast = {ring.left.to(type), ring.right.to(type)};
    const at::Tensor y =
        whole ? x.matmul(ring_matrix(cores).t()) : apply_ring(cast, x.to(type)).to(at::kDouble);
    (y * probe).sum().backward();
    results.push_back({y.detach()});
    for (at::Tensor& input : inputs) {
      results.back().push_back(input.grad());
      input.mutable_grad() = at::Tensor();
    }
  }
  for (std::size_t i = 0; i < results[0].size(); ++i) {
    const double scale = results[0][i].abs().max().item<double>();
    const double worst = (results[1][i] - results[0][i]).abs().max().item<double>();
    EXPECT_LE(worst, tolerance * scale) << to_string(factors) << ", result " << i;
  }
}

TEST(Ring, PiecesAreTheWhole) {
  for (const Factors& factors :
       {Factors{24}, Factors{8, 12}, Factors{4, 8, 10}, Factors{16, 3, 2}}) {
    expect_pieces_are_the_whole(factors, at::kDouble, 1e-12);
    expect_pieces_are_the_whole(factors, at::kFloat, 1e-5);
  }
}

TEST(Ring, MakesOnlyTheGradientsThatAreAskedFor) {
  const std::vector<at::Tensor> cores = random_cores({2, 3}, 2);
  const RingFactors ring = ring_factors(cores);
  const at::Tensor x = golden::uniform("x", {4, 6}).to(at::kDouble).set_requires_grad(true);
  apply_ring(ring, x).sum().backward();  // the ring is a constant
  EXPECT_TRUE(at::allclose(x.grad(), ring_matrix(cores).sum(0).expand({4, 6}), 0, 1e-12));
  cores[1].set_requires_grad(true);
  apply_ring(ring_factors(cores), x.detach()).sum().backward();
  EXPECT_TRUE(cores[1].grad().defined());
  EXPECT_FALSE(cores[0].grad().defined());
}

TEST(Ring, ProductOfTwoRingsIsARingOfTheRanksProduct) {  // Proposition 2
  const std::vector<at::Tensor> x = random_cores({2, 3, 2}, 2);
  std::vector<at::Tensor> y, product;
  for (const at::Tensor& core : x) y.push_back(core.flip({0, 2}));
  for (std::size_t d = 0; d < x.size(); ++d)
    product.push_back(at::einsum("ilab,jlcd->ijacbd", {x[d], y[d]}).flatten(4, 5).flatten(2, 3));
  const at::Tensor expected = ring_matrix(x).matmul(ring_matrix(y).t());
  EXPECT_TRUE(at::allclose(ring_matrix(product), expected, 0, 1e-11));
}

TEST(Ring, ResidualIsTheTraceOfItsCores) {
  FactorTable factors;
  factors.set(6, {1, 2, 3});
  factors.set(8, {2, 2, 2});
  const LayerShape shape{6, 8, 2, 3, true};
  const nn::Conv2dLayer layer(at::zeros(shape.sizes()), {}, {});
  const auto adapter = build_adapter(parse_method("tr(rank=3)"), layer, factors, Random(1), "x");
  std::map<std::string, at::Tensor> cores;
  for (const auto& [name, tensor] : adapter->parameters()) {
    tensor.set_data(golden::uniform(name, tensor.sizes().vec()).to(at::kDouble));
    cores[name] = tensor.detach();
  }
  const at::Tensor d = adapter->parts().residual->weight();
  for (std::int64_t i = 0; i < 6; ++i)
    for (std::int64_t j = 0; j < 8; ++j)
      for (std::int64_t k = 0; k < 6; ++k) {
        Matrix chain = bond(cores.at("residual.out_0")[0]);
        chain = times(chain, bond(cores.at("residual.out_1")[i % 2]));
        chain = times(chain, bond(cores.at("residual.out_2")[i / 2]));
        chain = times(chain, bond(cores.at("residual.in_0")[j % 2]));
        chain = times(chain, bond(cores.at("residual.in_1")[j / 2 % 2]));
        chain = times(chain, bond(cores.at("residual.in_2")[j / 4]));
        chain = times(chain, bond(cores.at("residual.kernel")[k]));
        ASSERT_NEAR(d[i][j][k / 3][k % 3].item<double>(), trace(chain), 1e-12);
      }
}

TEST(Residual, PiecesAreTheWhole) {
  // Wide enough a factor and vectors enough for the sum in pieces, linear and convolution.
  FactorTable factors;
  for (const bool convolution : {false, true}) {
    nn::Shape size = {512, 48};
    if (convolution) size.insert(size.end(), {1, 1});
    const at::Tensor w0 = golden::uniform("w0", size);
    std::unique_ptr<nn::Layer> layer;
    if (convolution)
      layer = std::make_unique<nn::Conv2dLayer>(w0, at::zeros({512}), nn::Conv2dOptions{});
    else
      layer = std::make_unique<nn::LinearLayer>(w0, at::zeros({512}));
    const auto adapter =
        build_adapter(parse_method("lora(rank=20,alpha=10)"), *layer, factors, Random(1), "x");
    adapter->contraction = Contraction::through_input;
    for (const auto& [name, tensor] : adapter->parameters())
      tensor.set_data(golden::uniform(name, tensor.sizes().vec()));
    const nn::Shape input = convolution ? nn::Shape{2, 48, 30, 20} : nn::Shape{2, 600, 48};
    const at::Tensor x = golden::uniform("x", input);
    const at::Tensor probe = golden::uniform("probe", layer->base(x).sizes().vec());
    std::vector<std::vector<at::Tensor>> results;
    for (const bool merged : {true, false}) {
      const at::Tensor y =
          merged ? layer->apply(adapter->weight(w0), x) : adapter->forward(*layer, x);
      (y * probe).sum().backward();
      results.push_back({y.detach()});
      for (const auto& [name, tensor] : adapter->parameters()) {
        results.back().push_back(tensor.grad());
        tensor.mutable_grad() = at::Tensor();
      }
    }
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      const double scale = results[0][i].abs().max().item<double>();
      const double worst = (results[1][i] - results[0][i]).abs().max().item<double>();
      EXPECT_LE(worst, 1e-5 * scale)
          << (convolution ? "convolution" : "linear") << ", result " << i;
    }
  }
}

TEST(Ring, BothStartsAreTheIdentity) {
  for (const TrmStart start : {TrmStart::paper, TrmStart::asymmetric})
    for (const std::int64_t rank : {1, 2, 3, 6}) {
      const auto cores = identity_cores({2, 3, 4}, rank, start, Random(5).stream("cores"));
      const at::Tensor distance = (ring_matrix(cores) - at::eye(24)).abs().max();
      EXPECT_LE(distance.item<double>(), 1e-6) << rank;
    }
  // Proposition 1 with a rank that is a power of two is exact to the last bit.
  const auto exact = identity_cores({2, 3, 4}, 2, TrmStart::paper, Random(5).stream("cores"));
  EXPECT_TRUE(at::equal(ring_matrix(exact), at::eye(24)));
}

// A ring that starts as LoRA of rank R^2 starts: down's numbers vary by 1 / (3 in), and the cores
// behind B^1 neither stretch nor shrink it, whatever the rank and the number of modes.
TEST(Ring, KaimingStartIsThatOfLowRank) {
  for (const std::int64_t rank : {1, 2, 4})
    for (const Factors& split : {Factors{64}, Factors{8, 8}, Factors{4, 4, 4}}) {
      double down = 0.0, up = 0.0, w = 0.0;
      constexpr int kDraws = 400;
      for (int draw = 0; draw < kDraws; ++draw) {
        const TensorRing ring({64, 64}, split, split, rank, TensorRingStart::kaiming,
                              Random(draw).stream("ring"));
        const Parameters cores = ring.parameters();
        EXPECT_TRUE(at::equal(ring.weight(), at::zeros({64, 64})));
        cores.front().second.detach().copy_(
            golden::uniform("b" + std::to_string(draw), {split.front(), rank, rank}));
        at::Tensor b = cores[0].second.detach(), c = cores[split.size()].second.detach();
        w += b.pow(2).mean().item<double>();
        for (std::size_t d = 1; d < split.size(); ++d) {
          b = at::einsum("iab,jbc->ijac", {b, cores[d].second.detach()}).flatten(0, 1);
          c = at::einsum("iab,jbc->ijac", {c, cores[split.size() + d].second.detach()})
                  .flatten(0, 1);
        }
        up += b.pow(2).mean().item<double>();
        down += c.pow(2).mean().item<double>();
      }
      EXPECT_NEAR(down / kDraws * 3 * 64, 1.0, 0.2) << rank << ", " << split.size() << " modes";
      EXPECT_NEAR(up / w, 1.0, 0.2) << rank << ", " << split.size() << " modes";
    }
}

/// Rank of T as a map from the first mode's matrices to the others': 1 for a Kronecker product.
std::int64_t schmidt_rank(const at::Tensor& matrix, std::int64_t first) {
  const std::int64_t rest = matrix.size(0) / first;
  const at::Tensor split =
      matrix.view({rest, first, rest, first}).permute({1, 3, 0, 2}).reshape({first * first, -1});
  const at::Tensor values = at::linalg_svdvals(split);
  return values.gt(values[0] * 1e-4).sum().item<std::int64_t>();
}

TEST(Ring, PaperStartNeverLeavesTheKroneckerProducts) {
  // The symmetry trap: equal slices get equal gradients. The asymmetric start does not have it with
  // three modes; with two, slices stay in the plane of M_1 and M_2^t, and the rank ends at 2.
  const at::Tensor target = golden::uniform("target", {12, 12}) + at::eye(12);
  std::map<TrmStart, std::int64_t> rank;
  std::map<TrmStart, double> loss;
  for (const TrmStart start : {TrmStart::paper, TrmStart::asymmetric}) {
    TensorRingMatrix t(12, {2, 2, 3}, 2, start, Random(3).stream("t"));
    for (int step = 0; step < 300; ++step) {
      const at::Tensor error = (t.forward(at::eye(12)).t() - target).pow(2).sum();
      error.backward();
      loss[start] = error.item<double>();
      for (const auto& [name, core] : t.parameters()) {
        core.set_data(core - 0.003 * core.grad());
        core.mutable_grad() = at::Tensor();
      }
    }
    rank[start] = schmidt_rank(t.forward(at::eye(12)).t().detach().contiguous(), 2);
  }
  EXPECT_EQ(rank.at(TrmStart::paper), 1);
  EXPECT_EQ(rank.at(TrmStart::asymmetric), 4);  // R^2
  EXPECT_LT(loss.at(TrmStart::asymmetric), loss.at(TrmStart::paper));
}

/// Attention projections of `blocks` transformer blocks: q, k, v, out of attn1 and attn2.
void add_attention(std::vector<LayerShape>& layers, int blocks, std::int64_t width,
                   std::int64_t context) {
  for (int block = 0; block < blocks; ++block) {
    for (int i = 0; i < 6; ++i) layers.push_back({width, width});
    for (int i = 0; i < 2; ++i) layers.push_back({width, context});
  }
}

std::int64_t count(const std::string& method, const std::vector<LayerShape>& layers) {
  FactorTable factors;
  std::int64_t total = 0;
  for (const LayerShape& layer : layers)
    total += parameter_count(parse_method(method), layer, factors);
  return total;
}

TEST(Method, PaperParameterCountsComeOut) {
  std::vector<LayerShape> sd15, sdxl;
  add_attention(sd15, 5, 320, 768);
  add_attention(sd15, 5, 640, 768);
  add_attention(sd15, 6, 1280, 768);
  add_attention(sdxl, 10, 640, 2048);
  add_attention(sdxl, 60, 1280, 2048);
  ASSERT_EQ(sd15.size(), 128u);
  ASSERT_EQ(sdxl.size(), 560u);
  EXPECT_EQ(count("lora(rank=4)", sd15), 797'184);
  EXPECT_EQ(count("trm(rank=2)", sd15), 144'256);
  EXPECT_EQ(count("tlora", sd15), 400'288);
  EXPECT_EQ(count("tlora-star", sd15), 941'440);
  EXPECT_EQ(count("lora(rank=1)", sdxl), 1'451'520);
  EXPECT_EQ(count("trm(rank=1)+tr(rank=2)", sdxl), 396'720);
}

TEST(Method, TextIsCanonical) {
  EXPECT_EQ(method_text(parse_method("lora")), "lora(alpha=4,rank=4)");
  EXPECT_EQ(method_text(parse_method("lora(rank=8)")), "lora(alpha=8,rank=8)");
  EXPECT_EQ(method_text(parse_method("tlora")), "trm(init=asymmetric,rank=2)+tr(rank=6)");
  for (const char* text : {"tlora-star", "tr(rank=3)", " lora( rank = 2 ) + trm "})
    EXPECT_EQ(parse_method(method_text(parse_method(text))), parse_method(text));
}

TEST(Method, WrongTextsAreExplained) {
  const auto expect_invalid = [](const char* text, const char* words) {
    expect_error(ErrorCode::invalid_argument, words, [&] { parse_method(text); });
  };
  expect_invalid("lorra", "did you mean \"lora\"");
  expect_invalid("", "there is no method \"\"");
  expect_invalid("lora(rank=0)", "above 0");
  expect_invalid("lora(rank=-3)", "above 0");
  expect_invalid("lora(rank=1.5)", "whole number");
  expect_invalid("lora(rank=nan)", "above 0");
  expect_invalid("lora(rank=4", "closing bracket");
  expect_invalid("lora(ranks=4)", "no option \"ranks\"");
  expect_invalid("lora(rank=4,rank=5)", "twice");
  expect_invalid("lora(4)", "name=value");
  expect_invalid("lora+tr", "two residuals");
  expect_invalid("trm+", "ends with a +");
  expect_invalid("trm(init=random)", "known: asymmetric, paper");
}

TEST(Factors, CoverEveryDimension) {
  EXPECT_EQ(to_string(factorise(320, 3)), "4x8x10");
  EXPECT_EQ(to_string(factorise(640, 3)), "8x8x10");
  EXPECT_EQ(to_string(factorise(768, 3)), "8x8x12");
  EXPECT_EQ(to_string(factorise(1280, 3)), "8x10x16");
  EXPECT_EQ(to_string(factorise(2048, 3)), "8x16x16");
  // Widths of diffusion transformers, and of their feed-forwards.
  EXPECT_EQ(to_string(factorise(1536, 3)), "8x12x16");
  EXPECT_EQ(to_string(factorise(2432, 3)), "8x16x19");
  EXPECT_EQ(to_string(factorise(3072, 3)), "12x16x16");
  EXPECT_EQ(to_string(factorise(6144, 3)), "16x16x24");
  EXPECT_EQ(to_string(factorise(9728, 3)), "16x19x32");
  EXPECT_EQ(to_string(factorise(12288, 3)), "16x24x32");
  EXPECT_EQ(to_string(factorise(15360, 3)), "20x24x32");
  for (const std::int64_t n : {1, 2, 3, 7, 97, 193, 1021, 3072, 49408})
    for (int modes = 1; modes <= 4; ++modes) {
      const Factors factors = factorise(n, modes);
      EXPECT_EQ(static_cast<int>(factors.size()), modes);
      EXPECT_GE(product(factors), n);
      EXPECT_LE(product(factors), n + n / 4 + 1);
    }
}

TEST(Factors, WrongOnesAreExplained) {
  expect_error(ErrorCode::invalid_argument, "1 to 8 modes", [] { factorise(0, 3); });
  for (const char* text : {"", "x", "4x", "4x-1", "4y8", "0x4", "1x1x1x1x1x1x1x1x1"})
    expect_error(ErrorCode::invalid_argument, "write for example 4x8x10",
                 [&] { parse_factors(text); });
  FactorTable table;
  expect_error(ErrorCode::invalid_argument, "too small", [&] { table.set(320, {4, 8, 9}); });
  expect_error(ErrorCode::invalid_argument, "3 factors", [&] { table.set(320, {16, 20}); });
  table.set(320, {5, 8, 8});
  EXPECT_EQ(to_string(table.at(320)), "5x8x8");
}

}  // namespace
}  // namespace ringlet::adapt
