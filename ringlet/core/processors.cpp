#include "ringlet/core/processors.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include <sched.h>

namespace ringlet {
namespace {

cpu_set_t allowed_set() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_ZERO(&set);
  return set;
}

/// Clock ticks since the start of the machine, of all allowed processors together.
struct Ticks {
  double busy = 0.0;
  double all = 0.0;
};

Ticks ticks_now() {
  const cpu_set_t allowed = allowed_set();
  std::ifstream file("/proc/stat");
  Ticks sum;
  for (std::string line; std::getline(file, line);) {
    // "cpu0 user nice system idle iowait irq softirq steal …"; the line "cpu" is the sum of all.
    if (!line.starts_with("cpu") || line.size() < 4 || line[3] == ' ') continue;
    std::istringstream fields(line.substr(3));
    std::size_t number = 0;
    double user = 0, nice = 0, system = 0, idle = 0, waiting = 0, irq = 0, soft = 0, stolen = 0;
    fields >> number >> user >> nice >> system >> idle >> waiting >> irq >> soft >> stolen;
    if (number >= CPU_SETSIZE || !CPU_ISSET(number, &allowed)) continue;
    const double busy = user + system + irq + soft + stolen;
    sum.busy += busy;
    sum.all += busy + nice + idle + waiting;
  }
  return sum;
}

}  // namespace

int allowed_processors() {
  const cpu_set_t set = allowed_set();
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

double busy_processors(std::chrono::milliseconds time) {
  const Ticks before = ticks_now();
  std::this_thread::sleep_for(time);
  const Ticks after = ticks_now();
  const double all = after.all - before.all;
  return all > 0.0 ? (after.busy - before.busy) / all * allowed_processors() : 0.0;
}

}  // namespace ringlet
