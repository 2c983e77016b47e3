// What a training run does to stay within a memory limit, chosen so that it costs least.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/weight_storage.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::train {

/// What a run does to take less memory.
struct MemorySavings {
  nn::RecomputedBlocks recomputed = {};  ///< in the backward pass
  std::int64_t parts = 1;  ///< of a micro-batch that are computed one after the other: the
                           ///< gradients are the whole one's, within rounding
  nn::WeightStorage storage = nn::WeightStorage::as_stored;  ///< of the frozen base
  std::int64_t tile = 0;       ///< LoadOptions::tile of the autoencoder; 0 = whole pictures
  std::int64_t offloaded = 0;  ///< blocks of the denoiser in host memory (pipeline/offload.h)

  bool any() const;
};

/// Their name among a run's settings.
inline constexpr const char* kSavingsSetting = "memory savings";

/// For a run's settings: a resumed run repeats what was chosen. Null for no savings.
Json to_json(const MemorySavings& savings);
/// Throws Error(bad_format) at `where`.
MemorySavings savings_from_json(const Json& json, const std::string& where);

/// What a run with certain parts, storage and tile needs, in bytes.
struct MemoryNeed {
  std::uint64_t beside = 0;  ///< a step's activations: weights, what learns, the program
  std::uint64_t apart = 0;   ///< the most at other times: when pictures are coded and sampled
  std::vector<pipeline::StepBlock> blocks;  ///< of a step

  std::uint64_t peak(const nn::RecomputedBlocks& recomputed) const;
  /// Operations of the blocks that are computed again, relative to those of a step.
  double extra_work(const nn::RecomputedBlocks& recomputed) const;
};

/// The blocks to compute again so that step_peak() is at most `bytes`, at the least work; nothing
/// where not even all of them are enough. An exact optimum: a knapsack with a capacity at every
/// block, by the list of kept bytes and work that nothing beats (Nemhauser and Ullmann 1969).
/// Blocks of one name are taken together, their bytes at the first.
std::optional<nn::RecomputedBlocks> cheapest_recomputation(
    std::span<const pipeline::StepBlock> blocks, double bytes);

struct PlannedMemory {
  MemorySavings savings;
  std::uint64_t peak = 0;   ///< expected, in bytes
  double extra_work = 0.0;  ///< relative to a step without savings; estimated
};

/// What may be chosen from, each in the order of preference.
struct MemoryChoices {
  std::uint64_t limit = 0;                ///< bytes
  std::int64_t batch_size = 1;            ///< a part has one example at least
  bool divisible = false;                 ///< Task::divisible()
  std::vector<std::int64_t> tiles = {0};  ///< Task::tiles()
};

/// The need of a run with these savings; blocks that are computed again do not matter.
using NeedOf = std::function<MemoryNeed(const MemorySavings&)>;

/// With the storage and the offloaded blocks of `base`: the largest tiles that fit, and of the
/// numbers of parts, with the blocks to compute again, those that cost least. Nothing where nothing
/// fits.
std::optional<PlannedMemory> plan_memory(const MemoryChoices& choices, const MemorySavings& base,
                                         const NeedOf& need);

/// The smallest peak that can be had with them.
std::uint64_t smallest_peak(const MemoryChoices& choices, const MemorySavings& base,
                            const NeedOf& need);

/// "4 of 12 blocks are computed again, micro-batches in 2 parts, base in int8"; "" for none.
std::string text_of(const MemorySavings& savings);

/// A limit in whole MiB that is not below the bytes: "3210M".
std::string limit_text(std::uint64_t bytes);

}  // namespace ringlet::train
