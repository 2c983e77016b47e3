// How much of a training an adapter's file tells.
#pragma once

#include <array>
#include <utility>

namespace ringlet::adapt {

/// What goes into the file beside the numbers: nothing but what loading needs; what programs need
/// to recognise the base, and settings that are numbers and words of ringlet's own; or everything.
/// Captions and the names of files and folders are in "full" alone.
enum class MetadataLevel { none, minimum, full };

/// "minimal" is another word for "minimum", as sd-scripts calls it.
inline constexpr std::array<std::pair<const char*, MetadataLevel>, 4> kMetadataLevelNames = {
    {{"none", MetadataLevel::none},
     {"minimum", MetadataLevel::minimum},
     {"minimal", MetadataLevel::minimum},
     {"full", MetadataLevel::full}}};

}  // namespace ringlet::adapt
