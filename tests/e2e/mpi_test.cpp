// `mpirun ringlet train`: several processes are one run.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "ringlet/io/tensor_file.h"
#include "ringlet/train/checkpoint.h"
#include "ringlet/train/metrics_file.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

using train::CheckpointFolder;
using train::MetricsRow;

const fs::path kModule = fs::path(RINGLET_BINARY).parent_path() / "libringlet_mpi.so";
constexpr const char* kLauncher = "/usr/bin/mpirun";

class Mpi : public TinyProgram {
 protected:
  void SetUp() override {
    if (!fs::exists(kModule) || !fs::exists(kLauncher))
      GTEST_SKIP() << "Open MPI is not installed, or ringlet was built without it";
    write_model("sd1");
    train::write_pictures(folder_ / "pictures", 5);
  }

  /// With all that is drawn at random, and two class pictures that are made.
  Arguments command(const std::string& out, int steps, int batch, const Arguments& more) const {
    Arguments all = training(
        "trm(rank=2)+lora(rank=2)", std::to_string(steps), out + "/run",
        {"--batch-size", std::to_string(batch), "--class-prompt", "a cat", "--class-images",
         path(out) + "/class", "--class-count", "2", "--sample-steps", "1", "--sample-images", "1",
         "--rank-dropout", "0.2", "--caption-dropout", "0.3", "--flip"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  /// mpirun with these words.
  static ProgramResult launch(const Arguments& more, ProgramOptions options = {}) {
    Arguments words = {kLauncher, "--oversubscribe", "--bind-to", "none"};
    words.insert(words.end(), more.begin(), more.end());
    options.environment = detail::usual_environment();
    for (const char* variable : {"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"})
      options.environment->emplace_back(variable);
    return run_words(std::move(words), options);
  }

  /// `ringlet ARGUMENTS…` as that many ranks.
  static ProgramResult run_ranks(int ranks, const Arguments& arguments,
                                 const ProgramOptions& options = {}) {
    return launch(ranks_of(ranks, arguments), options);
  }

  static Arguments ranks_of(int count, const Arguments& arguments) {
    Arguments words = {"-n", std::to_string(count), RINGLET_BINARY};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return words;
  }

  std::vector<MetricsRow> metrics(const std::string& out) const {
    const fs::path file = folder_ / out / "run/metrics.csv";
    return fs::exists(file) ? train::read_metrics(file) : std::vector<MetricsRow>();
  }

  std::optional<fs::path> checkpoint(const std::string& out) const {
    return CheckpointFolder(folder_ / out / "run/checkpoints", 1).latest();
  }

  /// What the run leaves, but for events, whose names have the time.
  std::set<std::string> files_of(const std::string& out) const {
    std::set<std::string> names = names_in(folder_ / out / "run");
    std::erase_if(names, [](const std::string& name) { return name.starts_with("events."); });
    return names;
  }

  void expect_same_run(const std::string& out, const std::string& whole) const {
    const std::vector<MetricsRow> rows = metrics(out), expected = metrics(whole);
    ASSERT_EQ(rows.size(), expected.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(rows[i].step, expected[i].step);
      EXPECT_NEAR(rows[i].loss, expected[i].loss, 1e-6) << out << ", step " << i + 1;
      EXPECT_NEAR(rows[i].gradient_norm, expected[i].gradient_norm, 1e-5) << i + 1;
    }
    EXPECT_EQ(files_of(out), files_of(whole));
  }

  /// The process of a rank that trains into the folder, or 0.
  pid_t process_of(int rank, const std::string& out) const {
    const auto content = [](const fs::path& file) {
      std::ifstream stream(file, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(stream), {});
    };
    const std::string variable = "OMPI_COMM_WORLD_RANK=" + std::to_string(rank) + '\0';
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      if (content(entry.path() / "cmdline").find(path(out) + "/run") == std::string::npos) continue;
      if (content(entry.path() / "environ").find(variable) != std::string::npos)
        return std::stoi(name);
    }
    return 0;
  }

  /// A long training that is harmed in the midst of it: what mpirun said, and how long it went on
  /// afterwards.
  struct Loss {
    ProgramResult result;
    double seconds = 0.0;
  };
  using Start = std::function<ProgramResult(const Arguments&, const ProgramOptions&)>;
  Loss lose(const std::string& out, const Start& start, const std::function<void()>& harm) const {
    constexpr std::size_t kMidst = 6;
    std::chrono::steady_clock::time_point at;
    ProgramOptions options;
    options.interrupt_when = [&] {
      if (metrics(out).size() < kMidst) return false;
      harm();
      at = std::chrono::steady_clock::now();
      return true;
    };
    options.signal = 0;  // none for mpirun itself
    Loss loss;
    loss.result =
        start(command(out, 100000, 1, {"--checkpoint-every", "5", "--rank-timeout", "3"}), options);
    loss.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - at).count();
    return loss;
  }

  /// The same where a rank gets a signal.
  Loss lose(int ranks, int lost, int signal, const std::string& out) const {
    return lose(
        out,
        [&](const Arguments& arguments, const ProgramOptions& options) {
          return run_ranks(ranks, arguments, options);
        },
        [&] {
          const pid_t process = process_of(lost, out);
          ASSERT_NE(process, 0);
          kill(process, signal);
        });
  }
};

// Also with accumulation, prior preservation and everything that is drawn.
TEST_F(Mpi, RanksThatShareABatchAreOneProcess) {
  const Arguments more = {"--gradient-accumulation", "2"};
  expect_success(command("whole", 4, 4, more));
  for (const auto& [ranks, batch] : {std::pair{2, 2}, {4, 1}}) {
    const std::string out = "ranks" + std::to_string(ranks);
    const ProgramResult result = run_ranks(ranks, command(out, 4, batch, more));
    ASSERT_EQ(result.status, 0) << result.err;
    expect_same_run(out, "whole");
    // One of them speaks, and says who takes part.
    EXPECT_EQ(result.err.find("The plan:"), result.err.rfind("The plan:")) << result.err;
    EXPECT_NE(result.err.find(std::to_string(ranks) + " on 1 machine"), std::string::npos)
        << result.err;
    EXPECT_EQ(result.out.find("adapter.safetensors"), result.out.rfind("adapter.safetensors"));
  }
}

TEST_F(Mpi, ARunGoesOnWithAnotherNumberOfRanks) {
  expect_success(command("whole", 6, 4, {}));
  ASSERT_EQ(run_ranks(4, command("parts", 2, 1, {})).status, 0);
  ASSERT_EQ(run_ranks(2, command("parts", 4, 2, {"--resume"})).status, 0);
  const ProgramResult wrong = run_ranks(2, command("parts", 6, 1, {"--resume"}));
  EXPECT_NE(wrong.status, 0);
  EXPECT_NE(wrong.err.find("batch size was 4, now 2"), std::string::npos) << wrong.err;
  expect_success(command("parts", 6, 4, {"--resume"}));
  expect_same_run("parts", "whole");
}

// SIGUSR1 is what mpirun passes on, and Slurm can send before the time is up.
TEST_F(Mpi, ASignalStopsAllRanksAtOneStepWithACheckpoint) {
  ProgramOptions options;
  options.interrupt_when = [&] { return metrics("stopped").size() > 3; };
  options.signal = SIGUSR1;
  options.moment = std::chrono::milliseconds(1);
  const ProgramResult result = run_ranks(2, command("stopped", 100000, 1, {}), options);
  EXPECT_NE(result.err.find("run the same command with --resume to continue"), std::string::npos)
      << result.err;
  ASSERT_TRUE(checkpoint("stopped"));
  EXPECT_EQ(metrics("stopped").size(),
            static_cast<std::size_t>(CheckpointFolder::load(*checkpoint("stopped")).step));
}

TEST_F(Mpi, AKilledRankEndsTheRunWithItsLastCheckpointGood) {
  for (const int ranks : {2, 4}) {
    const std::string out = "killed" + std::to_string(ranks);
    const Loss loss = lose(ranks, ranks - 1, SIGKILL, out);
    EXPECT_NE(loss.result.status, 0);
    EXPECT_LT(loss.seconds, 20.0);
    ASSERT_TRUE(checkpoint(out)) << loss.result.err;
    const std::int64_t step = CheckpointFolder::load(*checkpoint(out)).step;
    EXPECT_GE(step, 5);
    if (ranks == 2) expect_success(command(out, static_cast<int>(step) + 1, ranks, {"--resume"}));
  }
}

// Rank 0 writes the step before the one in which the others are lost.
TEST_F(Mpi, AStoppedRankEndsTheRunInTimeAndIsNamed) {
  for (const int ranks : {2, 4}) {
    const std::string out = "hung" + std::to_string(ranks);
    const Loss loss = lose(ranks, 1, SIGSTOP, out);
    EXPECT_NE(loss.result.status, 0);
    EXPECT_LT(loss.seconds, 20.0) << loss.result.err;
    EXPECT_NE(loss.result.err.find("no answer from rank 1;"), std::string::npos) << loss.result.err;
    EXPECT_NE(loss.result.err.find("continue with --resume"), std::string::npos) << loss.result.err;
    ASSERT_TRUE(checkpoint(out)) << loss.result.err;
    const std::int64_t step = CheckpointFolder::load(*checkpoint(out)).step;
    EXPECT_EQ(metrics(out).size(), static_cast<std::size_t>(step));
    if (ranks == 4) expect_success(command(out, static_cast<int>(step) + 1, ranks, {"--resume"}));
  }
  const Loss first = lose(2, 0, SIGSTOP, "first");
  EXPECT_LT(first.seconds, 20.0);
  EXPECT_NE(first.result.err.find("rank 1: error: ranks: no answer from rank 0;"),
            std::string::npos)
      << first.result.err;
  EXPECT_TRUE(checkpoint("first"));
}

// An error of all ranks is said once.
TEST_F(Mpi, AnErrorOfAllRanksIsSaidOnce) {
  const ProgramResult result = run_ranks(2, command("wrong", 2, 1, {"--include", "no.such.layer"}));
  EXPECT_NE(result.status, 0);
  const std::size_t first = result.err.find("no.such.layer");
  ASSERT_NE(first, std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("ringlet: error:"), result.err.rfind("ringlet: error:"));
  EXPECT_EQ(result.err.find("rank 1: error"), std::string::npos) << result.err;
}

// Machines that do not have the same files, and commands that are not the same.
TEST_F(Mpi, WhatRanksDifferInIsNamed) {
  const auto fail = [&](const Arguments& second) {
    Arguments words = ranks_of(1, command("differs", 2, 1, {}));
    words.emplace_back(":");
    const Arguments other = ranks_of(1, second);
    words.insert(words.end(), other.begin(), other.end());
    const ProgramResult result = launch(words);
    EXPECT_NE(result.status, 0);
    return result.err;
  };
  const std::string options = fail(command("differs", 2, 1, {"--learning-rate", "1e-3"}));
  EXPECT_NE(options.find("ranks: the 2 processes differ in: learning rate"), std::string::npos)
      << options;
  Arguments elsewhere = command("differs", 2, 1, {});
  *std::ranges::find(elsewhere, path("pictures")) = path("missing");
  const std::string files = fail(elsewhere);
  EXPECT_NE(files.find("rank 1: error: " + path("missing")), std::string::npos) << files;
}

TEST_F(Mpi, NodesPlanMeasuresAndWritesNothing) {
  const ProgramResult result =
      run_ranks(2, command("plan", 2, 1, {"--nodes-plan", "1,2,64", "--json"}));
  ASSERT_EQ(result.status, 0) << result.err;
  const Json plan = parse_json(result.out, "plan").at("nodes_plan");
  EXPECT_TRUE(plan.at("network_measured"));
  EXPECT_GT(plan.at("network_gigabits"), 0.0);
  EXPECT_GT(plan.at("step_seconds"), 0.0);
  ASSERT_EQ(plan.at("ranks").size(), 3u);
  EXPECT_EQ(plan.at("ranks").at(0).at("exchange_seconds"), 0.0);
  EXPECT_GT(plan.at("ranks").at(2).at("exchange_seconds"),
            plan.at("ranks").at(1).at("exchange_seconds"));
  EXPECT_FALSE(fs::exists(folder_ / "plan/run"));
}

/// Two machines: network namespaces that hosts.sh makes.
class MpiHosts : public Mpi {
 protected:
  void SetUp() override {
    Mpi::SetUp();
    if (IsSkipped()) return;
    if (geteuid() != 0) GTEST_SKIP() << "namespaces of networks need root";
    ProgramResult up;
    for (const char* delay : {"500us", "0"}) {  // not every kernel has netem
      up = hosts({"up", name_, "2", "1gbit", delay});
      if (up.status == 0) return;
      hosts({"down", name_});
    }
    GTEST_SKIP() << "this machine makes no hosts: " << up.err;
  }
  void TearDown() override { hosts({"down", name_}); }

