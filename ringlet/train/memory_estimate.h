// How much memory a training run is going to need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/train/memory_plan.h"

namespace ringlet::train {

/// What the need depends on besides the model.
struct MemoryRequest {
  const adapt::AdapterSet* adapters = nullptr;
  std::int64_t parameters = 0;                        ///< all that learn
  std::optional<std::uint64_t> optimizer_bytes = {};  ///< of its state; none = AdamW's
  bool average = false;                               ///< with a moving average of them
  bool full = false;                                  ///< the denoiser itself learns
  bool controlnet = false;                            ///< a ControlNet learns
  bool text = false;                                  ///< text encoders learn
  std::int64_t rows = 1;                              ///< pictures at a time
  PictureSize size = {};                              ///< of a picture
  std::int64_t sampled = 0;  ///< sample pictures at a time; 0 = none are made
  nn::WeightStorage storage = nn::WeightStorage::as_stored;  ///< of the frozen denoiser
  std::int64_t offloaded = 0;  ///< blocks of the denoiser in host memory, at least
};

/// Bytes that a run adds to what its model and adapters take when they have been made.
struct TrainingMemory {
  std::uint64_t program = 0;                ///< code and buffers that the first step brings in
  std::uint64_t weights = 0;                ///< of frozen layers that steps read: pages of files
  std::uint64_t learning = 0;               ///< gradients, the optimiser's state, a moving average
  std::uint64_t sampling = 0;               ///< activations of making pictures
  std::uint64_t coding = 0;                 ///< the autoencoder's weights and activations
  std::vector<pipeline::StepBlock> blocks;  ///< activations of a step

  std::uint64_t step(const nn::RecomputedBlocks& recomputed) const;

  /// They take turns, and the denoiser's weights are out of memory while pictures are coded.
  std::uint64_t sum(const nn::RecomputedBlocks& recomputed) const;
};

/// By walking the networks' layers and blocks; docs/performance.md compares it with measurements
/// (bench/memory.py).
TrainingMemory training_memory(const pipeline::TextToImageModel& model,
                               const MemoryRequest& request);

/// The most memory that this process will have resident at a time (peak_resident_bytes), where a
/// run begins now. Where the model is on another device, what it takes there.
MemoryNeed memory_need(const pipeline::TextToImageModel& model, const MemoryRequest& request);

}  // namespace ringlet::train
