#include "ringlet/data/control_signal.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <iterator>
#include <optional>
#include <utility>

#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/data/landmarks.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

constexpr std::array<ColourClass, kColourClasses> kClasses = {{{"background", 0, 0, 0},
                                                               {"white", 245, 245, 245},
                                                               {"grey", 140, 140, 140},
                                                               {"black", 40, 40, 40},
                                                               {"red", 220, 40, 40},
                                                               {"orange", 245, 140, 30},
                                                               {"yellow", 250, 215, 60},
                                                               {"green", 70, 160, 60},
                                                               {"cyan", 90, 200, 220},
                                                               {"blue", 50, 90, 200},
                                                               {"purple", 140, 70, 180},
                                                               {"pink", 245, 150, 180},
                                                               {"brown", 125, 75, 45}}};

/// OpenCV's view of a picture's own pixels.
cv::Mat view(const io::Image& image) {
  return {static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC3,
          const_cast<std::uint8_t*>(image.pixels.data())};
}

io::Image to_image(const cv::Mat& rgb) {
  io::Image image{rgb.cols, rgb.rows, std::vector<std::uint8_t>(rgb.total() * 3)};
  rgb.copyTo(view(image));
  return image;
}

/// RGB in 8 bits to CIE L*a*b* in floating point.
cv::Mat to_lab(const cv::Mat& rgb) {
  cv::Mat scaled, lab;
  rgb.convertTo(scaled, CV_32FC3, 1.0 / 255.0);
  cv::cvtColor(scaled, lab, cv::COLOR_RGB2Lab);
  return lab;
}

/// The nearest colour's class (1, 2, …) for every pixel.
cv::Mat nearest_classes(const cv::Mat& lab) {
  cv::Mat colours(1, kColourClasses, CV_8UC3);
  for (int i = 0; i < kColourClasses; ++i)
    colours.at<cv::Vec3b>(i) = {kClasses[static_cast<std::size_t>(i)].red,
                                kClasses[static_cast<std::size_t>(i)].green,
                                kClasses[static_cast<std::size_t>(i)].blue};
  const cv::Mat named = to_lab(colours);
  cv::Mat labels(lab.size(), CV_8U);
  for (int y = 0; y < lab.rows; ++y)
    for (int x = 0; x < lab.cols; ++x) {
      double best = 1e30;
      for (int i = 1; i < kColourClasses; ++i) {
        const double distance =
            cv::norm(lab.at<cv::Vec3f>(y, x), named.at<cv::Vec3f>(i), cv::NORM_L2SQR);
        if (distance >= best) continue;
        best = distance;
        labels.at<std::uint8_t>(y, x) = static_cast<std::uint8_t>(i);
      }
    }
  return labels;
}

/// 255 where the colour is near the border's median and a path of such pixels leads to the border.
cv::Mat background_of(const cv::Mat& lab) {
  std::array<std::vector<float>, 3> border;
  for (int y = 0; y < lab.rows; ++y)
    for (int x = 0; x < lab.cols; ++x)
      if (x == 0 || y == 0 || x == lab.cols - 1 || y == lab.rows - 1)
        for (std::size_t c = 0; c < border.size(); ++c)
          border[c].push_back(lab.at<cv::Vec3f>(y, x)[static_cast<int>(c)]);
  cv::Vec3f usual;
  for (std::size_t c = 0; c < border.size(); ++c) {
    const auto middle = border[c].begin() + static_cast<std::ptrdiff_t>(border[c].size() / 2);
    std::ranges::nth_element(border[c], middle);
    usual[static_cast<int>(c)] = *middle;
  }
  constexpr double kNear = 12.0;  // in L*a*b*: a clearly visible difference
  cv::Mat near(lab.size(), CV_8U, cv::Scalar(0));
  for (int y = 0; y < lab.rows; ++y)
    for (int x = 0; x < lab.cols; ++x)
      if (cv::norm(lab.at<cv::Vec3f>(y, x), usual, cv::NORM_L2) < kNear)
        near.at<std::uint8_t>(y, x) = 1;
  const auto flood = [&](int x, int y) {
    if (near.at<std::uint8_t>(y, x) == 1) cv::floodFill(near, cv::Point(x, y), cv::Scalar(255));
  };
  for (int x = 0; x < lab.cols; ++x) flood(x, 0), flood(x, lab.rows - 1);
  for (int y = 0; y < lab.rows; ++y) flood(0, y), flood(lab.cols - 1, y);
  return near == 255;
}

