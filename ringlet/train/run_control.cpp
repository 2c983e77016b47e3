#include "ringlet/train/run_control.h"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <system_error>

#include <unistd.h>

#include "ringlet/core/append_file.h"
#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/read_file.h"
#include "ringlet/train/checkpoint.h"
#include "ringlet/train/metrics_file.h"
#include "ringlet/train/run_folder.h"
#include "ringlet/train/run_lock.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRequests = "requests";
constexpr const char* kAnswers = "requests.log";

const char* word_of(RunRequest what) {
  return std::ranges::find(kRunRequestNames, what, [](const auto& row) { return row.second; })
      ->first;
}

/// What a file asks for; its name may be the word alone.
std::optional<RunRequest> request_in(const std::string& name) {
  const std::string word = name.substr(name.rfind('-') + 1);  // npos + 1 = 0
  for (const auto& [known, what] : kRunRequestNames)
    if (word == known) return what;
  return std::nullopt;
}

/// Names of the files that wait, in the order in which they came. Temporary files begin with a dot.
std::vector<std::string> waiting(const fs::path& out) {
  std::vector<std::string> names;
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator(out / kRequests, problem))
    if (const std::string name = entry.path().filename().string(); !name.starts_with('.'))
      names.push_back(name);
  std::ranges::sort(names);
  return names;
}

void remove_request(const fs::path& out, const std::string& name) {
  std::error_code problem;
  fs::remove(out / kRequests / name, problem);
}

void append_line(const fs::path& file, const std::string& line) {
  if (auto made = AppendFile::create(file)) {
    made->append(line);
    return;
  }
  AppendFile(file).append(line);
}

std::vector<std::string> answers(const fs::path& out) {
  std::error_code problem;
  if (!fs::exists(out / kAnswers, problem)) return {};
  return read_text_lines(out / kAnswers);
}

}  // namespace

RunControl::RunControl(const fs::path& out, bool writes) : out_(out), writes_(writes) {
  if (!writes_) return;
  for (const std::string& name : waiting(out_)) {
    remove_request(out_, name);
    log(LogLevel::info, "the request " + name + " was for an earlier run; it is ignored");
  }
}

void RunControl::look() {
  if (!writes_) return;
  for (const std::string& name : waiting(out_)) {
    remove_request(out_, name);
    if (const auto what = request_in(name))
      pending_.push_back({*what, name});
    else
      log(LogLevel::warning, (out_ / kRequests / name).string() +
                                 ": is not a request; names end with sample, save or stop");
  }
}

bool RunControl::asked(RunRequest what) const {
  return std::ranges::find(pending_, what, &Pending::what) != pending_.end();
}

void RunControl::answer(RunRequest what, std::int64_t step, const std::string& result) {
  for (const Pending& one : pending_) {
    if (one.what != what) continue;
    const std::string text = std::string(word_of(what)) + ": " + result;
    log(LogLevel::info, "step " + std::to_string(step) + ": as requested, " + text);
    try {
      append_line(out_ / kAnswers, one.id + "  step " + std::to_string(step) + "  " + text + "\n");
    } catch (const Error& error) {  // who asked waits in vain; the run goes on
      log(LogLevel::warning, error.what());
    }
  }
  std::erase_if(pending_, [&](const Pending& one) { return one.what == what; });
}

void RunControl::answer_all(std::int64_t step, const std::string& seen) {
  if (pending_.empty()) return;
  const auto newest = CheckpointFolder(out_ / kCheckpoints, 1).newest();
  const std::string checkpoint = newest ? newest->filename().string() : "nothing to save";
  answer(RunRequest::sample, step, seen.empty() ? "there is nothing to look at" : seen);
  answer(RunRequest::save, step, checkpoint);
  answer(RunRequest::stop, step, checkpoint);
}

std::string ask_run(const fs::path& out, RunRequest what) {
  if (RunLock::holder(out).empty())
    throw Error(ErrorCode::not_found, out.string(), "nobody is training in this folder",
                "give the folder of a run that is at work");
  make_folder(out / kRequests);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto count = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  std::string id = std::to_string(count) + "-" + std::to_string(::getpid()) + "-" + word_of(what);
  write_file_atomically(out / kRequests / id, "");
  return id;
}

std::optional<std::string> answer_to(const fs::path& out, const std::string& id) {
  for (const std::string& line : answers(out))
    if (line.starts_with(id + " ")) return line.substr(id.size() + 2);
  return std::nullopt;
}

RunStatus run_status(const fs::path& out) {
  std::error_code problem;
  RunStatus status;
  status.holder = RunLock::holder(out);
  const bool has_metrics = fs::exists(out / "metrics.csv", problem);
  if (status.holder.empty() && !has_metrics)
    throw Error(ErrorCode::not_found, out.string(), "the folder holds no training run");
  if (has_metrics)
    if (const std::vector<MetricsRow> rows = read_metrics(out / "metrics.csv"); !rows.empty()) {
      status.step = rows.back().step;
      status.loss = rows.back().loss;
      status.seconds = rows.back().seconds;
      status.skipped = rows.back().skipped;
    }
  if (const auto newest = CheckpointFolder(out / kCheckpoints, 1).newest())
    status.checkpoint = newest->filename().string();
  status.requests = waiting(out).size();
  if (const std::vector<std::string> lines = answers(out); !lines.empty())
    status.last_answer = lines.back();
  status.finished = status.holder.empty() &&
                    (fs::exists(out / "adapter.safetensors", problem) ||
                     fs::exists(out / "model", problem) || fs::exists(out / "controlnet", problem));
  return status;
}

}  // namespace ringlet::train
