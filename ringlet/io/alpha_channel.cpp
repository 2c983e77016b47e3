#include "ringlet/io/alpha_channel.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "ringlet/core/error.h"
#include "ringlet/io/image_decode.h"
#include "ringlet/io/image_header.h"

namespace ringlet::io {

std::optional<Image> read_alpha(const std::filesystem::path& path, const ImageLimits& limits) {
  const std::string where = path.string();
  const std::vector<std::byte> bytes = read_image_bytes(path, limits);
  const ImageHeader header = read_checked_header(bytes, where, limits);
  if (header.format == ImageFormat::jpeg || !header.has_alpha) return std::nullopt;
  if (header.first_frame)
    throw Error(ErrorCode::unsupported, where, "the alpha channel of an animation is not read",
                "save its first frame as PNG");
  const cv::Mat pixels = decode_by_opencv(bytes, cv::IMREAD_UNCHANGED, where);
  constexpr int kChannels = 4;
  if (pixels.channels() != kChannels) return std::nullopt;
  cv::Mat alpha, narrow, grey;
  cv::extractChannel(pixels, alpha, kChannels - 1);
  alpha.convertTo(narrow, CV_8U, alpha.depth() == CV_16U ? 255.0 / 65535.0 : 1.0);
  cv::cvtColor(oriented(narrow, header.orientation), grey, cv::COLOR_GRAY2RGB);
  const cv::Mat packed = grey.isContinuous() ? grey : grey.clone();
  return Image{packed.cols, packed.rows,
               std::vector<std::uint8_t>(packed.data, packed.data + packed.total() * 3)};
}

}  // namespace ringlet::io
