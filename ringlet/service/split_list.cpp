#include "ringlet/service/split_list.h"

#include <algorithm>

namespace ringlet::service {

std::vector<std::string> split_list(const std::string& text, const Field& option) {
  std::vector<std::string> items(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (c == ',' && depth == 0)
      items.emplace_back();
    else if (c != ' ')
      items.back() += c;
  }
  if (std::ranges::find(items, "") != items.end())
    throw Error(ErrorCode::invalid_argument, option, "\"" + text + "\" has an empty entry",
                "write a,b,c");
  return items;
}

}  // namespace ringlet::service
