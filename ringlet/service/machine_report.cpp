#include "ringlet/service/machine_report.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <torch/version.h>

#include "ringlet/core/processors.h"
#include "ringlet/core/text.h"
#include "ringlet/core/version.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/device.h"
#include "ringlet/train/thread_choice.h"

namespace ringlet::service {
namespace {

std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t first = line.find_first_not_of(" \t", colon + 1);
    return first == std::string::npos ? "" : line.substr(first);
  }
  return "";
}

/// The features that matter for tensor arithmetic.
std::vector<std::string> cpu_features() {
  std::istringstream flags(proc_value("/proc/cpuinfo", "flags"));
  const std::vector<std::string> wanted = {"avx2",        "fma",      "avx512f",  "avx512_vnni",
                                           "avx512_bf16", "amx_bf16", "amx_tile", "f16c"};
  std::vector<std::string> found;
  for (std::string flag; flags >> flag;)
    if (std::ranges::find(wanted, flag) != wanted.end()) found.push_back(flag);
  return found;
}

/// "8123456 kB" to bytes.
std::uint64_t memory_bytes(const std::string& key) {
  return std::strtoull(proc_value("/proc/meminfo", key).c_str(), nullptr, 10) * 1024;
}

bool library_present(const char* name) {
  void* handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
  if (handle != nullptr) dlclose(handle);
  return handle != nullptr;
}

Json problem(const std::string& what, const std::string& fix) {
  return {{"what", what}, {"fix", fix}};
}

Json find_problems(const Json& report) {
  constexpr std::uint64_t kComfortable = std::uint64_t{6} << 30;
  Json problems = Json::array();
  const std::uint64_t available = report.at("memory").at("available_bytes");
  if (available < kComfortable)
    problems.push_back(problem("only " + human_bytes(available) +
                                   " of memory are free; Stable Diffusion 1 takes "
                                   "about 5 GiB in fp32",
                               "close other programs, or use `low_memory` with 16-bit weights"));
  const auto features = report.at("cpu").at("features").get<std::vector<std::string>>();
  if (std::ranges::find(features, "avx2") == features.end())
    problems.push_back(
        problem("the processor has no AVX2: everything will be slow", "use a newer machine"));
  const nn::CudaState cuda = nn::cuda_state();
  if (cuda.devices == 0 && (cuda.driver || std::getenv("CUDA_VISIBLE_DEVICES") != nullptr))
    problems.push_back(problem(
        std::string(cuda.driver ? "an NVIDIA driver is loaded" : "CUDA_VISIBLE_DEVICES is set") +
            ", but CUDA cannot be used: " + cuda.reason,
        cuda.fix.empty() ? "run scripts/bootstrap.sh --cuda on a machine with a GPU" : cuda.fix));
  return problems;
}

/// How many threads verbs compute with here, and what speaks for fewer.
std::string thread_advice(bool automatic, double busy) {
  if (!automatic) return "as given";
  if (busy < train::kQuiet) return "one per processor";
  return "one per processor; train and tune measure first whether fewer are faster, since other "
         "programs are at work";
}

}  // namespace

Json machine_report(const MachineReportOptions& options) {
  constexpr std::chrono::milliseconds kLook(150), kShortLook(50);
  const double busy = busy_processors(options.measure ? kLook : kShortLook);
  const nn::CudaState cuda = nn::cuda_state();
  Json out = {
      {"ringlet", kVersion},
      {"libtorch", TORCH_VERSION},
      {"opencv", io::image_library_version()},
      {"cpu",
       {{"name", proc_value("/proc/cpuinfo", "model name")},
        {"cores", std::thread::hardware_concurrency()},
        {"threads", at::get_num_threads()},
        {"thread_choice", thread_advice(options.automatic_threads, busy)},
        {"busy_processors", busy},
        {"features", cpu_features()}}},
      {"memory",
       {{"total_bytes", memory_bytes("MemTotal")},
        {"available_bytes", memory_bytes("MemAvailable")}}},
      {"cuda",
       {{"devices", cuda.devices},
        {"reason", cuda.reason},
        {"fix", cuda.fix},
        {"compute_capability", nn::compute_capability({c10::kCUDA, 0})}}},
      {"mpi", {{"present", library_present("libmpi.so") || library_present("libmpi.so.40")}}}};
  if (options.measure) {
    out["matmul_gflops"] = {{"fp32", nn::measure_matmul_speed(at::kFloat)},
                            {"bf16", nn::measure_matmul_speed(at::kBFloat16)}};
    const c10::Device device = nn::select_device("auto");
    out["auto"] = {{"device", device.str()},
                   {"precision", nn::precision_name(nn::select_precision("auto", device))},
                   {"training_precision",
                    nn::precision_name(nn::select_precision("auto", device, nn::Work::training))}};
  }
  out["problems"] = find_problems(out);
  return out;
}

}  // namespace ringlet::service
