// Weight files as networks read them: numbers of 8 bits widened, and what another program has
// quantised refused.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/nn/weight_store.h"

namespace ringlet::formats {

/// A store whose fp8 tensors (e4m3 and e5m2) are read as bf16, which holds all their values. Those
/// with a scale beside them (ComfyUI's "scaled fp8": `scale_weight` or `weight_scale`, one number
/// or one per output row) are multiplied by it, in fp32. Scales and markers have no names here.
class WidenedStore final : public nn::TensorStore {
 public:
  /// `scales`: names by the weight's name. `names`: of the tensors that are no scales or markers.
  WidenedStore(std::shared_ptr<const nn::FileStore> store,
               std::map<std::string, std::string> scales, std::vector<std::string> names);

  /// Throws Error(mismatch) for a scale of another shape.
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init& init) const override;
  std::vector<std::string> names() const override { return names_; }
  std::string description() const override { return store_->description(); }
  void release() const override { store_->release(); }

  bool has_scales() const { return !scales_.empty(); }

  /// The tensors as they are in the files: for their shapes, and for their types without scales.
  const std::shared_ptr<const nn::FileStore>& stored() const { return store_; }

 private:
  std::shared_ptr<const nn::FileStore> store_;
  std::map<std::string, std::string> scales_;
  std::vector<std::string> names_;  ///< sorted
};

/// A weight file as networks read it: itself, or a WidenedStore over it. Throws Error(unsupported)
/// as refuse_quantised, and for fp8 in a form that is not known.
std::shared_ptr<const nn::TensorStore> readable_weights(
    std::shared_ptr<const nn::FileStore> weights);

/// The store itself, or the files under a WidenedStore: reading a shape there widens nothing.
std::shared_ptr<const nn::TensorStore> as_stored(
    const std::shared_ptr<const nn::TensorStore>& weights);

/// Throws Error(unsupported) that names the tensor and the program for a file that another program
/// has quantised (bitsandbytes, GPTQ, AWQ, Nunchaku, Quanto, ComfyUI in 4 bits, …).
void refuse_quantised(const io::SafetensorsFile& file);

/// The same for a configuration with "quantization_config".
void refuse_quantised(const Json& config, const std::string& where);

}  // namespace ringlet::formats
