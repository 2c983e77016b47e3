#include "ringlet/core/error_list.h"

namespace ringlet {

void throw_together(const std::vector<Error>& problems, const std::string& where,
                    const std::string& what) {
  if (problems.empty()) return;
  if (problems.size() == 1) throw problems.front();
  std::string lines;
  for (const Error& problem : problems)
    lines += (lines.empty() ? "" : "\n  ") + problem.where() + ": " + problem.message();
  throw Error(problems.front().code(), where, what, lines);
}

}  // namespace ringlet
