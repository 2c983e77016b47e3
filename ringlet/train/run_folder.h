// The folder that a training run writes to, whatever it trains.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "ringlet/core/json.h"
#include "ringlet/train/report.h"

namespace ringlet::train {

inline constexpr const char* kCheckpoints = "checkpoints";

/// Throws Error(invalid_argument) when the folder holds a run that is not to be resumed.
void refuse_other_run(const std::filesystem::path& out, bool resume);

/// The seed of the run whose last checkpoint is in this folder, or nothing.
std::optional<std::uint64_t> recorded_seed(const std::filesystem::path& out);

/// What people call the run: the name of its folder, as UTF-8.
std::string run_title(const std::filesystem::path& out);

/// A run's settings as the lines of its report.
Report::Pairs setting_lines(const Json& settings);

}  // namespace ringlet::train
