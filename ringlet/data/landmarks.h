// Landmarks of a picture: named points in its pixels, as detectors and data sets write them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "ringlet/data/crop.h"
#include "ringlet/io/image.h"

namespace ringlet::data {

struct Point {
  double x = 0.0;  ///< pixels from the left edge
  double y = 0.0;  ///< pixels from the top edge
};

/// Points of one face or body, from
///   .pts    the 300-W data set: "version: 1", "n_points: N", then N lines "x y" in braces;
///           its pixels are counted from 1, and are given here from 0
///   .json   [[x, y], …], {"landmarks": [[x, y], …]} or {"landmarks": {"points": [[x, y], …]}}
///           (menpo's .ljson, whose points are [y, x], under the extension .ljson)
/// Throws Error(not_found | bad_format | unsupported); a point that is not finite, and a list
/// without points, are bad_format.
std::vector<Point> read_landmarks(const std::filesystem::path& path);

/// The same of what a detector wrote: a list without points means that it found nothing.
std::vector<Point> read_detected_landmarks(const std::filesystem::path& path);

/// Points of `image` in the pixels of one of its crops: with the factor and the offset that
/// the picture was resized and cut with.
std::vector<Point> points_in_crop(std::vector<Point> points, const io::Image& image,
                                  const Crop& crop);

/// Points on black: with 68 points the lines of a face as the 300-W data set numbers it, else
/// discs. Coordinates are those of the picture that is drawn.
io::Image draw_landmarks(const std::vector<Point>& points, std::int64_t width, std::int64_t height);

}  // namespace ringlet::data
