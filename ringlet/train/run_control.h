// A running job is steered by files in its folder: somebody asks, the run acts after its step.
//
//   OUT/requests/…-save   a request: a file whose name ends with the word; what is in it does not
//                         count. The run removes it.
//   OUT/requests.log      a line for each that the run has dealt with
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ringlet::train {

enum class RunRequest {
  sample,  ///< look at the network now, as `sample_every` does
  save,    ///< a checkpoint
  stop,    ///< a checkpoint and the end, as SIGTERM
};

inline constexpr std::array<std::pair<const char*, RunRequest>, 3> kRunRequestNames = {
    {{"sample", RunRequest::sample}, {"save", RunRequest::save}, {"stop", RunRequest::stop}}};

/// The requests of a run, on the side of the run.
class RunControl {
 public:
  /// Requests that an earlier run has left are removed, with a word in the log. Without `writes`
  /// (see DataParallel::writes) they are another rank's, and there are none here.
  RunControl(const std::filesystem::path& out, bool writes);

  /// Takes the requests that have come. Costs a look into a folder.
  void look();

  /// Whether this has been asked for and is not answered yet.
  bool asked(RunRequest what) const;

  /// Answers all requests, in the log and in requests.log, after a step and its checkpoint. `seen`
  /// says what was looked at; "" = there is nothing to look at.
  void answer_all(std::int64_t step, const std::string& seen);

 private:
  void answer(RunRequest what, std::int64_t step, const std::string& result);

  struct Pending {
    RunRequest what;
    std::string id;  ///< name of its file
  };

  std::filesystem::path out_;
  bool writes_;
  std::vector<Pending> pending_;
};

/// Asks the run of a folder; returns the request's id. Throws Error(not_found) when nobody trains
/// there, and Error(io | no_space).
std::string ask_run(const std::filesystem::path& out, RunRequest what);

/// What the run has answered: the line of requests.log, or nothing yet.
std::optional<std::string> answer_to(const std::filesystem::path& out, const std::string& id);

/// What can be seen of a run from outside.
struct RunStatus {
  std::string holder;     ///< who trains there now (RunLock::holder); "" = nobody
  std::int64_t step = 0;  ///< steps done
  double loss = 0.0;      ///< of the last one
  double seconds = 0.0;   ///< of all steps
  std::int64_t skipped = 0;
  std::string checkpoint;    ///< file name of the newest one; "" = none
  std::size_t requests = 0;  ///< that wait
  std::string last_answer;   ///< the last line of requests.log; "" = none
  bool finished = false;     ///< the result is there
};

/// Reads the folder of a run, whether it is at work or not. Throws Error(not_found) when the folder
/// holds none.
RunStatus run_status(const std::filesystem::path& out);

}  // namespace ringlet::train
