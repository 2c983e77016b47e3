// Masks that say which parts of a picture a model learns from.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <utility>

#include "ringlet/core/picture_size.h"
#include "ringlet/io/image.h"

namespace ringlet::data {

/// Where masks come from: files beside the pictures or in a folder, or the pictures' alpha.
enum class MaskSource { off, files, alpha };

inline constexpr std::array<std::pair<const char*, MaskSource>, 3> kMaskSourceNames = {
    {{"off", MaskSource::off}, {"files", MaskSource::files}, {"alpha", MaskSource::alpha}}};

/// The mask file of a picture. In a folder that is given it has the picture's name, with any
/// extension of pictures; without one it lies beside the picture as NAME-masklabel.png
/// (OneTrainer), NAME_mask.png or NAME-mask.png, or in a subfolder "masks" or "mask" under the
/// picture's name.
std::optional<std::filesystem::path> mask_file(const std::filesystem::path& picture,
                                               const std::filesystem::path& folder);

/// A mask of the picture's proportions; its red channel counts (kohya), so that grey masks mean
/// what they show. Throws as reading an image does, and Error(mismatch) for other proportions.
io::Image read_mask(const std::filesystem::path& file, PictureSize picture);

}  // namespace ringlet::data
