// Host code that touches device memory.
#pragma once

namespace ringlet::device {

constexpr int kFaultStatus = 99;  ///< the exit status of a program that did it

/// From now on the program ends with a message and a backtrace when it does.
void catch_faults();

}  // namespace ringlet::device
