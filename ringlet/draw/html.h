// Pages that need no other file, no network and no script.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ringlet::draw {

/// For element content and quoted attributes; control characters have no place in HTML.
std::string html_escape(std::string_view text);

/// A PNG as an <img> with its bytes inside.
std::string html_picture(std::string_view png, std::string_view description);

/// A table of names and values, a row each; both are escaped here.
std::string html_table(const std::vector<std::pair<std::string, std::string>>& rows);

/// The whole page around a body: head, style, title as heading. The body must be escaped already.
std::string html_page(std::string_view title, std::string_view body);

}  // namespace ringlet::draw
