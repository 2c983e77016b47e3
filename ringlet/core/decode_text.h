// Text files of any program as UTF-8.
#pragma once

#include <string>

namespace ringlet {

/// The text of a file as UTF-8, without a byte order mark: UTF-8 as it is, UTF-16 with its mark
/// (Unicode standard, §23.8) decoded. Throws Error(bad_format) naming `where` for other bytes, and
/// says what they look like.
std::string decode_text(std::string bytes, const std::string& where);

}  // namespace ringlet
