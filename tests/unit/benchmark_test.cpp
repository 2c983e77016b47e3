// ringlet bench: what it counts, and what it writes.
#include "ringlet/service/benchmark.h"

#include <filesystem>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/core/read_file.h"
#include "ringlet/nn/allocation_count.h"
#include "ringlet/nn/layer_scope.h"
#include "ringlet/service/benchmark_report.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::service {
namespace {

const KindProfile& of(const BenchmarkRow& row, nn::LayerKind kind) {
  return row.kinds[static_cast<std::size_t>(kind)];
}

class Benchmark : public testing::Test {
 protected:
  Benchmark() { golden::write_folder(folder_ / "model", "sd1"); }

  BenchmarkRequest request() const {
    BenchmarkRequest r;
    r.model = folder_ / "model";
    r.methods = "lora(rank=2), trm(rank=2)+lora(rank=2)";
    r.resolution = 16;
    r.rounds = 2;
    r.steps = 1;
    return r;
  }

  TemporaryFolder folder_;
};

TEST_F(Benchmark, MeasuresEveryPassAndWritesIt) {
  BenchmarkRequest r = request();
  r.out = folder_ / "out";
  std::vector<std::string> turns;
  std::size_t announced = 0;
  const BenchmarkResult result = benchmark(r, [&](const std::string& what, std::size_t total) {
    turns.push_back(what);
    announced = total;
    return true;
  });
  const std::string lora = "lora(rank=2)", both = "trm(rank=2)+lora(rank=2)";
  EXPECT_EQ(turns, (std::vector<std::string>{"the machine", "forward pass", lora, both, lora, both,
                                             lora, both}));
  EXPECT_EQ(announced, turns.size());
  EXPECT_GT(result.speed.fp32, 0.0);
  EXPECT_GT(result.speed.bf16, 0.0);
  EXPECT_GT(result.speed.memory, 0.0);
  ASSERT_EQ(result.rows.size(), 3u);
  const BenchmarkRow& forward = result.rows.front();
  for (const BenchmarkRow& row : result.rows) {
    SCOPED_TRACE(row.name);
    EXPECT_EQ(row.seconds.size(), 2u);
    EXPECT_GT(row.median_seconds(), 0.0);
    EXPECT_GT(row.peak_bytes, 0u);
    for (const auto kind : {nn::LayerKind::linear, nn::LayerKind::convolution,
                            nn::LayerKind::attention, nn::LayerKind::norm})
      EXPECT_GT(of(row, kind).seconds, 0.0);
    const bool trains = row.parameters > 0;
    EXPECT_EQ(of(row, nn::LayerKind::adapter).seconds > 0.0, trains);
    EXPECT_EQ(of(row, nn::LayerKind::optimizer).seconds > 0.0, trains);
    EXPECT_EQ(row.kept_bytes > 0, trains);
    // A forward pass of half the rows, and a backward pass that costs as much but for the first
    // layers, which need no gradient, and attention, whose backward pass costs twice as much.
    if (trains) {
      EXPECT_GT(row.operations(), 0.8 * forward.operations());
      EXPECT_LT(row.operations(), 1.1 * forward.operations());
    }
  }
  EXPECT_GT(result.rows[2].parameters, result.rows[1].parameters);
  EXPECT_GT(result.rows[2].kept_bytes, result.rows[1].kept_bytes);

  const Json json = read_json_file(r.out / "bench.json");
  EXPECT_EQ(json, to_json(r, result));
  EXPECT_EQ(json.at("rows").size(), 3u);
  EXPECT_EQ(json.at("rows").at(1).at("name"), lora);
  const std::string page = read_file(benchmark_page(r), 1 << 24);
  for (const std::string& text : {lora, both, std::string("Roofline")})
    EXPECT_NE(page.find(text), std::string::npos);
  for (const char* plot : {"kinds.png", "memory.png", "roofline.png"})
    EXPECT_TRUE(std::filesystem::exists(r.out / plot)) << plot;
}

TEST_F(Benchmark, CheckpointingKeepsLessForNearlyTheSameArithmetic) {
  BenchmarkRequest r = request();
  r.methods = "lora(rank=2)";
  r.rounds = 1;
  const BenchmarkRow kept = benchmark(r).rows.at(1);
  r.gradient_checkpointing = true;
  const BenchmarkRow again = benchmark(r).rows.at(1);
  EXPECT_LT(again.kept_bytes, kept.kept_bytes);
  EXPECT_NEAR(again.operations() / kept.operations(), 1.0, 0.02);
}

TEST_F(Benchmark, RefusesWhatCannotBeMeasured) {
  const auto refused = [&](auto change, const std::string& what) {
    BenchmarkRequest r = request();
    change(r);
    expect_error(ErrorCode::invalid_argument, what, [&] { benchmark(r); });
  };
  refused([](auto& r) { r.methods = "lora(rank=2),,oft"; }, "empty entry");
  refused([](auto& r) { r.methods = "lara(rank=2)"; }, "lara");
  refused([](auto& r) { r.resolution = 17; }, "multiple");
  refused([](auto& r) { r.rounds = 0; }, "rounds");
  expect_error(ErrorCode::cancelled, "interrupted", [&] {
    benchmark(request(), [](const std::string&, std::size_t) { return false; });
  });
}

TEST(BenchmarkJson, ARequestIsReadAsItIsWritten) {
  const Json json = {{"model", "starter"},
                     {"methods", "oft(block=8)"},
                     {"device", "cpu"},
                     {"precision", "fp32"},
                     {"rounds", 5}};
  const BenchmarkRequest request = benchmark_request_from_json(json);
  EXPECT_EQ(request.methods, "oft(block=8)");
  EXPECT_EQ(request.rounds, 5);
  EXPECT_EQ(to_json(benchmark_request_from_json(to_json(request))), to_json(request));
  expect_error(ErrorCode::invalid_argument, "methods", [] {
    benchmark_request_from_json({{"method", "oft"}});
  });
}

TEST(LayerWork, IsThatOfTheShapes) {
  const at::Tensor x = at::ones({2, 5, 3}), w = at::ones({4, 3}), y = at::ones({2, 5, 4});
  EXPECT_EQ(nn::product_work(x, w, y).operations, 2.0 * 10 * 3 * 4);
  EXPECT_EQ(nn::product_work(x, w, y).backward_operations, 0.0);
  EXPECT_EQ(nn::product_work(x, w, y).bytes, 4.0 * (30 + 12 + 40));
  x.requires_grad_(true);
  EXPECT_EQ(nn::product_work(x, w, y).backward_operations, 2.0 * 10 * 3 * 4);
  w.requires_grad_(true);
  EXPECT_EQ(nn::product_work(x, w, y).backward_operations, 4.0 * 10 * 3 * 4);
  const at::Tensor kernel = at::ones({6, 3, 3, 3}), picture = at::ones({2, 3, 8, 8});
  EXPECT_EQ(nn::product_work(picture, kernel, at::ones({2, 6, 8, 8})).operations,
            2.0 * 2 * 64 * 6 * 27);
  const at::Tensor q = at::ones({2, 7, 8}), k = at::ones({2, 9, 8});
  EXPECT_EQ(nn::attention_work(q, k, k).operations, 2.0 * 2 * 2 * 7 * 9 * 8);
}

TEST(AllocationCount, CountsWhatIsGivenOutAndComesBack) {
  at::Tensor before = at::ones({1000});
  at::Tensor after;
  {
    const nn::AllocationCount count(at::kCPU);
    EXPECT_EQ(count.bytes(), 0);
    const at::Tensor a = at::ones({100});
    EXPECT_EQ(count.bytes(), 400);
    EXPECT_EQ(count.blocks().at(a.storage().data()), 400u);
    {
      const at::Tensor b = at::ones({50});
      EXPECT_EQ(count.bytes(), 600);
    }
    before.reset();
    EXPECT_EQ(count.bytes(), 400);
    after = at::ones({10});
  }
  const nn::AllocationCount count(at::kCPU);
  after.reset();
  EXPECT_EQ(count.bytes(), 0);
}

}  // namespace
}  // namespace ringlet::service
