// System calls of this process that can be told to fail, to end the process, or to be recorded. A
// shared library that stands before libc: linked to a test, or preloaded to a program
// (LD_PRELOAD), which then takes its orders from the environment:
//
//   RINGLET_FAULT_FOLDER=/a/folder   only calls on files below it count
//   RINGLET_FAULT_NTH=3              the third of them
//   RINGLET_FAULT_ACTION=kill        what happens to it: kill, or the number of an error
#pragma once

#include <string>
#include <vector>

namespace ringlet::faults {

/// Calls that change a folder or bring it to the disk.
enum class Call { open, write, fsync, rename, unlink, truncate };

enum class Action {
  fail,         ///< the call reports an error and does nothing
  short_write,  ///< a write writes half, other calls do their work
  kill,         ///< SIGKILL; a write has written half of its bytes then
};

struct Plan {
  std::string folder;  ///< calls on what is below it, and on itself, count
  int nth = 1;         ///< counted from now
  Action action = Action::fail;
  int error_number = 0;
  bool persistent = false;  ///< the later ones, too
};

void arm(const Plan& plan);
void disarm();
/// How many calls have counted since arm() or record().
int calls();

/// A call that has succeeded.
struct Record {
  Call call;
  std::string path, to = {};  ///< `to`: of a rename
  std::string bytes = {};     ///< that a write has written
  long size = 0;              ///< that a file was cut to
};

/// Notes all calls below the folder until recorded() takes them.
void record(const std::string& folder);
std::vector<Record> recorded();

}  // namespace ringlet::faults
