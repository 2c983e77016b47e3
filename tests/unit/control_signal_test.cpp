#include "ringlet/data/control_signal.h"

#include <algorithm>
#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "ringlet/data/landmarks.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::data {
namespace {

using Colour = std::array<std::uint8_t, 3>;

io::Image plain(std::int64_t width, std::int64_t height, Colour colour) {
  io::Image image{width, height, {}};
  for (std::int64_t i = 0; i < width * height; ++i)
    image.pixels.insert(image.pixels.end(), colour.begin(), colour.end());
  return image;
}

void paint(io::Image& image, std::int64_t left, std::int64_t top, std::int64_t side,
           Colour colour) {
  for (std::int64_t y = top; y < top + side; ++y)
    for (std::int64_t x = left; x < left + side; ++x)
      std::ranges::copy(colour, image.pixels.begin() + (y * image.width + x) * 3);
}

/// A red square of 20 pixels in the middle of white ones.
io::Image square_on_white() {
  io::Image image = plain(40, 40, {255, 255, 255});
  paint(image, 10, 10, 20, {220, 40, 40});
  return image;
}

std::uint8_t at(const io::Image& image, std::int64_t x, std::int64_t y) {
  return image.pixels[static_cast<std::size_t>((y * image.width + x) * 3)];
}

int label(const LabelMap& map, std::int64_t x, std::int64_t y) {
  return map.labels[static_cast<std::size_t>(y * map.width + x)];
}

TEST(CannyEdges, RunAroundASquare) {
  const io::Image edges = canny_edges(square_on_white());
  EXPECT_EQ(at(edges, 20, 20), 0);
  EXPECT_EQ(at(edges, 2, 2), 0);
  EXPECT_TRUE(at(edges, 9, 20) == 255 || at(edges, 10, 20) == 255);
  for (std::size_t i = 0; i < edges.pixels.size(); i += 3) {
    EXPECT_TRUE(edges.pixels[i] == 0 || edges.pixels[i] == 255);
    EXPECT_EQ(edges.pixels[i], edges.pixels[i + 1]);
  }
  const auto high = canny_edges(square_on_white(), {2000.0, 4000.0});
  EXPECT_TRUE(std::ranges::all_of(high.pixels, [](int value) { return value == 0; }));
}

TEST(SegmentColours, TellsBackgroundAndColours) {
  io::Image image = square_on_white();
  paint(image, 14, 14, 12, {255, 255, 255});  // white inside is no background
  paint(image, 2, 2, 1, {50, 90, 200});       // a spot, which is absorbed
  const LabelMap map = segment_colours(image);
  EXPECT_EQ(label(map, 1, 1), 0);
  EXPECT_EQ(label(map, 2, 2), 0);
  EXPECT_STREQ(colour_class(label(map, 12, 12)).name, "red");
  EXPECT_STREQ(colour_class(label(map, 20, 20)).name, "white");
  EXPECT_EQ(map.labels, segment_colours(image).labels);
  const io::Image drawn = draw_segmentation(map);
  EXPECT_EQ(at(drawn, 12, 12), 220);
  EXPECT_EQ(at(drawn, 1, 1), 0);
}

TEST(SegmentColours, FindsEveryNamedColour) {
  for (int i = 2; i < kColourClasses; ++i) {
    io::Image image = plain(40, 40, {255, 255, 255});
    const ColourClass& colour = colour_class(i);
    paint(image, 10, 10, 20, {colour.red, colour.green, colour.blue});
    EXPECT_EQ(label(segment_colours(image), 20, 20), i) << colour.name;
  }
}

class ControlPicture : public testing::Test {
 protected:
  ControlPicture() { io::write_png(picture_, image_); }
  Crop crop() const { return covering_crop(image_, {20, 20}, {1.0, 0.0}); }

