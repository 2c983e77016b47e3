// The processors that this process may use, and how busy other programs keep them.
#pragma once

#include <chrono>

namespace ringlet {

/// How many processors the scheduler lets this process run on.
int allowed_processors();

/// How many of them are kept busy, from 0.0 to allowed_processors(), over a time in which the
/// calling process sleeps. Programs that give way (positive nice values) do not count. 0.0 where
/// the system does not tell (no /proc/stat).
double busy_processors(std::chrono::milliseconds time);

}  // namespace ringlet
