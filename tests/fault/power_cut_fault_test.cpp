// The power fails after any system call of the saves. What was not flushed may be there, in part or
// not at all: names without their folder's flush, contents without their file's.
#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "ringlet/core/random.h"
#include "tests/fault/calls/fault_calls.h"
#include "tests/fault/toy_saving_run.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;
using faults::Call;
using faults::Record;

/// One folder as a disk with a cache keeps it.
class SimulatedDisk {
 public:
  void apply(const Record& record, const std::string& folder) {
    const std::string name = fs::path(record.path).filename().string();
    if (record.call == Call::fsync && record.path == folder) {
      flushed_names_ = names_;
    } else if (record.call == Call::open && record.path != folder) {
      if (!names_.contains(name)) names_[name] = std::make_shared<Content>();
    } else if (record.call == Call::write) {
      names_.at(name)->bytes += record.bytes;
    } else if (record.call == Call::fsync) {
      names_.at(name)->flushed = names_.at(name)->bytes;
    } else if (record.call == Call::rename) {
      names_[fs::path(record.to).filename().string()] = names_.at(name);
      names_.erase(name);
    } else if (record.call == Call::unlink) {
      names_.erase(name);
    }
  }

  /// How much survives of what was not flushed.
  enum class Loss {
    all,       ///< nothing
    contents,  ///< names do, contents do not
    none,      ///< everything: a kill without a power cut
    some,      ///< each name by chance, contents up to a chance length
  };

  /// Writes what is there when the power is back.
  void write(const fs::path& folder, Loss loss, RandomStream& random) const {
    fs::remove_all(folder);
    fs::create_directories(folder);
    for (const auto& [name, content] : surviving_names(loss, random)) {
      std::string bytes = loss == Loss::none ? content->bytes : content->flushed;
      // Bytes that came after the last flush, which none has taken away again.
      if (loss == Loss::some && content->bytes.size() > bytes.size())
        bytes = content->bytes.substr(
            0, bytes.size() + random.uniform_int(content->bytes.size() - bytes.size() + 1));
      std::ofstream(folder / name, std::ios::binary) << bytes;
    }
  }

 private:
  struct Content {
    std::string bytes, flushed;
  };
  using Names = std::map<std::string, std::shared_ptr<Content>>;

  Names surviving_names(Loss loss, RandomStream& random) const {
    if (loss == Loss::all) return flushed_names_;
    if (loss != Loss::some) return names_;
    Names mixed;
    for (const Names* source : {&flushed_names_, &names_})
      for (const auto& [name, content] : *source)
        if (present(names_, name, content) && present(flushed_names_, name, content))
          mixed[name] = content;
        else if (random.uniform() < 0.5)
          mixed[name] = content;
    return mixed;
  }
  static bool present(const Names& names, const std::string& name,
                      const std::shared_ptr<Content>& content) {
    const auto found = names.find(name);
    return found != names.end() && found->second == content;
  }

  Names names_, flushed_names_;
};

constexpr SimulatedDisk::Loss kLosses[] = {SimulatedDisk::Loss::all,  SimulatedDisk::Loss::contents,
                                           SimulatedDisk::Loss::none, SimulatedDisk::Loss::some,
                                           SimulatedDisk::Loss::some, SimulatedDisk::Loss::some};

class PowerCut : public testing::Test {
 protected:
  ~PowerCut() override { faults::recorded(); }
  TemporaryFolder folder_;
};

// Four saves, of which two stay: after the n-th the n-th can be taken, whatever is lost.
TEST_F(PowerCut, LeavesTheLastCheckpointThatWasSaved) {
  const fs::path folder = folder_ / "checkpoints", after = folder_ / "after";
  const ToySavingRun run(folder);
  Trainer trainer = run.make();
  faults::record(folder.string());
  std::vector<int> saved;  // calls so far, by step
  trainer.run([](const StepResult& step) { return step.step < 4; },
              [&](std::int64_t) { saved.push_back(faults::calls()); });
  saved.push_back(faults::calls());
  const std::vector<Record> records = faults::recorded();
  ASSERT_EQ(saved.size(), 4u);
  ASSERT_EQ(records.size(), static_cast<std::size_t>(saved.back()));
  ASSERT_GT(records.size(), 50u);
  toy_result();

  SimulatedDisk disk;
  RandomStream random = Random(9).stream("power");
  int cuts = 0;
  const LogCapture quiet;
  for (std::size_t done = 0; done <= records.size(); ++done) {
    const auto complete = std::ranges::count_if(
        saved, [&](int calls) { return static_cast<std::size_t>(calls) <= done; });
    for (const SimulatedDisk::Loss loss : kLosses) {
      SCOPED_TRACE("after call " + std::to_string(done) + ", loss " +
                   std::to_string(static_cast<int>(loss)));
      disk.write(after, loss, random);
      const auto latest = CheckpointFolder(after, 2).latest();
      const std::int64_t step = latest ? CheckpointFolder::load(*latest).step : 0;
      ASSERT_GE(step, complete);
      ASSERT_LE(step, complete + 1);
      ++cuts;
    }
    if (done % 8 == 0) {
      ASSERT_GE(resume_toy(after), complete);
    }
    if (done < records.size()) disk.apply(records[done], folder.string());
  }
  RecordProperty("power_cuts", cuts);
}

// The simulation sees what a careless writer loses: a file that was renamed before it was flushed.
TEST_F(PowerCut, LosesWhatWasNotFlushed) {
  const fs::path folder = folder_ / "careless", after = folder_ / "after";
  fs::create_directories(folder);
  faults::record(folder.string());
  const int file = ::open((folder / "a.tmp").c_str(), O_WRONLY | O_CREAT, 0666);
  ASSERT_EQ(::write(file, "content", 7), 7);
  ASSERT_EQ(::rename((folder / "a.tmp").c_str(), (folder / "a").c_str()), 0);
  ::close(file);
  const int above = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::fsync(above), 0);
  ::close(above);
  SimulatedDisk disk;
  for (const Record& record : faults::recorded()) disk.apply(record, folder.string());
  RandomStream random = Random(9).stream("power");
  disk.write(after, SimulatedDisk::Loss::all, random);
  ASSERT_TRUE(fs::exists(after / "a"));
  EXPECT_EQ(fs::file_size(after / "a"), 0u);
}

}  // namespace
}  // namespace ringlet::train
