// Training states on disk: a file per checkpoint with its hash beside it, the last few kept.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"

namespace ringlet::train {

/// Everything that can influence a later step; the data order and all noise are functions of the
/// seed and the step, so the step stands for them.
struct TrainState {
  std::int64_t step = 0;     ///< steps done
  std::int64_t updates = 0;  ///< optimiser updates done (skipped steps make none)
  std::int64_t skipped = 0;  ///< steps without an update since the start
  Json settings;             ///< what the run was started with
  std::map<std::string, at::Tensor> tensors;
  int threads = 0;  ///< that computed it: sums depend on them in their last digits; 0 = not known
  double loss_scale = 0.0;  ///< see LossScale; 0 = none
  std::int64_t loss_scale_steps = 0;
};

class CheckpointFolder {
 public:
  /// `keep` >= 1 checkpoints stay; the folder is made by the first save. Without `writes` (see
  /// DataParallel::writes) they are another rank's, which this one only reads.
  CheckpointFolder(std::filesystem::path folder, int keep, bool writes = true);

  /// Writes `step-NNNNNNNN.safetensors` atomically, and before it gets its name
  /// `step-NNNNNNNN.sha256`, in the format of sha256sum. Then removes the oldest ones beyond
  /// `keep`, and those of later steps: a run that is there again has gone back beyond damaged ones.
  /// Only names the file where this rank does not write. Refuses tensors that hold NaN or infinity:
  /// Error(non_finite). Throws Error(io | no_space).
  std::filesystem::path save(const TrainState& state) const;

  /// The newest checkpoint that is whole, or nothing where there are none. One that is not what was
  /// written is a warning, and the one before is taken. Throws Error(bad_format) where all are
  /// damaged.
  std::optional<std::filesystem::path> latest() const;

  /// The newest checkpoint by its name, whether it is whole or not, or nothing.
  std::optional<std::filesystem::path> newest() const;

  /// Compares a checkpoint with its hash; one of an earlier version that has none only has to be a
  /// file of its format. Throws Error(bad_format) that says what is damaged, and Error(io).
  static void verify(const std::filesystem::path& file);

  /// Throws Error(not_found | bad_format | unsupported).
  static TrainState load(const std::filesystem::path& file);

 private:
  std::filesystem::path folder_;
  int keep_;
  bool writes_;
};

/// Fills `own` tensors in place from a loaded state. Throws Error(mismatch) that names the first
/// tensor which is missing, unknown or of another shape or type; changes nothing then.
void restore_tensors(const std::map<std::string, at::Tensor>& own,
                     const std::map<std::string, at::Tensor>& loaded, const std::string& where);

}  // namespace ringlet::train
