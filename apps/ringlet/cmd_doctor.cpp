#include <cstdio>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "option_words.h"
#include "options.h"
#include "ringlet/core/json.h"
#include "ringlet/core/text.h"
#include "ringlet/service/machine_report.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

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
    std::printf("problem  %s\n         fix: %s\n", text(p.at("what")).c_str(),
                text(p.at("fix")).c_str());
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
  list.add("no_probes", no_probes, "Skip the speed measurements");
  common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  common.apply();
  Json report = service::machine_report(
      {.measure = !no_probes, .automatic_threads = common.automatic_threads()});
  for (Json& problem : report.at("problems"))
    problem.at("fix") = with_options(problem.at("fix").get<std::string>());
  if (common.json)
    print_json(report);
  else
    print(report);
  return 0;
}

}  // namespace ringlet::app
