#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <nlohmann/json.hpp>
#include <torch/version.h>
#include <unistd.h>

#include "options.h"
#include "ringlet/core/json.h"
#include "ringlet/core/processors.h"
#include "ringlet/core/text.h"
#include "ringlet/core/version.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/device.h"
#include "ringlet/train/thread_choice.h"
#include "verbs.h"

namespace ringlet::app {
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

Json problem(const std::string& what, const std::string& mend) {
  return {{"what", what}, {"mend", mend}};
}

Json find_problems(const Json& report) {
  constexpr std::uint64_t kComfortable = std::uint64_t{6} << 30;
  Json problems = Json::array();
  const std::uint64_t available = report.at("memory").at("available_bytes");
  if (available < kComfortable)
    problems.push_back(problem("only " + human_bytes(available) +
                                   " of memory are free; Stable Diffusion 1 takes "
                                   "about 5 GiB in fp32",
                               "close other programs, or use --low-memory with 16-bit weights"));
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
  if (!automatic) return "as asked for";
  if (busy < train::kQuiet) return "one per processor";
  return "one per processor; train and tune measure first whether fewer are faster, since other "
         "programs are at work";
}

Json examine(bool probes, bool automatic_threads) {
  constexpr std::chrono::milliseconds kLook(150), kShortLook(50);
  const double busy = busy_processors(probes ? kLook : kShortLook);
  const nn::CudaState cuda = nn::cuda_state();
  Json out = {
      {"ringlet", kVersion},
      {"libtorch", TORCH_VERSION},
      {"opencv", io::image_library_version()},
      {"cpu",
       {{"name", proc_value("/proc/cpuinfo", "model name")},
        {"cores", std::thread::hardware_concurrency()},
        {"threads", at::get_num_threads()},
        {"thread_choice", thread_advice(automatic_threads, busy)},
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
  if (probes) {
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

void print(const Json& r) {
  const auto text = [](const Json& json) { return json.get<std::string>(); };
  const Json& cpu = r.at("cpu");
  std::printf("ringlet %s, LibTorch %s, OpenCV %s\n", text(r.at("ringlet")).c_str(),
              text(r.at("libtorch")).c_str(), text(r.at("opencv")).c_str());
  std::printf("CPU      %s, %d cores\n", text(cpu.at("name")).c_str(), cpu.at("cores").get<int>());
  const auto features = cpu.at("features").get<std::vector<std::string>>();
  std::printf("         %s\n", join(features).c_str());
  std::printf("threads  %d, %s; other programs use %.1f processors\n", cpu.at("threads").get<int>(),
              text(cpu.at("thread_choice")).c_str(), cpu.at("busy_processors").get<double>());
  std::printf("memory   %s, %s free\n",
              human_bytes(r.at("memory").at("total_bytes").get<std::uint64_t>()).c_str(),
              human_bytes(r.at("memory").at("available_bytes").get<std::uint64_t>()).c_str());
  const int devices = r.at("cuda").at("devices").get<int>();
  std::printf("GPU      %s\n", devices > 0 ? (std::to_string(devices) + " CUDA device(s)").c_str()
                                           : ("none: " + text(r.at("cuda").at("reason"))).c_str());
  std::printf("MPI      %s\n", r.at("mpi").at("present").get<bool>() ? "found" : "not found");
  if (r.contains("matmul_gflops"))
    std::printf("speed    matrix products: fp32 %.0f, bf16 %.0f GFLOP/s; \"auto\" means %s on %s\n",
                r.at("matmul_gflops").at("fp32").get<double>(),
                r.at("matmul_gflops").at("bf16").get<double>(),
                text(r.at("auto").at("precision")).c_str(),
                text(r.at("auto").at("device")).c_str());
  for (const Json& p : r.at("problems"))
    std::printf("problem  %s\n         mend: %s\n", text(p.at("what")).c_str(),
                text(p.at("mend")).c_str());
  if (r.at("problems").empty()) std::printf("no problem found\n");
}

}  // namespace

int cmd_doctor(int argc, char** argv) {
  CommonOptions common;
  bool no_probes = false;
  OptionList list;
  CLI::App app(
      "Check this machine: versions, processor, memory, GPU, MPI, speed.\nExample:\n  "
      "ringlet doctor",
      "doctor");
  list.add("no_probes", no_probes, "Leave the speed measurements out");
  common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  common.apply();
  const Json report = examine(!no_probes, common.automatic_threads());
  if (common.json)
    print_json(report);
  else
    print(report);
  return 0;
}

}  // namespace ringlet::app
