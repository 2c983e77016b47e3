// A run that is at work is steered by files in its folder.
#include "ringlet/train/run_control.h"

#include <fstream>

#include "ringlet/io/image.h"
#include "ringlet/train/run_lock.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

class RunControlled : public FineTuning {
 protected:
  /// Runs, and asks for something when it has done a step.
  bool run_and_ask(const FineTuneOptions& o, std::int64_t step, RunRequest what) {
    return FineTune(o).run({.progress = {}, .step = [&](const StepResult& result) {
                              if (result.step == step) id_ = ask_run(o.out, what);
                              return true;
                            }});
  }
  std::string id_;
};

TEST_F(RunControlled, SaveIsACheckpointAfterTheStep) {
  FineTuneOptions o = options();
  o.trainer.steps = 4;
  const LogCapture log;
  EXPECT_TRUE(run_and_ask(o, 2, RunRequest::save));
  EXPECT_EQ(answer_to(o.out, id_), "step 2  save: step-00000002.safetensors");
  EXPECT_TRUE(fs::exists(o.out / "checkpoints/step-00000002.safetensors"));
  EXPECT_TRUE(fs::exists(o.out / "checkpoints/step-00000004.safetensors"));
  EXPECT_TRUE(fs::is_empty(o.out / "requests"));
  bool told = false;
  for (const auto& [level, text] : log.messages())
    told = told || text == "step 2: as requested, save: step-00000002.safetensors";
  EXPECT_TRUE(told);
}

TEST_F(RunControlled, SampleMakesPicturesNow) {
  FineTuneOptions o = options();
  o.trainer.steps = 4;
  EXPECT_TRUE(run_and_ask(o, 2, RunRequest::sample));
  EXPECT_EQ(answer_to(o.out, id_), "step 2  sample: sample pictures");
  EXPECT_TRUE(fs::exists(o.out / "samples/step-00000002.png"));
}

// Whoever looks at the network must not change what it learns.
TEST_F(RunControlled, SteeringChangesNoNumber) {
  const FineTuneOptions whole = options("whole/run");
  FineTuneOptions o = options("parts/run");
  EXPECT_TRUE(run(whole));
  EXPECT_TRUE(run_and_ask(o, 1, RunRequest::sample));
  expect_same_metrics(o, whole);
  EXPECT_EQ(file_content(o.out / "adapter.safetensors"),
            file_content(whole.out / "adapter.safetensors"));
}

TEST_F(RunControlled, StopSavesAndEndsAndResumeGoesOn) {
  const FineTuneOptions whole = options("whole/run");
  FineTuneOptions o = options("parts/run");
  EXPECT_TRUE(run(whole));
  EXPECT_FALSE(run_and_ask(o, 2, RunRequest::stop));
  EXPECT_EQ(answer_to(o.out, id_), "step 2  stop: step-00000002.safetensors");
  EXPECT_FALSE(fs::exists(o.out / "adapter.safetensors"));
  o.resume = true;
  EXPECT_TRUE(run(o));
  expect_same_metrics(o, whole);
  EXPECT_EQ(file_content(o.out / "adapter.safetensors"),
            file_content(whole.out / "adapter.safetensors"));
}

// A file that somebody makes by hand will do; what is no request is told and removed.
TEST_F(RunControlled, AFileByHandIsARequest) {
  const FineTuneOptions o = options();
  const LogCapture log;
  EXPECT_FALSE(FineTune(o).run({.progress = {}, .step = [&](const StepResult& step) {
                                  fs::create_directories(o.out / "requests");
                                  if (step.step == 1) {
                                    std::ofstream(o.out / "requests/please");
                                    std::ofstream(o.out / "requests/.stop.tmp");
                                  }
                                  if (step.step == 2) std::ofstream(o.out / "requests/stop");
                                  return true;
                                }}));
  EXPECT_NE(log.warnings().find("please: is not a request"), std::string::npos) << log.warnings();
  EXPECT_TRUE(fs::exists(o.out / "checkpoints/step-00000002.safetensors"));
}

TEST_F(RunControlled, RequestsToAnEarlierRunAreIgnored) {
  const FineTuneOptions o = options();
  fs::create_directories(o.out / "requests");
  std::ofstream(o.out / "requests/1-1-stop");
  EXPECT_TRUE(run(o));
  EXPECT_TRUE(fs::is_empty(o.out / "requests"));
  EXPECT_FALSE(fs::exists(o.out / "requests.log"));
}

TEST_F(RunControlled, NobodyIsAskedWhereNobodyTrains) {
  expect_error(ErrorCode::not_found, "nobody is training",
               [&] { ask_run(folder_ / "run", RunRequest::save); });
  EXPECT_FALSE(fs::exists(folder_ / "run"));
  expect_error(ErrorCode::not_found, "holds no training run", [&] { run_status(folder_ / "run"); });
}

TEST_F(RunControlled, TheStatusIsWhatTheFolderSays) {
  FineTuneOptions o = options();
  o.trainer.checkpoint_every = 1;
  FineTune tuning(o);
  EXPECT_TRUE(tuning.run({.progress = {}, .step = [&](const StepResult& step) {
                            const RunStatus now = run_status(o.out);
                            EXPECT_NE(now.holder.find("process "), std::string::npos);
                            EXPECT_FALSE(now.finished);
                            EXPECT_EQ(now.step, step.step);
                            EXPECT_EQ(now.loss, step.loss);
                            return true;
                          }}));
  const RunStatus after = run_status(o.out);
  EXPECT_EQ(after.holder, "");
  EXPECT_TRUE(after.finished);
  EXPECT_EQ(after.step, 3);
  EXPECT_EQ(after.checkpoint, "step-00000003.safetensors");
  EXPECT_EQ(after.requests, 0u);
}

}  // namespace
}  // namespace ringlet::train
