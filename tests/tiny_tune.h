// Whole runs of `ringlet tune` on tiny networks.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "ringlet/train/run.h"
#include "ringlet/tune/task.h"

namespace ringlet::tune {

using train::ScoreRow;

/// All that `ringlet tune` takes.
struct TuneOptions : train::RunOptions {
  TaskOptions examples;
};

/// All that it says before it starts.
struct TunePlan : train::RunPlan {
  std::string network;
  std::size_t examples = 0;
};

/// A run on examples.
class Tune {
 public:
  explicit Tune(const TuneOptions& options) : run_(options, task(options.examples)) {}

  TunePlan plan() const {
    const Json json = run_.task().plan_json({});
    return {run_.plan(), json.at("network"), json.at("examples")};
  }
  bool run(const train::StepObserver& observer = {}) {
    return run_.run({.progress = {}, .step = observer});
  }
  std::vector<ScoreRow> scores() const { return run_.scores(); }
  std::filesystem::path result() const { return run_.result(); }

 private:
  train::Run run_;
};

}  // namespace ringlet::tune
