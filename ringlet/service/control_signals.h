// Control signals of whole folders, as files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>

#include "ringlet/core/option.h"
#include "ringlet/data/control_signal.h"

namespace ringlet::service {

struct SignalRequest {
  data::ControlSettings settings;
  std::filesystem::path images;  ///< a folder of pictures, or one
  std::filesystem::path out;     ///< folder: OUT/name.png for every picture
  std::int64_t size = 0;         ///< side of squares to cut, in pixels; 0 = the pictures' sizes
};

/// All of it, as options.
void describe(OptionList& list, SignalRequest& request);

/// Called before the first signal, with none done, and after each; false stops.
using SignalObserver = std::function<bool(std::size_t done, std::size_t total)>;

/// Makes the signals and returns how many. Before the first: throws Error(invalid_argument) for a
/// folder that pictures or given signals are read from, whose files would be replaced or read
/// again, and as data::check_picture_names and check_control_files. Error(cancelled) when stopped:
/// those made so far are kept.
std::size_t make_signals(const SignalRequest& request, const SignalObserver& observer = {});

}  // namespace ringlet::service
