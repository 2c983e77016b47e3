// How much memory this process takes, as the system and its tools count it.
#pragma once

#include <cstdint>

namespace ringlet {

/// Resident bytes: memory of its own and pages of mapped files that it has touched (VmRSS; "RES"
/// in top). 0 where the system does not tell.
std::uint64_t resident_bytes();

/// The most that were resident at any time since the start (VmHWM).
std::uint64_t peak_resident_bytes();

/// Lets the peak begin again at what is resident now, where the system allows it.
void reset_peak_resident_bytes();

/// Returns memory that has been freed, but is kept between what is still in use, to the system.
/// Takes milliseconds: for the end of work that used much for a while.
void return_free_memory();

}  // namespace ringlet
