// The Unicode half of the CLIP tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ringlet::tokenizers {

/// Normalises (NFC, runs of white space to one space, lower case without the final-sigma rule) and
/// splits into words: 's 't 're 've 'm 'll 'd, runs of letters, single digits, runs of anything
/// else that is not white space. `text` must be UTF-8.
std::vector<std::string> split_for_clip(std::string_view text);

/// The UTF-8 form of a code point.
std::string utf8_of(std::int32_t code_point);

}  // namespace ringlet::tokenizers
