#include "ringlet/train/process_group.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <span>
#include <thread>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <dlfcn.h>
#include <unistd.h>

#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

constexpr const char* kWhere = "ranks";

// What ranks say to each other beside sums.
constexpr char kAtWork = 'w';  // "I shall come later, wait for me"
constexpr char kWhoIsThere = '?';
constexpr char kHere = '!';  // the answer

/// What a rank says of itself when the group begins.
struct Introduction {
  std::array<char, 256> host{};
  Processors processors;
};

const MpiModule& load_module(const Launch& launch) {
  // Global: MPI's own plug-ins look for its functions.
  void* const library = dlopen(kMpiModuleFile, RTLD_NOW | RTLD_GLOBAL);
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorCode::not_found, kMpiModuleFile,
                 "this is one of " + std::to_string(launch.count) + " processes that " +
                     launch.launcher + " has started, but the module that connects them cannot " +
                     "be loaded: " + why,
                 "install Open MPI (Debian, Ubuntu: apt-get install openmpi-bin libopenmpi-dev) "
                 "and build ringlet with -DRINGLET_MPI=ON, or start a single process");
  };
  if (library == nullptr) throw refuse(dlerror());
  const auto function = reinterpret_cast<MpiModuleFunction>(dlsym(library, kMpiModuleFunction));
  if (function == nullptr) throw refuse("it is another library");
  const MpiModule* const module = function();
  if (module->version != kMpiModuleVersion) throw refuse("it belongs to another ringlet");
  return *module;
}

std::string host_of(const Introduction& one) { return one.host.data(); }

}  // namespace

std::shared_ptr<ProcessGroup> ProcessGroup::join(const Launch& launch, double timeout) {
  return std::make_shared<ProcessGroup>(load_module(launch), launch, timeout);
}

ProcessGroup::ProcessGroup(const MpiModule& module, const Launch& launch, double timeout)
    : module_(&module), launch_(launch), timeout_(timeout) {
  int rank = 0, count = 0;
  check(module_->start(&rank, &count));
  if (count != launch.count)
    throw Error(ErrorCode::mismatch, kWhere,
                launch.launcher + " has started " + std::to_string(launch.count) +
                    " processes, but MPI sees " + std::to_string(count),
                "start them by the launcher of the MPI that ringlet was built with; srun needs the "
                "one that "
                "this MPI knows, for example its pmix");
  rank_ = rank;
  count_ = count;
  find_machines();
}

void ProcessGroup::check(const char* problem) const {
  if (problem != nullptr) throw Error(ErrorCode::io, kWhere, std::string("MPI: ") + problem);
}

void ProcessGroup::gather(const void* own, void* all, std::size_t bytes) {
  const std::lock_guard lock(speaking_);
  check(module_->begin_gather(own, all, bytes));
  wait();
}

void ProcessGroup::find_machines() {
  Introduction own;
  gethostname(own.host.data(), own.host.size() - 1);
  own.processors = own_processors();
  std::vector<Introduction> all(static_cast<std::size_t>(count_));
  gather(&own, all.data(), sizeof own);
  std::map<std::string, std::vector<Processors>> machines;
  std::size_t here = 0;
  for (const Introduction& one : all) {
    std::vector<Processors>& beside = machines[host_of(one)];
    if (hosts_.size() == static_cast<std::size_t>(rank_)) here = beside.size();
    beside.push_back(one.processors);
    hosts_.push_back(host_of(one));
  }
  machines_ = static_cast<std::int64_t>(machines.size());
  rank_here_ = static_cast<std::int64_t>(here);
  threads_ = threads_of_rank(machines.at(host_of(own)), here);
}

DataParallel ProcessGroup::data_parallel() {
  const auto self = shared_from_this();
  return {.rank = rank_,
          .count = count_,
          .reduce = [self](std::vector<at::Tensor>& tensors) { self->sum(tensors); },
          .while_others_wait =
              [self](const std::function<void()>& work) { self->while_others_wait(work); }};
}

std::uint64_t ProcessGroup::first_of(std::uint64_t number) {
  std::vector<std::uint64_t> all(static_cast<std::size_t>(count_));
  gather(&number, all.data(), sizeof number);
  return all.front();
}

/// All that is not in fp64 travels as one buffer in fp32. Larger sets of tensors, such as those of
/// a whole model, take several, so that the buffer stays small beside them.
void ProcessGroup::sum(std::vector<at::Tensor>& tensors) {
  constexpr std::int64_t kMostNumbers = std::int64_t{1} << 26;  // 256 MiB
  const at::NoGradGuard no_grad;
  const std::lock_guard lock(speaking_);
  std::vector<at::Tensor> together, wide;
  for (const at::Tensor& tensor : tensors)
    if (tensor.scalar_type() == at::kDouble) wide.push_back(tensor);
  std::int64_t numbers = 0;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.scalar_type() == at::kDouble) continue;
    if (numbers > 0 && numbers + tensor.numel() > kMostNumbers) {
      sum_floats(std::exchange(together, {}), std::exchange(wide, {}));
      numbers = 0;
    }
    together.push_back(tensor);
    numbers += tensor.numel();
  }
  sum_floats(together, wide);
}