/// The class that most of a region's outer neighbours have; -1 for a region that fills the picture.
int surrounding_class(const cv::Mat& labels, const cv::Mat& region) {
  cv::Mat grown;
  cv::dilate(region, grown, cv::Mat());
  std::array<int, 256> count{};
  for (int y = 0; y < labels.rows; ++y)
    for (int x = 0; x < labels.cols; ++x)
      if (grown.at<std::uint8_t>(y, x) != 0 && region.at<std::uint8_t>(y, x) == 0)
        ++count[labels.at<std::uint8_t>(y, x)];
  const auto most = std::ranges::max_element(count);
  return *most == 0 ? -1 : static_cast<int>(most - count.begin());
}

/// Gives spots smaller than `least` pixels their surroundings' class, the smallest classes first.
void absorb_spots(cv::Mat& labels, int least) {
  for (int label = 0; label < kColourClasses; ++label) {
    cv::Mat numbers, statistics, centres;
    const int count =
        cv::connectedComponentsWithStats(labels == label, numbers, statistics, centres, 8);
    for (int i = 1; i < count; ++i) {
      if (statistics.at<int>(i, cv::CC_STAT_AREA) >= least) continue;
      const cv::Rect box = cv::Rect(statistics.at<int>(i, cv::CC_STAT_LEFT) - 1,
                                    statistics.at<int>(i, cv::CC_STAT_TOP) - 1,
                                    statistics.at<int>(i, cv::CC_STAT_WIDTH) + 2,
                                    statistics.at<int>(i, cv::CC_STAT_HEIGHT) + 2) &
                           cv::Rect({}, labels.size());
      const cv::Mat region = numbers(box) == i;
      cv::Mat part = labels(box);
      if (const int other = surrounding_class(part, region); other >= 0)
        part.setTo(cv::Scalar(other), region);
    }
  }
}

/// Extensions of the files that belong to pictures; none where the signal is computed.
std::vector<std::string> partner_extensions(const ControlSettings& settings) {
  if (settings.signal == ControlSignal::landmark) return {".json", ".ljson", ".pts"};
  if (settings.signal == ControlSignal::map || !settings.folder.empty())
    return {io::kImageExtensions.begin(), io::kImageExtensions.end()};
  return {};
}

std::string in_capitals(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

Error lacks_partner(const ControlSettings& settings, const fs::path& picture,
                    const std::string& more = {}) {
  return {ErrorCode::not_found, picture.string(),
          std::string("has no ") +
              (settings.signal == ControlSignal::landmark ? "landmarks" : "map") + " in " +
              (settings.folder.empty() ? "any folder" : settings.folder.string()) + more,
          "looked for " + picture.stem().string() + " with " + join(partner_extensions(settings))};
}

/// A map that covers its picture.
io::Image read_map(const fs::path& path, const io::Image& image) {
  io::Image map = io::read_image(path);
  const double proportion =
      static_cast<double>(map.width * image.height) / static_cast<double>(map.height * image.width);
  constexpr double kRounding = 0.02;
  if (std::abs(proportion - 1.0) > kRounding)
    throw Error(ErrorCode::mismatch, path.string(),
                "the map is " + std::to_string(map.width) + "x" + std::to_string(map.height) +
                    ", its picture " + std::to_string(image.width) + "x" +
                    std::to_string(image.height),
                "a map needs its picture's size");
  return map;
}

/// The signal that needs no file.
io::Image computed(const ControlSettings& settings, const io::Image& image) {
  return settings.signal == ControlSignal::canny ? canny_edges(image, settings.canny)
                                                 : draw_segmentation(segment_colours(image));
}

io::Image moved_landmarks(const fs::path& path, const io::Image& image, const Crop& crop) {
  return draw_landmarks(points_in_crop(read_landmarks(path), image, crop), crop.image.width,
                        crop.image.height);
}

}  // namespace

const char* name_of(ControlSignal signal) {
  return std::ranges::find(kControlSignalNames, signal, [](const auto& row) { return row.second; })
      ->first;
}

void describe(OptionList& list, CannyThresholds& thresholds) {
  list.add("canny_low", thresholds.low, "Lower threshold of canny");
  list.add("canny_high", thresholds.high, "Upper threshold of canny");
}

io::Image canny_edges(const io::Image& image, CannyThresholds thresholds) {
  cv::Mat edges, rgb;
  cv::Canny(view(image), edges, thresholds.low, thresholds.high);
  cv::cvtColor(edges, rgb, cv::COLOR_GRAY2RGB);
  return to_image(rgb);
}

const ColourClass& colour_class(int label) { return kClasses.at(static_cast<std::size_t>(label)); }