  static ProgramResult hosts(Arguments words, const ProgramOptions& options = {}) {
    words.insert(words.begin(), {"/bin/bash", RINGLET_SOURCE_DIR "/tests/e2e/hosts.sh"});
    return run_words(std::move(words), options);
  }

  ProgramResult run_on_hosts(const Arguments& arguments, const ProgramOptions& options = {}) const {
    Arguments words = {"run", name_, "2", RINGLET_BINARY};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return hosts(words, options);
  }

  const std::string name_ = "ringlet" + std::to_string(getpid());
};

TEST_F(MpiHosts, TwoMachinesAreOneRunAndTheirNetworkIsMeasured) {
  expect_success(command("whole", 3, 2, {}));
  const ProgramResult result = run_on_hosts(command("hosts", 3, 1, {}));
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_NE(result.err.find("2 on 2 machines"), std::string::npos) << result.err;
  expect_same_run("hosts", "whole");

  const ProgramResult measured =
      run_on_hosts(command("plan", 2, 1, {"--nodes-plan", "2", "--json"}));
  ASSERT_EQ(measured.status, 0) << measured.err;
  const double gigabits = parse_json(measured.out, "plan").at("nodes_plan").at("network_gigabits");
  EXPECT_GT(gigabits, 0.3);
  EXPECT_LT(gigabits, 1.2);  // what the hosts were given, with TCP's own bytes
}

TEST_F(MpiHosts, ALinkThatIsCutEndsTheRunInTimeWithACheckpoint) {
  const Loss loss = lose(
      "cut",
      [&](const Arguments& arguments, const ProgramOptions& options) {
        return run_on_hosts(arguments, options);
      },
      [&] {
        EXPECT_EQ(hosts({"cut", name_, "1"}).status, 0);
      });
  EXPECT_NE(loss.result.status, 0);
  EXPECT_LT(loss.seconds, 40.0) << loss.result.err;  // mpirun's own time: see hosts.sh
  EXPECT_NE(loss.result.err.find("no answer from rank 1 on " + name_ + "-h1;"), std::string::npos)
      << loss.result.err;
  ASSERT_TRUE(checkpoint("cut"));
  const std::int64_t step = CheckpointFolder::load(*checkpoint("cut")).step;
  EXPECT_EQ(metrics("cut").size(), static_cast<std::size_t>(step));
  expect_success(command("cut", static_cast<int>(step) + 2, 2, {"--resume"}));
}

// These need no MPI.
class WithoutMpi : public TinyProgram {
 protected:
  WithoutMpi() {
    write_model("sd1");
    train::write_pictures(folder_ / "pictures");
  }
};

// n runs of their own would write into one folder.
TEST_F(WithoutMpi, RanksThatCannotBeConnectedAreRefused) {
  fs::copy_file(RINGLET_BINARY, folder_ / "ringlet");  // the module is beside the other one
  ProgramOptions options;
  options.environment = detail::usual_environment();
  options.environment->emplace_back("OMPI_COMM_WORLD_SIZE=2");
  options.environment->emplace_back("OMPI_COMM_WORLD_RANK=0");
  Arguments words = training("lora(rank=2)", "2", "out", {});
  words.insert(words.begin(), path("ringlet"));
  const ProgramResult result = run_words(words, options);
  EXPECT_NE(result.status, 0);
  EXPECT_NE(result.err.find("one of 2 processes that mpirun (Open MPI) has started"),
            std::string::npos)
      << result.err;
  EXPECT_NE(result.err.find("apt-get install openmpi-bin"), std::string::npos) << result.err;
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(WithoutMpi, NodesPlanTakesTheNetworkFromItsOptions) {
  const ProgramResult result = expect_success(
      training("lora(rank=2)", "2", "out",
               {"--nodes-plan", "1,2", "--network-gigabits", "1", "--network-microseconds", "100",
                "--step-seconds", "0.5", "--json"}));
  const Json plan = parse_json(result.out, "plan").at("nodes_plan");
  EXPECT_EQ(plan.at("ranks").at(0).at("step_seconds"), 0.5);
  const double bytes = plan.at("gradient_bytes");
  EXPECT_NEAR(plan.at("ranks").at(1).at("exchange_seconds"), 100e-6 + bytes / 125e6, 1e-9);
  const ProgramResult wrong =
      run_program(training("lora(rank=2)", "2", "out", {"--nodes-plan", "2,x"}));
  EXPECT_NE(wrong.err.find("--nodes-plan: \"x\" is not a number of ranks"), std::string::npos)
      << wrong.err;
  const ProgramResult unused =
      run_program(training("lora(rank=2)", "2", "out", {"--step-seconds", "1"}));
  EXPECT_NE(unused.err.find("--step-seconds: it is for --nodes-plan"), std::string::npos)
      << unused.err;
  const ProgramResult said =
      expect_success(training("lora(rank=2)", "2", "out", {"--nodes-plan", "2", "--quiet"}));
  EXPECT_NE(said.out.find("efficiency"), std::string::npos) << said.out;
}

}  // namespace
}  // namespace ringlet::e2e
