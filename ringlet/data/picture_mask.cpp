#include "ringlet/data/picture_mask.h"

#include <cmath>
#include <string>
#include <string_view>

#include "ringlet/core/error.h"

namespace ringlet::data {
namespace {

std::optional<std::filesystem::path> with_any_extension(const std::filesystem::path& stem) {
  for (const std::string_view extension : io::kImageExtensions)
    if (std::filesystem::path file = stem.string() + std::string(extension);
        std::filesystem::is_regular_file(file))
      return file;
  return std::nullopt;
}

}  // namespace

std::optional<std::filesystem::path> mask_file(const std::filesystem::path& picture,
                                               const std::filesystem::path& folder) {
  if (!folder.empty()) return with_any_extension(folder / picture.stem());
  const std::filesystem::path beside = picture.parent_path();
  for (const char* ending : {"-masklabel", "_mask", "-mask", "_masklabel"})
    if (auto found = with_any_extension(beside / (picture.stem().string() + ending))) return found;
  for (const char* name : {"masks", "mask"})
    if (auto found = with_any_extension(beside / name / picture.stem())) return found;
  return std::nullopt;
}

io::Image read_mask(const std::filesystem::path& file, PictureSize picture) {
  io::Image mask = io::read_image(file);
  const double proportion = static_cast<double>(mask.width * picture.height) /
                            static_cast<double>(mask.height * picture.width);
  constexpr double kRounding = 0.02;
  if (std::abs(proportion - 1.0) > kRounding)
    throw Error(ErrorCode::mismatch, file.string(),
                "the mask is " + mask.size().text() + ", its picture " + picture.text(),
                "a mask needs its picture's proportions");
  return mask;
}

}  // namespace ringlet::data
