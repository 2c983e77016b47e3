// PNGs whose stored numbers mean something, such as label maps of classes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "ringlet/io/image.h"

namespace ringlet::io {

struct StoredNumbers {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::vector<std::uint16_t> values;  ///< row by row
};

/// The numbers of a grey or palette PNG as they are stored, 1 to 16 bits wide; those of a palette
/// are its indices, and RGB counts as grey where all three channels agree. Nothing is scaled to
/// brightness, unlike in decode_image. Throws Error(bad_format | unsupported): a coloured PNG, one
/// with alpha and other formats hold no such numbers.
StoredNumbers decode_stored_numbers(std::span<const std::byte> file, const std::string& where,
                                    const ImageLimits& limits = {});

/// The same of a file. Throws also Error(not_found | io).
StoredNumbers read_stored_numbers(const std::filesystem::path& path,
                                  const ImageLimits& limits = {});

}  // namespace ringlet::io
