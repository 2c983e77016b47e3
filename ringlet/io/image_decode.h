// The steps of decoding that pictures and label maps share. Not for users of the library.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <opencv2/core.hpp>

#include "ringlet/io/image.h"
#include "ringlet/io/image_header.h"

namespace ringlet::io {

/// The bytes of an image file. Throws Error(not_found | io | unsupported).
std::vector<std::byte> read_image_bytes(const std::filesystem::path& path,
                                        const ImageLimits& limits);

/// The header of an image within the limits. Throws Error(bad_format | unsupported).
ImageHeader read_checked_header(std::span<const std::byte> file, const std::string& where,
                                const ImageLimits& limits);

/// Undoes the camera's rotation (EXIF 2.3, tag Orientation).
cv::Mat oriented(const cv::Mat& image, int orientation);

/// cv::imdecode with an error of ours. Throws Error(bad_format).
cv::Mat decode_by_opencv(std::span<const std::byte> file, int mode, const std::string& where);

}  // namespace ringlet::io
