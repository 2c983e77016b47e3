#include "ringlet/draw/html.h"

#include <cstddef>
#include <cstdint>

#include "ringlet/core/text.h"

namespace ringlet::draw {
namespace {

// The browser enforces what the page promises: no script, nothing from elsewhere.
constexpr std::string_view kHead = R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark; --page: #fff; --text: #1d2127; --soft: #5b6470; --rule: #dfe3e8;
  --line: #1f6fd6; --second: #b3541e; }
@media (prefers-color-scheme: dark) { :root { --page: #15181d; --text: #e3e7ec; --soft: #9aa4b0;
  --rule: #333a44; --line: #6aabff; --second: #f0a070; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 60rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 .35rem; }
dl.summary { display: flex; flex-wrap: wrap; gap: .75rem 2.25rem; margin: 1rem 0; }
dl.summary dt { color: var(--soft); font-size: .85rem; }
dl.summary dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--rule); }
th { width: 32%; font-weight: 500; color: var(--soft); }
td { white-space: pre-line; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 1.75rem; min-width: 0; }
figcaption, p.note { color: var(--soft); font-size: .9rem; white-space: pre-line;
  overflow-wrap: anywhere; margin: .35rem 0; }
img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.pair h3 { color: var(--soft); font-weight: 500; font-size: .9rem; }
.chart { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 36rem; height: auto; }
svg text { font-size: 12px; fill: var(--soft); }
svg .rule { stroke: var(--rule); fill: none; }
svg .curve { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; }
svg .raw { stroke-width: 1; opacity: .35; }
svg .second { stroke: var(--second); }
</style>
)";

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k)
      group = group << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k)
      out += k <= count ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string out;
  for (const char c : printable(text, /*keep_line_breaks=*/true)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string html_picture(std::string_view png, std::string_view description) {
  return "<img alt=\"" + html_escape(description) + "\" src=\"data:image/png;base64," +
         base64(png) + "\">\n";
}

std::string html_table(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string table = "<table>\n<tbody>\n";
  for (const auto& [name, value] : rows)
    table += "<tr><th scope=\"row\">" + html_escape(name) + "</th><td>" + html_escape(value) +
             "</td></tr>\n";
  return table + "</tbody>\n</table>\n";
}

std::string html_page(std::string_view title, std::string_view body) {
  const std::string escaped = html_escape(title);
  return std::string(kHead) + "<title>" + escaped + "</title>\n</head>\n<body>\n<h1>" + escaped +
         "</h1>\n" + std::string(body) + "</body>\n</html>\n";
}

}  // namespace ringlet::draw
