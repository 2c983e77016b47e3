// How a run keeps to its limit of memory, and what a resumed one finds of that.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/train/run.h"

namespace ringlet::train {
namespace {

MemorySavings stored_as(nn::WeightStorage storage, std::int64_t offloaded = 0) {
  MemorySavings savings;
  savings.storage = storage;
  savings.offloaded = offloaded;
  return savings;
}

}  // namespace

MemoryChoices Run::memory_choices() const {
  return {.limit = options_.memory_limit,
          .batch_size = options_.batch_size,
          .divisible = task_->divisible(),
          .tiles = task_->tiles()};
}

/// A task that measures its need sees the network as training does.
std::optional<MemoryNeed> Run::known_need(const MemorySavings& savings) {
  if (adapters_) adapters_->set().attach();
  std::optional<MemoryNeed> need = task_->memory(learners(), savings);
  if (adapters_) adapters_->set().detach();
  return need;
}

NeedOf Run::memory_need() {
  return [this](const MemorySavings& savings) {
    std::optional<MemoryNeed> need = known_need(savings);
    if (!need)
      throw Error(ErrorCode::unsupported, Field("memory_limit"),
                  "how much memory this training needs is not known", "leave it out");
    return *std::move(need);
  };
}

bool Run::take_plan(const MemorySavings& base) {
  const std::optional<PlannedMemory> plan = plan_memory(memory_choices(), base, memory_need());
  if (!plan) return false;
  options_.savings = plan->savings;
  plan_.extra_work = plan->extra_work;
  return true;
}

/// Opens the task with the base stored so, where a run may fit then; whether it does.
bool Run::try_storage(const OpenTask& open, nn::WeightStorage storage) {
  if (storage != options_.savings.storage) {
    // What is open says about how much the other way of storing takes.
    constexpr double kCertain = 1.1;
    const std::uint64_t least = smallest_peak(memory_choices(), stored_as(storage), memory_need());
    if (static_cast<double>(least) > kCertain * static_cast<double>(options_.memory_limit))
      return false;
    options_.savings = stored_as(storage);
    open_task(open);
  }
  return take_plan(stored_as(storage));
}

/// With the base stored so, as few blocks in host memory as are needed.
bool Run::offload(const OpenTask& open, nn::WeightStorage storage) {
  MemorySavings base = stored_as(storage, task_->offloadable());
  if (base.offloaded == 0 || !plan_memory(memory_choices(), base, memory_need())) return false;
  if (storage != options_.savings.storage) {
    options_.savings = stored_as(storage);
    open_task(open);
  }
  const std::int64_t all = task_->offloadable();
  for (base.offloaded = 1; base.offloaded <= all; ++base.offloaded)
    if (take_plan(base)) return true;
  return false;
}

/// Takes the first that fits: the base as little narrowed as possible, and host memory last.
void Run::open_within_limit(const OpenTask& open) {
  open_task(open);
  const std::vector<nn::WeightStorage> storages = task_->storages();
  options_.savings = stored_as(storages.front());
  std::uint64_t smallest = std::numeric_limits<std::uint64_t>::max();
  for (const nn::WeightStorage storage : storages) {
    if (try_storage(open, storage)) return;
    smallest =
        std::min(smallest, smallest_peak(memory_choices(), stored_as(storage), memory_need()));
  }
  for (const nn::WeightStorage storage : storages) {
    if (offload(open, storage)) return;
    smallest = std::min(
        smallest,
        smallest_peak(memory_choices(), stored_as(storage, task_->offloadable()), memory_need()));
  }
  throw Error(ErrorCode::out_of_memory, Field("memory_limit"),
              "nothing fits into " + human_bytes(options_.memory_limit),
              "the smallest limit that is enough is `memory_limit=" + limit_text(smallest) +
                  "`; smaller pictures or a smaller batch need less");
}

/// A run goes on with what it began with, whatever the limit is now.
void Run::take_recorded_savings() {
  if (!checkpoint_) return;
  recorded_savings_ = CheckpointFolder::load(*checkpoint_).settings.value(kSavingsSetting, Json());
  options_.savings = savings_from_json(*recorded_savings_, checkpoint_->string());
  // Parts of a batch that ranks share are recorded for all of them.
  std::int64_t& parts = options_.savings.parts;
  parts = parts % ranks().count == 0 ? parts / ranks().count : 1;
  parts = std::min(parts, options_.batch_size);
}

}  // namespace ringlet::train