  TemporaryFolder folder_;
  io::Image image_ = plain(60, 40, {255, 255, 255});
  std::filesystem::path picture_ = folder_ / "a.png";
};

TEST_F(ControlPicture, CutsMapsAtTheSamePlace) {
  io::Image map = plain(120, 80, {0, 0, 0});
  paint(map, 80, 0, 40, {200, 200, 200});
  std::filesystem::create_directories(folder_ / "maps");
  io::write_png(folder_ / "maps" / "a.png", map);
  const ControlSettings settings{ControlSignal::map, {}, folder_ / "maps"};
  const io::Image cut = control_picture(settings, picture_, image_, crop());
  EXPECT_EQ(cut.width, 20);
  EXPECT_EQ(at(cut, 1, 1), 0);  // the crop begins at 10 of 30, the square at 20
  EXPECT_EQ(at(cut, 15, 2), 200);
  EXPECT_EQ(control_picture(settings, picture_, image_).width, 60);

  io::write_png(folder_ / "maps" / "a.png", plain(40, 40, {0, 0, 0}));
  expect_error(ErrorCode::mismatch, "40x40",
               [&] { control_picture(settings, picture_, image_, crop()); });
}

TEST_F(ControlPicture, PointsMoveWithTheCrop) {
  const std::vector<Point> moved = points_in_crop({{59.5, -0.5}, {19.5, 39.5}}, image_, crop());
  EXPECT_NEAR(moved[0].x, 19.5, 1e-12);  // the corner at the right and the top stays
  EXPECT_NEAR(moved[0].y, -0.5, 1e-12);
  EXPECT_NEAR(moved[1].x, -0.5, 1e-12);  // a third of the width is cut off
  EXPECT_NEAR(moved[1].y, 19.5, 1e-12);
}

TEST_F(ControlPicture, KnowsTheFileOfASignal) {
  EXPECT_FALSE(control_file({ControlSignal::canny, {}, {}}, picture_).has_value());
  EXPECT_FALSE(control_file({ControlSignal::landmark, {}, folder_.path()}, picture_).has_value());
  EXPECT_EQ(control_file({ControlSignal::map, {}, folder_.path()}, picture_), picture_);
  std::ofstream(folder_ / "other.PTS") << "n_points: 1\n{\n2 3\n}\n";  // letters of either case
  EXPECT_EQ(read_landmarks(folder_ / "other.PTS").size(), 1u);
  EXPECT_EQ(control_file({ControlSignal::landmark, {}, folder_.path()}, "other.png"),
            folder_ / "other.PTS");
}

TEST_F(ControlPicture, NamesMissingPartners) {
  const ControlSettings settings{ControlSignal::landmark, {}, folder_.path()};
  expect_error(ErrorCode::not_found, "1 of 1 pictures",
               [&] { check_control_files(settings, {picture_}); });
  expect_error(ErrorCode::not_found, "has no landmarks",
               [&] { control_picture(settings, picture_, image_, crop()); });
  check_control_files({ControlSignal::canny, {}, {}}, {picture_});
}

// By their names alone: one file would silently be the signal of both.
TEST_F(ControlPicture, TwoPicturesOfOneNameAreRefused) {
  std::filesystem::create_directories(folder_ / "maps");
  io::write_png(folder_ / "maps/1.png", image_);
  io::write_png(folder_ / "maps/2.png", image_);
  const ControlSettings settings{ControlSignal::map, {}, folder_ / "maps"};
  const std::filesystem::path one = folder_ / "10_a/1.png", other = folder_ / "5_b/1.png",
                              second = folder_ / "5_b/2.png";
  check_control_files(settings, {one, second});
  expect_error(ErrorCode::invalid_argument, "5_b/1.png: is called \"1\" like", [&] {
    check_control_files(settings, {one, second, other});
  });
  expect_error(ErrorCode::invalid_argument, "1.webp", [&] {
    check_control_files(settings, {one, folder_ / "10_a/1.webp"});
  });
  check_control_files({ControlSignal::canny, {}, {}}, {one, other});  // computed for each
}

TEST_F(ControlPicture, MovesLandmarksWithTheCrop) {
  std::ofstream(folder_ / "a.json") << "[[50.5, 20.5]]";
  const ControlSettings settings{ControlSignal::landmark, {}, folder_.path()};
  const io::Image drawn = control_picture(settings, picture_, image_, crop());
  EXPECT_EQ(at(drawn, 15, 10), 255);  // (51, 21) / 2 - (10, 0) - 1/2
  EXPECT_EQ(at(drawn, 5, 10), 0);
  EXPECT_GT(at(control_picture(settings, picture_, image_), 50, 20), 128);
}

TEST(Landmarks, AreReadFromEveryFormat) {
  const TemporaryFolder folder;
  const auto file = [&](const char* name, const std::string& text) {
    std::ofstream(folder / name) << text;
    return folder / name;
  };
  const std::vector<std::filesystem::path> files = {
      file("a.pts", "version: 1\nn_points: 2\n{\n3.5 4\n1 1\n}\n"),
      file("a.json", "[[2.5, 3], [0, 0]]"), file("b.json", R"({"landmarks": [[2.5, 3], [0, 0]]})"),
      file("a.ljson", R"({"landmarks": {"points": [[3, 2.5], [0, 0]]}, "version": 2})")};
  for (const auto& path : files) {
    const auto points = read_landmarks(path);
    ASSERT_EQ(points.size(), 2u) << path;
    EXPECT_DOUBLE_EQ(points[0].x, 2.5) << path;
    EXPECT_DOUBLE_EQ(points[0].y, 3.0) << path;
    EXPECT_DOUBLE_EQ(points[1].x, 0.0) << path;
  }
  for (const char* text : {"[]", "{}", "[[1]]", "[[1, \"2\"]]", "[[1, 1e999]]", "7"})
    EXPECT_THROW(read_landmarks(file("bad.json", text)), Error) << text;
  for (const char* text : {"", "{\n1\n}\n", "{\n1 x\n}\n", "{\n1 nan\n}\n"})
    EXPECT_THROW(read_landmarks(file("bad.pts", text)), Error) << text;
  expect_error(ErrorCode::unsupported, "not a landmark file",
               [&] { read_landmarks(file("a.csv", "1,2")); });
  expect_error(ErrorCode::not_found, "does not exist",
               [&] { read_landmarks(folder / "none.pts"); });
}

TEST(Landmarks, OfAFaceAreLines) {
  std::vector<Point> face(68);
  for (std::size_t i = 0; i < face.size(); ++i) face[i] = {static_cast<double>(i), 10.0};
  const io::Image drawn = draw_landmarks(face, 80, 20);
  EXPECT_GT(at(drawn, 8, 10), 128);  // jaw
  EXPECT_EQ(at(drawn, 8, 5), 0);
  std::set<std::uint8_t> values(drawn.pixels.begin(), drawn.pixels.end());
  EXPECT_GT(values.size(), 2u);
  draw_landmarks({{1e300, -1e300}}, 8, 8);  // far outside: nothing to see, and nothing breaks
}

}  // namespace
}  // namespace ringlet::data
