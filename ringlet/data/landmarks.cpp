#include "ringlet/data/landmarks.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>

#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/data/picture_folder.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostPoints = 100'000;

Error bad(const fs::path& path, const std::string& what) {
  return {ErrorCode::bad_format, path.string(), what,
          "landmarks are [[x, y], …] in JSON, or a .pts file"};
}

Point checked(const fs::path& path, double x, double y) {
  if (!std::isfinite(x) || !std::isfinite(y)) throw bad(path, "a point is not finite");
  return {x, y};
}

double number(const fs::path& path, const std::string& word) {
  double value = 0.0;
  const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (problem != std::errc() || end != word.data() + word.size())
    throw bad(path, "\"" + word.substr(0, 40) + "\" is not a number");
  return value;
}

std::vector<Point> read_pts(const fs::path& path) {
  std::ifstream file(path);
  std::vector<Point> points;
  bool inside = false, has_list = false;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string first, second;
    if (!(words >> first)) continue;
    if (first == "{" || first == "}") {
      inside = first == "{";
      has_list = true;
    } else if (inside) {
      if (!(words >> second)) throw bad(path, "a line has one number");
      points.push_back(checked(path, number(path, first) - 1.0, number(path, second) - 1.0));
      if (points.size() > kMostPoints) throw bad(path, "has too many points");
    }
  }
  if (!has_list) throw bad(path, "holds no list of points");
  return points;
}

std::vector<Point> read_json(const fs::path& path, bool rows_first) {
  const Json json = read_json_file(path);
  const Json* list = &json;
  for (const char* key : {"landmarks", "points"})
    if (list->is_object() && list->contains(key)) list = &(*list)[key];
  if (!list->is_array() || list->size() > kMostPoints) throw bad(path, "holds no list of points");
  std::vector<Point> points;
  for (const Json& point : *list) {
    if (!point.is_array() || point.size() != 2 || !point[0].is_number() || !point[1].is_number())
      throw bad(path, "a point is not two numbers");
    const auto first = point[0].get<double>(), second = point[1].get<double>();
    points.push_back(rows_first ? checked(path, second, first) : checked(path, first, second));
  }
  return points;
}

/// Lines of the 300-W face, by the numbers of their points; those of eyes and lips are closed.
struct FaceLine {
  int first;
  int last;
  bool closed;
  std::array<int, 3> colour;  ///< RGB
};
constexpr std::array kFace = {
    FaceLine{0, 16, false, {255, 255, 255}},  // jaw
    FaceLine{17, 21, false, {255, 160, 0}},   // brows
    FaceLine{22, 26, false, {255, 160, 0}},
    FaceLine{27, 30, false, {0, 255, 0}},  // nose
    FaceLine{31, 35, false, {0, 255, 0}},
    FaceLine{36, 41, true, {0, 160, 255}},  // eyes
    FaceLine{42, 47, true, {0, 160, 255}},
    FaceLine{48, 59, true, {255, 0, 80}},  // lips, outside and inside
    FaceLine{60, 67, true, {255, 0, 80}},
};
constexpr std::size_t kFacePoints = 68;

/// Coordinates in sixteenths of a pixel, which OpenCV draws exactly; what lies far outside is
/// brought near, so that it does not overflow.
constexpr int kShift = 4;
cv::Point fixed(const Point& point) {
  const auto whole = [](double value) {
    return static_cast<int>(std::lround(std::clamp(value, -1e5, 1e5) * (1 << kShift)));
  };
  return {whole(point.x), whole(point.y)};
}

}  // namespace

std::vector<Point> read_landmarks(const fs::path& path) {
  std::vector<Point> points = read_detected_landmarks(path);
  if (points.empty()) throw bad(path, "holds no point");
  return points;
}

std::vector<Point> read_detected_landmarks(const fs::path& path) {
  if (!fs::is_regular_file(path))
    throw Error(ErrorCode::not_found, path.string(), "the landmark file does not exist");
  const std::string extension = lower_extension(path);
  if (extension != ".pts" && extension != ".json" && extension != ".ljson")
    throw Error(ErrorCode::unsupported, path.string(), "is not a landmark file",
                "ringlet reads .pts, .json and .ljson");
  return extension == ".pts" ? read_pts(path) : read_json(path, extension == ".ljson");
}

std::vector<Point> points_in_crop(std::vector<Point> points, const io::Image& image,
                                  const Crop& crop) {
  const auto ratio = [](std::int64_t wanted, std::int64_t own) {
    return static_cast<double>(wanted) / static_cast<double>(own);
  };
  const double across = ratio(crop.whole.width, image.width);
  const double down = ratio(crop.whole.height, image.height);
  for (Point& point : points)
    point = {(point.x + 0.5) * across - static_cast<double>(crop.left) - 0.5,
             (point.y + 0.5) * down - static_cast<double>(crop.top) - 0.5};
  return points;
}

io::Image draw_landmarks(const std::vector<Point>& points, std::int64_t width,
                         std::int64_t height) {
  io::Image image{width, height,
                  std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * 3))};
  cv::Mat canvas(static_cast<int>(height), static_cast<int>(width), CV_8UC3, image.pixels.data());
  const double side = static_cast<double>(std::min(width, height));
  const int thickness = std::max(1, static_cast<int>(std::lround(side / 170.0)));
  if (points.size() == kFacePoints) {
    for (const FaceLine& line : kFace) {
      const cv::Scalar colour(line.colour[0], line.colour[1], line.colour[2]);
      const auto draw = [&](int from, int to) {
        cv::line(canvas, fixed(points[static_cast<std::size_t>(from)]),
                 fixed(points[static_cast<std::size_t>(to)]), colour, thickness, cv::LINE_AA,
                 kShift);
      };
      for (int i = line.first; i < line.last; ++i) draw(i, i + 1);
      if (line.closed) draw(line.last, line.first);
    }
    return image;
  }
  const int radius = std::max(1, static_cast<int>(std::lround(side / 128.0))) << kShift;
  for (const Point& point : points)
    cv::circle(canvas, fixed(point), radius, cv::Scalar(255, 255, 255), cv::FILLED, cv::LINE_AA,
               kShift);
  return image;
}

}  // namespace ringlet::data