/// One all-reduce for the first, and beside it one for each of the others.
void ProcessGroup::sum_floats(const std::vector<at::Tensor>& tensors,
                              const std::vector<at::Tensor>& wide) {
  std::int64_t numbers = 0;
  for (const at::Tensor& tensor : tensors) numbers += tensor.numel();
  if (!buffer_.defined() || buffer_.numel() < numbers) buffer_ = at::empty({numbers}, at::kFloat);
  const auto each = [&](const auto& action) {
    std::int64_t at = 0;
    for (const at::Tensor& tensor : tensors) {
      action(tensor, buffer_.narrow(0, at, tensor.numel()).view(tensor.sizes()));
      at += tensor.numel();
    }
  };
  each([](const at::Tensor& tensor, const at::Tensor& place) { place.copy_(tensor); });
  if (numbers > 0)
    check(module_->begin_sum(buffer_.mutable_data_ptr(), static_cast<std::size_t>(numbers), 0));
  wide_.clear();
  for (const at::Tensor& tensor : wide) {
    wide_.push_back(tensor.cpu().contiguous().clone());
    check(module_->begin_sum(wide_.back().mutable_data_ptr(),
                             static_cast<std::size_t>(tensor.numel()), 1));
  }
  wait();
  each([](const at::Tensor& tensor, const at::Tensor& place) { tensor.copy_(place); });
  for (std::size_t i = 0; i < wide.size(); ++i) wide[i].copy_(wide_[i]);
}

/// Until all that was begun is done. Words that others are at work begin the time anew.
void ProcessGroup::wait() {
  constexpr auto kBusy = std::chrono::milliseconds(1);    // quick ones
  constexpr auto kPause = std::chrono::microseconds(50);  // others may need the processor
  const Clock::time_point begin = Clock::now();
  Clock::time_point last_word = begin;
  std::vector<bool> answered(static_cast<std::size_t>(count_));
  while (true) {
    const int done = module_->done();
    if (done > 0) return;
    if (done < 0)
      throw LostRanks(ErrorCode::io, kWhere, std::string("MPI: ") + module_->problem(),
                      "a rank or its network is lost");
    if (hear(answered)) last_word = Clock::now();
    const Clock::time_point now = Clock::now();
    if (now - last_word > timeout_) throw lost();
    if (now - begin < kBusy)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(kPause);
  }
}

/// Takes the words that others have sent. Whether one of them is at work, and will come.
bool ProcessGroup::hear(std::vector<bool>& answered) {
  int from = 0;
  char word = 0;
  bool at_work = false;
  while (module_->hear(&from, &word) != 0) {
    if (word == kWhoIsThere) module_->say(from, kHere);
    at_work = at_work || word == kAtWork;
    answered[static_cast<std::size_t>(from)] = true;
  }
  return at_work;
}

void ProcessGroup::say_to_others(char word) {
  for (int other = 0; other < count_; ++other)
    if (other != rank_) module_->say(other, word);
}

/// Asks who is there, so that the message can name who is not.
LostRanks ProcessGroup::lost() {
  const auto answers = std::min<std::chrono::duration<double>>(std::chrono::seconds(2), timeout_);
  constexpr auto kPause = std::chrono::milliseconds(5);
  std::vector<bool> answered(static_cast<std::size_t>(count_));
  answered[static_cast<std::size_t>(rank_)] = true;
  say_to_others(kWhoIsThere);
  for (const Clock::time_point begin = Clock::now();
       Clock::now() - begin < answers && std::ranges::find(answered, false) != answered.end();) {
    module_->done();
    hear(answered);
    std::this_thread::sleep_for(kPause);
  }
  std::vector<std::string> silent;
  for (std::size_t i = 0; i < answered.size(); ++i)
    if (!answered[i])
      silent.push_back(std::to_string(i) +
                       (machines_ > 1 && i < hosts_.size() ? " on " + hosts_[i] : ""));
  lost_some_ = true;
  lost_first_ = !answered.front();
  const std::string who = silent.empty() ? "some ranks did not come, although all of them answer"
                                         : "no answer from rank " + ringlet::join(silent);
  return {ErrorCode::io, kWhere,
          who + "; rank " + std::to_string(rank_) + " has waited for " +
              std::to_string(std::lround(timeout_.count())) + " s",
          "it was stopped, has lost its network, or computes for longer than `rank_timeout`"};
}

/// A second thread tells the others; while the work itself waits for them, it is silent.
void ProcessGroup::while_others_wait(const std::function<void()>& work) {
  if (alone_ || finished_) return work();
  const auto interval =
      std::min<std::chrono::duration<double>>(std::chrono::seconds(1), timeout_ / 4.0);
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::thread teller([&] {
    std::vector<bool> answered(static_cast<std::size_t>(count_));
    std::unique_lock lock(mutex);
    while (!changed.wait_for(lock, interval, [&] { return done; })) {
      const std::unique_lock speaks(speaking_, std::try_to_lock);
      if (!speaks) continue;
      say_to_others(kAtWork);
      hear(answered);
    }
  });
  const auto end = [&] {
    {
      const std::lock_guard lock(mutex);
      done = true;
    }
    changed.notify_one();
    teller.join();
    alone_ = false;
  };
  alone_ = true;
  try {
    work();
  } catch (...) {
    end();
    throw;
  }
  end();
}

Network ProcessGroup::measure_network() {
  constexpr int kTimes = 10;
  constexpr std::int64_t kFew = 1, kMany = 4 << 20;  // 16 MiB
  const auto seconds = [&](std::int64_t numbers) {
    std::vector<double> measured;
    for (int i = 0; i < kTimes; ++i) {
      std::vector<at::Tensor> some = {at::ones({numbers})};
      const auto begin = Clock::now();
      sum(some);
      measured.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    }
    return std::ranges::min(measured);  // others delay it, and nothing hastens it
  };
  seconds(kMany);  // opens connections
  const double few = seconds(kFew), many = seconds(kMany);
  return fit_network(count_, few, many, static_cast<double>(kMany) * sizeof(float));
}

void ProcessGroup::finish() {
  if (finished_) return;
  std::vector<at::Tensor> none = {at::zeros({1})};
  sum(none);
  finished_ = true;
  module_->end();
}

}  // namespace ringlet::train
