// The alpha channel of a picture, apart from its colours.
#pragma once

#include <filesystem>
#include <optional>

#include "ringlet/io/image.h"

namespace ringlet::io {

/// Alpha as grey: white where the picture is opaque; nothing for a picture without alpha. EXIF
/// orientation is applied. Throws Error as read_image does, and Error(unsupported) for animations.
std::optional<Image> read_alpha(const std::filesystem::path& path, const ImageLimits& limits = {});

}  // namespace ringlet::io
