// One adapted layer in another program's form.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/transform_residual.h"
#include "ringlet/core/json.h"
#include "ringlet/formats/adapter_format.h"
#include "ringlet/nn/layer.h"

namespace ringlet::formats {

/// Tensors by what they are (see ending()), and for PEFT the fields of its configuration.
struct LayerWriting {
  std::map<std::string, at::Tensor> tensors;
  Json config = Json::object();
  double alpha = 0.0;  ///< PEFT's and diffusers' alpha where the method has one
  double rank = 0.0;
  std::int64_t width = 0;  ///< of PEFT's OFT and BOFT, which the file's block setting must give
  std::int64_t block = 0;
  bool of_input = false;        ///< PEFT's IA3: the layer belongs to feedforward_modules
  bool fan_in_fan_out = false;  ///< PEFT's word for a weight that is stored as [in, out]
  std::string refused;          ///< why it cannot be written, if so
};

LayerWriting write_layer(AdapterFormat format, const nn::Layer& layer,
                         const adapt::TransformResidual& adapter);

/// What the files of parts/ write with; what the program has no form for ends up in `refused`.
class LayerWriter {
 public:
  LayerWriter(AdapterFormat format, const nn::Layer& layer,
              const adapt::TransformResidual& adapter);

  LayerWriting write();

  /// kohya, LyCORIS and ComfyUI, which have the same tensors.
  bool lycoris() const {
    return format_ == AdapterFormat::kohya || format_ == AdapterFormat::lycoris || comfyui();
  }
  bool comfyui() const { return format_ == AdapterFormat::comfyui; }
  bool peft() const { return format_ == AdapterFormat::peft; }
  const nn::Layer& layer() const { return layer_; }
  const adapt::LayerShape& shape() const { return shape_; }

  const std::vector<const adapt::PartSpec*>& transforms() const { return transforms_; }
  const adapt::PartSpec* residual() const { return residual_; }  ///< or null, as the next two
  const adapt::PartSpec* magnitude() const { return magnitude_; }
  const adapt::PartSpec* bias() const { return bias_; }

  /// One of the adapter's tensors, by ringlet's name.
  const at::Tensor& numbers(const std::string& parameter) const { return numbers_.at(parameter); }
  bool has(const std::string& parameter) const { return numbers_.contains(parameter); }

  void refuse(const std::string& why) { writing_.refused = why; }
  void refuse_method();
  std::string method() const { return adapter_.spec(); }  ///< for messages
  bool refused() const { return !writing_.refused.empty(); }

  void put(const std::string& what, const at::Tensor& tensor) { writing_.tensors[what] = tensor; }
  void put(const std::string& what, const char* parameter) { put(what, numbers_.at(parameter)); }
  /// alpha and rank: a tensor, or fields of the configuration.
  void put_scale(double alpha, double rank);
  /// PEFT has one size or number of blocks for all layers, which the whole file decides.
  void put_block(std::int64_t block);
  /// A field of PEFT's configuration.
  Json& config(const char* field) { return writing_.config[field]; }
  void mark_of_input() { writing_.of_input = true; }

  /// A transform of the input that mixes what PEFT's mix: whole patches of a convolution.
  bool of_patches(const adapt::PartSpec& part) const {
    return shape_.positions() == 1 || part.word("over") == "patches";
  }

 private:
  /// PEFT chooses its code by the layer's class, and not every method has it for every class.
  void check_peft_class();
  /// LoRA of a table has names of its own and both factors transposed: (B A)^t is added to it.
  void write_table();

  AdapterFormat format_;
  const nn::Layer& layer_;
  adapt::LayerShape shape_;
  const adapt::TransformResidual& adapter_;
  std::map<std::string, at::Tensor> numbers_;
  std::vector<const adapt::PartSpec*> transforms_;
  const adapt::PartSpec* residual_ = nullptr;
  const adapt::PartSpec* magnitude_ = nullptr;
  const adapt::PartSpec* bias_ = nullptr;
  LayerWriting writing_;
};

}  // namespace ringlet::formats