LabelMap segment_colours(const io::Image& image) {
  cv::Mat smooth;
  cv::medianBlur(view(image), smooth, 5);
  const cv::Mat lab = to_lab(smooth);
  cv::Mat labels = nearest_classes(lab);
  labels.setTo(cv::Scalar(0), background_of(lab));
  constexpr double kSpot = 0.002;
  absorb_spots(labels, static_cast<int>(kSpot * static_cast<double>(labels.total())));
  LabelMap map{image.width, image.height, {}};
  map.labels.assign(labels.datastart, labels.dataend);
  return map;
}

io::Image draw_segmentation(const LabelMap& map) {
  io::Image image{map.width, map.height, {}};
  image.pixels.reserve(map.labels.size() * 3);
  for (const std::uint8_t label : map.labels) {
    const ColourClass& colour = colour_class(label);
    for (const std::uint8_t value : {colour.red, colour.green, colour.blue})
      image.pixels.push_back(value);
  }
  return image;
}

io::Image control_picture(const ControlSettings& settings, const fs::path& picture,
                          const io::Image& image, const Crop& crop) {
  if (partner_extensions(settings).empty()) return computed(settings, crop.image);
  const std::optional<fs::path> file = control_file(settings, picture);
  if (!file) throw lacks_partner(settings, picture);
  return settings.signal == ControlSignal::landmark ? moved_landmarks(*file, image, crop)
                                                    : same_crop(read_map(*file, image), crop);
}

io::Image control_picture(const ControlSettings& settings, const fs::path& picture,
                          const io::Image& image) {
  if (partner_extensions(settings).empty()) return computed(settings, image);
  const std::optional<fs::path> file = control_file(settings, picture);
  if (!file) throw lacks_partner(settings, picture);
  return settings.signal == ControlSignal::landmark
             ? draw_landmarks(read_landmarks(*file), image.width, image.height)
             : io::resize_image(read_map(*file, image), image.width, image.height);
}

void check_control_file(const ControlSettings& settings, const fs::path& picture,
                        const io::Image& image) {
  if (partner_extensions(settings).empty()) return;
  const std::optional<fs::path> file = control_file(settings, picture);
  if (!file) throw lacks_partner(settings, picture);
  if (settings.signal == ControlSignal::landmark)
    read_landmarks(*file);
  else
    read_map(*file, image);
}

void check_signal_folder(const ControlSettings& settings, const Field& option) {
  const bool given =
      settings.signal == ControlSignal::map || settings.signal == ControlSignal::landmark;
  if (given && settings.folder.empty())
    throw Error(ErrorCode::invalid_argument, option,
                std::string("is missing: a ") + name_of(settings.signal) +
                    " cannot be computed from a picture",
                "give the folder with one file per picture, of the same name");
}

void check_picture_names(std::vector<fs::path> pictures) {
  const auto name = [](const fs::path& picture) { return picture.stem().string(); };
  std::ranges::stable_sort(pictures, {}, name);
  const auto twice = std::ranges::adjacent_find(pictures, {}, name);
  if (twice == pictures.end()) return;
  const fs::path& first = *twice;
  const fs::path& second = *std::next(twice);
  throw Error(ErrorCode::invalid_argument, second.string(),
              "is called \"" + name(second) + "\" like " + first.string() +
                  ": both would use the same signal",
              "signals are matched to pictures by name: rename one");
}

std::optional<fs::path> control_file(const ControlSettings& settings, const fs::path& picture) {
  const std::string name = picture.stem().string();
  for (const std::string& extension : partner_extensions(settings))
    for (const std::string& spelling : {extension, in_capitals(extension)})
      if (const fs::path path = settings.folder / (name + spelling); fs::is_regular_file(path))
        return path;
  return std::nullopt;
}

void check_control_files(const ControlSettings& settings, const std::vector<fs::path>& pictures) {
  if (partner_extensions(settings).empty()) return;
  check_picture_names(pictures);
  const auto lacks = [&](const fs::path& picture) { return !control_file(settings, picture); };
  const auto missing = std::ranges::count_if(pictures, lacks);
  if (missing == 0) return;
  throw lacks_partner(settings, *std::ranges::find_if(pictures, lacks),
                      " (" + std::to_string(missing) + " of " + std::to_string(pictures.size()) +
                          " pictures have none)");
}

std::vector<fs::path> control_files(const ControlSettings& settings,
                                    const std::vector<fs::path>& pictures) {
  check_control_files(settings, pictures);
  std::vector<fs::path> files;
  for (const fs::path& picture : pictures)
    if (const auto file = control_file(settings, picture)) files.push_back(*file);
  return files;
}

}  // namespace ringlet::data
