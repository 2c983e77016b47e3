#include "nodes_plan.h"

#include <charconv>
#include <cstdio>
#include <sstream>

#include <nlohmann/json.hpp>

#include "options.h"
#include "ringlet/core/error.h"
#include "ringlet/train/scaling.h"

namespace ringlet::app {
namespace {

constexpr double kBytesOfGigabit = 1e9 / 8.0;
constexpr double kMicro = 1e-6;

}  // namespace

void NodesPlanOptions::add_to(OptionList& list) {
  list.add("nodes_plan", ranks,
           "Predict the time of a step for these numbers of ranks, such as 2,4,8, and stop: a few "
           "steps of one rank are measured. Under mpirun the network is measured, too")
      .or_else("no such plan");
  list.add("network_gigabits", gigabits, "Of `nodes_plan`: Gbit/s between two ranks")
      .within(Range::above(0));
  list.add("network_microseconds", microseconds, "Of `nodes_plan`: latency of a message")
      .within(Range::at_least(0));
  list.add("step_seconds", step_seconds, "Of `nodes_plan`: seconds of a step of one rank")
      .within(Range::above(0))
      .or_else("measured");
}

std::vector<std::int64_t> NodesPlanOptions::counts() const {
  std::vector<std::int64_t> found;
  std::istringstream all(ranks);
  for (std::string one; std::getline(all, one, ',');) {
    std::int64_t count = 0;
    const auto [end, problem] = std::from_chars(one.data(), one.data() + one.size(), count);
    constexpr std::int64_t kMost = 1 << 20;
    if (problem != std::errc() || end != one.data() + one.size() || count < 1 || count > kMost)
      throw Error(ErrorCode::invalid_argument, Field("nodes_plan"),
                  "\"" + one + "\" is not a number of ranks", "write it as 2,4,8");
    found.push_back(count);
  }
  return found;
}

void NodesPlanOptions::check(const CLI::App& app) const {
  counts();
  if (ranks.empty())
    refuse_given(app, {"--network-gigabits", "--network-microseconds", "--step-seconds"},
                 "it is for --nodes-plan, which is not given", "give both, or leave it out");
}

nlohmann::json plan_nodes(train::Run& run, const NodesPlanOptions& options,
                          train::ProcessGroup* group, const train::StageProgress& progress) {
  train::StepParts parts;
  parts.rank_seconds = options.step_seconds ? *options.step_seconds : run.measure_step(progress);
  parts.gradient_bytes = static_cast<double>(run.plan().parameters) * sizeof(float);
  train::Network network{options.gigabits * kBytesOfGigabit, options.microseconds * kMicro};
  if (group != nullptr) network = group->measure_network();
  nlohmann::json plan = {{"step_seconds", parts.rank_seconds},
                         {"gradient_bytes", parts.gradient_bytes},
                         {"network_gigabits", network.bytes_per_second / kBytesOfGigabit},
                         {"network_microseconds", network.latency / kMicro},
                         {"network_measured", group != nullptr}};
  plan["ranks"] = nlohmann::json::array();
  const auto examples =
      static_cast<double>(run.options().batch_size * run.options().trainer.gradient_accumulation);
  for (const std::int64_t count : options.counts()) {
    const train::StepPrediction step = train::predict_step(parts, count, network);
    plan["ranks"].push_back(
        {{"ranks", count},
         {"compute_seconds", step.compute},
         {"exchange_seconds", step.exchange},
         {"step_seconds", step.seconds()},
         {"examples_per_second", examples * static_cast<double>(count) / step.seconds()},
         {"efficiency", step.efficiency}});
  }
  return plan;
}

void print_nodes_plan(const nlohmann::json& plan) {
  std::printf("A step of one rank takes %.4g s; its gradients have %.4g MB.\n",
              plan.at("step_seconds").get<double>(), plan.at("gradient_bytes").get<double>() / 1e6);
  std::printf("Network%s: %.3g Gbit/s, %.3g us.\n",
              plan.at("network_measured").get<bool>() ? ", measured" : "",
              plan.at("network_gigabits").get<double>(),
              plan.at("network_microseconds").get<double>());
  std::printf("%8s %12s %12s %12s %12s %10s\n", "ranks", "compute s", "exchange s", "step s",
              "examples/s", "efficiency");
  for (const nlohmann::json& row : plan.at("ranks"))
    std::printf("%8lld %12.4g %12.4g %12.4g %12.4g %9.1f%%\n",
                static_cast<long long>(row.at("ranks").get<std::int64_t>()),
                row.at("compute_seconds").get<double>(), row.at("exchange_seconds").get<double>(),
                row.at("step_seconds").get<double>(), row.at("examples_per_second").get<double>(),
                100.0 * row.at("efficiency").get<double>());
}

}  // namespace ringlet::app
