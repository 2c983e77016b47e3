// The small transformer of assets/starter-dit, from prompts to an adapter.
#include <array>
#include <cstdint>

#include "tests/e2e/tiny_program_test.h"

namespace ringlet::e2e {
namespace {

class StarterTransformer : public TinyProgram {
 protected:
  const fs::path model_ = fs::path(RINGLET_SOURCE_DIR) / "assets/starter-dit";

  io::Image draw(const std::string& prompt, const Arguments& more = {}) const {
    Arguments all = {"generate",   "--model", model_.string(),  "--prompt", prompt,
                     "--guidance", "4",       "--steps",        "12",       "--seed",
                     "1",          "--out",   path("drawn.png")};
    all.insert(all.end(), more.begin(), more.end());
    expect_success(all);
    return io::read_image(folder_ / "drawn.png");
  }
};

/// Red, green and blue of a pixel.
std::array<int, 3> at(const io::Image& image, std::int64_t x, std::int64_t y) {
  const auto begin = static_cast<std::size_t>((y * image.width + x) * 3);
  return {image.pixels[begin], image.pixels[begin + 1], image.pixels[begin + 2]};
}

TEST_F(StarterTransformer, TakesLittleRoom) {
  constexpr std::uintmax_t kMost = 25'000'000;
  std::uintmax_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(model_))
    if (!entry.is_symlink() && entry.is_regular_file() && entry.path().extension() != ".png")
      bytes += entry.file_size();
  EXPECT_LT(bytes, kMost);
}

TEST_F(StarterTransformer, DrawsWhatThePromptSays) {
  const io::Image circle = draw("red circle");
  ASSERT_EQ(circle.size(), PictureSize::square(128));
  const auto [red, green, blue] = at(circle, 64, 64);
  EXPECT_GT(red, 150);
  EXPECT_LT(green, 110);
  EXPECT_LT(blue, 110);
  for (const int white : at(circle, 4, 4)) EXPECT_GT(white, 200);
  const auto ground = at(draw("cat on blue background"), 4, 4);
  EXPECT_GT(ground[2], ground[0] + 50);
}

TEST_F(StarterTransformer, LearnsWithATransformAndAResidual) {
  expect_success({"train",
                  "--model",
                  model_.string(),
                  "--instance-images",
                  (fs::path(RINGLET_SOURCE_DIR) / "examples/quickstart/robot").string(),
                  "--method",
                  "trm(rank=2)+tr(rank=2)",
                  "--learning-rate",
                  "1e-2",
                  "--steps",
                  "3",
                  "--batch-size",
                  "2",
                  "--seed",
                  "1",
                  "--sample-images",
                  "1",
                  "--sample-steps",
                  "2",
                  "--out",
                  path("run")});
  const auto plain = draw("sks robot").pixels;
  EXPECT_NE(draw("sks robot", {"--adapter", path("run/adapter.safetensors")}).pixels, plain);
}

}  // namespace
}  // namespace ringlet::e2e
