#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "options.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/run_control.h"
#include "ringlet/train/run_lock.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

constexpr const char* kStatus = "status";

struct ControlRunOptions {
  CommonOptions common;
  std::filesystem::path folder;
  std::string request;
  double wait = 60.0;
};

std::vector<std::string> request_words() {
  std::vector<std::string> words;
  for (const auto& [word, what] : train::kRunRequestNames) words.emplace_back(word);
  words.emplace_back(kStatus);
  return words;
}

int show_status(const ControlRunOptions& o) {
  const train::RunStatus status = train::run_status(o.folder);
  if (o.common.json) {
    print_json({{"running", !status.holder.empty()},
                {"holder", status.holder},
                {"finished", status.finished},
                {"step", status.step},
                {"loss", status.loss},
                {"seconds", status.seconds},
                {"skipped", status.skipped},
                {"checkpoint", status.checkpoint},
                {"requests", status.requests},
                {"last_answer", status.last_answer}});
    return 0;
  }
  std::printf("%s\n", status.holder.empty() ? (status.finished ? "finished" : "not running")
                                            : printable("running: " + status.holder).c_str());
  std::printf("step %lld, loss %.4f, %.1f s, %lld skipped\n", static_cast<long long>(status.step),
              status.loss, status.seconds, static_cast<long long>(status.skipped));
  std::printf("checkpoint: %s\n", status.checkpoint.empty() ? "none" : status.checkpoint.c_str());
  if (status.requests > 0) std::printf("requests that wait: %zu\n", status.requests);
  if (!status.last_answer.empty())
    std::printf("last answer: %s\n", printable(status.last_answer).c_str());
  return 0;
}

/// The run's answer, or nothing when it does not come in time or the run ends without one.
std::optional<std::string> wait_for_answer(const ControlRunOptions& o, const std::string& id) {
  constexpr auto kPause = std::chrono::milliseconds(50);
  constexpr double kLongest = 1e6;  // more is no number of clock ticks
  const std::chrono::duration<double> patience(std::min(o.wait, kLongest));
  const auto end = std::chrono::steady_clock::now() + patience;
  while (true) {
    const bool at_work = !train::RunLock::holder(o.folder).empty();
    if (auto answer = train::answer_to(o.folder, id)) return answer;
    if (!at_work || interrupted() || std::chrono::steady_clock::now() >= end) return std::nullopt;
    std::this_thread::sleep_for(kPause);
  }
}

int ask(const ControlRunOptions& o, train::RunRequest what) {
  const std::string id = train::ask_run(o.folder, what);
  const std::optional<std::string> answer = wait_for_answer(o, id);
  if (o.common.json) {
    print_json({{"request", id}, {"answer", answer ? nlohmann::json(*answer) : nlohmann::json()}});
  } else if (answer) {
    std::printf("%s\n", printable(*answer).c_str());
  } else {
    std::printf("requested; the run answers after its step, in %s\n",
                (o.folder / "requests.log").c_str());
  }
  return 0;
}

int control_run(const ControlRunOptions& o) {
  if (o.request == kStatus) return show_status(o);
  for (const auto& [word, what] : train::kRunRequestNames)
    if (o.request == word) return ask(o, what);
  refuse_choice("request", o.request, request_words());
}

}  // namespace

int cmd_control_run(int argc, char** argv) {
  ControlRunOptions options;
  OptionList list;
  CLI::App app(
      "Steer a training run that is at work, or see how far it is: sample (pictures or scores "
      "now), save (a checkpoint), stop (a checkpoint and the end; --resume continues), status.\n"
      "Example:\n  ringlet control-run runs/dog status\n  ringlet control-run runs/dog stop",
      "control-run");
  list.add("folder", options.folder, "Folder of the run (its --out)").positional().required();
  list.add("request", word_choice("request", options.request, request_words()),
           "What the run is to do after its step")
      .positional()
      .required();
  list.add("wait", options.wait, "Most seconds to wait for the run's answer; 0 = do not wait")
      .within(Range::at_least(0));
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("control-run", [&] { return control_run(options); });
}

}  // namespace ringlet::app
