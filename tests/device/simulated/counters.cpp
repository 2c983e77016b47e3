#include "tests/device/simulated/counters.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <sstream>
#include <unordered_map>

#include <execinfo.h>

#include "tests/device/simulated/memory.h"

namespace ringlet::device {
namespace {

struct Totals {
  std::atomic<std::int64_t> allocations = 0, launches = 0, double_launches = 0, waits = 0;
  std::array<std::atomic<std::int64_t>, 2> copies = {}, copied_bytes = {};
  std::atomic<std::int64_t> pageable = 0;
};

struct Operators {
  std::shared_mutex mutex;
  std::unordered_map<const void*, std::unique_ptr<Operator>> all;
};

Totals& totals() {
  static auto* all = new Totals;
  return *all;
}

Operators& operators() {
  static auto* all = new Operators;
  return *all;
}

/// Operators that have a kernel on CUDA, and whether CUDA checks their devices without exceptions.
const std::unordered_map<std::string, bool>& kernels() {
  static const auto* all = new std::unordered_map<std::string, bool>{
#include "cuda_operators.inc"
  };
  return *all;
}

/// RINGLET_SIMULATED_SITES=1 prints where the program waits and copies, as addresses for addr2line.
void show_site(const std::string& what) {
  static const bool wanted = std::getenv("RINGLET_SIMULATED_SITES") != nullptr;
  if (!wanted) return;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  std::fprintf(stderr, "simulated device: %s\n", what.c_str());
  std::array<void*, 48> frames;
  backtrace_symbols_fd(frames.data(), backtrace(frames.data(), frames.size()), 2);
}

}  // namespace

void count_launch(Operator& op, bool with_doubles) {
  ++op.launches;
  ++totals().launches;
  if (with_doubles) ++totals().double_launches;
}

void count_wait(std::string_view what) {
  ++totals().waits;
  show_site("wait for " + std::string(what));
}

void count_copy(Direction direction, std::int64_t bytes, bool pinned) {
  const auto index = static_cast<std::size_t>(direction);
  ++totals().copies[index];
  totals().copied_bytes[index] += bytes;
  if (!pinned) ++totals().pageable;
  show_site(
      (direction == Direction::host_to_device ? "to the device, bytes: " : "to the host, bytes: ") +
      std::to_string(bytes));
}

void count_allocation() { ++totals().allocations; }

Counters read_counters() {
  const Totals& t = totals();
  Counters out;
  for (int device = 0; device < kDevices; ++device) {
    out.current_bytes += memory_use(device).current;
    out.peak_bytes += memory_use(device).peak;
  }
  out.allocations = t.allocations;
  out.launches = t.launches;
  out.double_launches = t.double_launches;
  out.waits = t.waits;
  out.host_to_device = t.copies[0];
  out.host_to_device_bytes = t.copied_bytes[0];
  out.device_to_host = t.copies[1];
  out.device_to_host_bytes = t.copied_bytes[1];
  out.pageable = t.pageable;
  return out;
}

void reset_counters() {
  Totals& t = totals();
  for (auto* each : {&t.allocations, &t.launches, &t.double_launches, &t.waits, &t.copies[0],
                     &t.copies[1], &t.copied_bytes[0], &t.copied_bytes[1], &t.pageable})
    *each = 0;
  const std::shared_lock lock(operators().mutex);
  for (const auto& [key, op] : operators().all) op->launches = 0;
  reset_peaks();
}

Operator& operator_named(const void* key, const std::string& name, const std::string& overload) {
  {
    const std::shared_lock lock(operators().mutex);
    if (const auto found = operators().all.find(key); found != operators().all.end())
      return *found->second;
  }
  static const std::set<std::string> kViews = {
      "as_strided", "view",  "_reshape_alias", "unfold", "set_",   "view_as_real",
      "resize_",    "_conj", "_neg_view",      "alias",  "detach", "view_as_complex"};
  static const std::set<std::string> kWaits = {"_local_scalar_dense",
                                               "equal",
                                               "nonzero",
                                               "masked_select",
                                               "_unique2",
                                               "unique_dim",
                                               "linalg_eig",
                                               "unique_consecutive",
                                               "bincount",
                                               "_linalg_eigvals",
                                               "histc"};
  static const std::set<std::string> kHostIndices = {"index", "_index_put_impl_", "index_put_",
                                                     "index_put", "_unsafe_index"};
  // A composite whose parts are cuDNN's: one kernel, as far as anyone can say.
  const bool convolution = name == "convolution" || name == "convolution_overrideable";
  const std::string full = name + "." + overload;
  const auto kernel = kernels().find(full);
  const std::unique_lock lock(operators().mutex);
  auto& op = operators().all[key];
  if (!op)
    op.reset(new Operator{full, kernel != kernels().end() || convolution,
                          convolution || (kernel != kernels().end() && kernel->second),
                          kViews.contains(name), kWaits.contains(name),
                          kHostIndices.contains(name)});
  return *op;
}

std::int64_t launches_with_prefix(std::string_view prefix) {
  const std::shared_lock lock(operators().mutex);
  std::int64_t sum = 0;
  for (const auto& [key, op] : operators().all)
    if (op->name.starts_with(prefix)) sum += op->launches;
  return sum;
}

std::string counters_as_json() {
  const Counters c = read_counters();
  std::ostringstream out;
  out << "{\"current_bytes\": " << c.current_bytes << ", \"peak_bytes\": " << c.peak_bytes
      << ", \"allocations\": " << c.allocations << ", \"launches\": " << c.launches
      << ", \"double_launches\": " << c.double_launches << ", \"waits\": " << c.waits
      << ", \"host_to_device\": " << c.host_to_device
      << ", \"host_to_device_bytes\": " << c.host_to_device_bytes
      << ", \"device_to_host\": " << c.device_to_host
      << ", \"device_to_host_bytes\": " << c.device_to_host_bytes
      << ", \"pageable\": " << c.pageable << ", \"devices\": [";
  for (int device = 0; device < kDevices; ++device)
    out << (device > 0 ? ", " : "") << "{\"peak_bytes\": " << memory_use(device).peak << "}";
  out << "], \"operators\": {";
  std::map<std::string, std::int64_t> sorted;
  {
    const std::shared_lock lock(operators().mutex);
    for (const auto& [key, op] : operators().all)
      if (op->launches > 0) sorted[op->name] += op->launches;
  }
  const char* comma = "";
  for (const auto& [name, launches] : sorted) {
    out << comma << '"' << name << "\": " << launches;
    comma = ", ";
  }
  out << "}}\n";
  return out.str();
}

}  // namespace ringlet::device
