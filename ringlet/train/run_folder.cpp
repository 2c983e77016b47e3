#include "ringlet/train/run_folder.h"

#include <algorithm>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/checkpoint.h"

namespace ringlet::train {

namespace fs = std::filesystem;

void refuse_other_run(const fs::path& out, bool resume) {
  const bool has_run = nn::with_ringlet_errors(out.string(), [&] {
    return fs::is_directory(out / kCheckpoints) || fs::exists(out / "metrics.csv");
  });
  if (has_run && !resume)
    throw Error(ErrorCode::invalid_argument, out.string(), "the folder holds a training run",
                "give `resume` to continue it, or choose another `out`");
}

std::optional<std::uint64_t> recorded_seed(const fs::path& out) {
  const auto latest = CheckpointFolder(out / kCheckpoints, 1).latest();
  if (!latest) return std::nullopt;
  return json_require<std::uint64_t>(CheckpointFolder::load(*latest).settings, "seed",
                                     latest->string());
}

std::string run_title(const fs::path& out) {
  std::string name = (out.has_filename() ? out : out.parent_path()).filename().string();
  constexpr auto kOutsideAscii = [](char c) { return (c & 0x80) != 0; };
  if (!is_utf8(name)) std::ranges::replace_if(name, kOutsideAscii, '?');
  return name;
}

Report::Pairs setting_lines(const Json& settings) {
  Report::Pairs lines;
  for (const auto& [key, value] : settings.items())
    lines.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  return lines;
}

}  // namespace ringlet::train
