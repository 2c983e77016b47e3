// Metrics against the published implementations' numbers (make_metrics.py).
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/eval/control_metrics.h"
#include "ringlet/eval/feature_metrics.h"
#include "tests/golden/formula.h"

namespace ringlet::eval {
namespace {

constexpr double kMetricTolerance = 1e-9;  // relative, both sides in fp64

class MetricsGolden : public testing::Test {
 protected:
  static const Json& expected() {
    static const Json json =
        read_json_file(std::string(RINGLET_SOURCE_DIR) + "/tests/golden/data/metrics.json");
    return json;
  }
  static void expect_near(const Json& want, double found, double tolerance = kMetricTolerance) {
    EXPECT_NEAR(found, want.get<double>(), tolerance * std::abs(want.get<double>()));
  }
  static at::Tensor x() { return golden::uniform("metrics.x", {60, 8}).to(at::kDouble); }
  static at::Tensor y() {
    return golden::uniform("metrics.y", {50, 8}).to(at::kDouble) * 0.8 + 0.3;
  }

  /// The script's picture: six by six flat fields.
  static io::Image picture(const std::string& name) {
    constexpr std::int64_t kSide = 96, kFields = 6;
    const at::Tensor fields =
        ((golden::uniform(name, {kFields, kFields, 3}) * 0.5 + 0.5) * 255).to(at::kByte);
    const at::Tensor large = fields.repeat_interleave(kSide / kFields, 0)
                                 .repeat_interleave(kSide / kFields, 1)
                                 .contiguous();
    const auto* bytes = large.const_data_ptr<std::uint8_t>();
    return {kSide, kSide, {bytes, bytes + large.numel()}};
  }

  static std::vector<data::LabelMap> labels(const std::string& name) {
    const at::Tensor numbers =
        ((golden::uniform(name, {4, 30, 20}) * 0.5 + 0.5) * 5).floor().clamp(0, 4).to(at::kByte);
    std::vector<data::LabelMap> maps;
    for (const at::Tensor& one : numbers.unbind()) {
      const at::Tensor flat = one.contiguous();
      const auto* bytes = flat.const_data_ptr<std::uint8_t>();
      maps.push_back({20, 30, {bytes, bytes + flat.numel()}});
    }
    return maps;
  }
};

TEST_F(MetricsGolden, DistancesOfSets) {
  // clean-fid's matrix root is itself good to about this.
  expect_near(expected().at("fid"), frechet_distance(x(), y()), 1e-7);
  expect_near(expected().at("kid"), kernel_distance(x().narrow(0, 0, 50), y(), {.subsets = 1}));
  expect_near(expected().at("cmmd"), clip_mean_discrepancy(x(), y()));
  expect_near(expected().at("vendi"), vendi_score(x()));
  expect_near(expected().at("cosine"), cosines(x(), y()).mean().item<double>());
}

TEST_F(MetricsGolden, EdgesOfPictures) {
  const io::Image a = picture("metrics.a"), b = picture("metrics.b");
  const auto edge_pixels = [](const io::Image& image) {
    return std::ranges::count(data::canny_edges(image).pixels, 255) / 3;
  };
  EXPECT_EQ(edge_pixels(a), expected().at("canny").at("pixels").at(0));
  EXPECT_EQ(edge_pixels(b), expected().at("canny").at("pixels").at(1));
  const EdgeAgreement agreement = edge_agreement(a, b);
  expect_near(expected().at("canny").at("iou"), agreement.iou);
  expect_near(expected().at("canny").at("f1"), agreement.f1);
}

TEST_F(MetricsGolden, SegmentationScores) {
  std::vector<data::LabelMap> truth = labels("metrics.t"), found = labels("metrics.f");
  std::fill_n(truth.front().labels.begin(), 3 * 20, std::uint8_t{255});
  Confusion confusion(7);
  for (std::size_t i = 0; i < truth.size(); ++i) confusion.add(truth[i], found[i]);
  const Confusion::Scores scores = confusion.scores();
  expect_near(expected().at("segmentation").at("mIoU"), scores.mean_iou);
  expect_near(expected().at("segmentation").at("mAcc"), scores.mean_accuracy);
  expect_near(expected().at("segmentation").at("aAcc"), scores.pixel_accuracy);
}

}  // namespace
}  // namespace ringlet::eval
