// One layer's tensors of a foreign adapter file as a method of ringlet's, and back.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/adapter_set.h"
#include "ringlet/formats/adapter_tensors.h"
#include "ringlet/formats/peft_config.h"

namespace ringlet::formats {

/// What a file's tensors of one layer mean.
struct LayerReading {
  std::string method;                         ///< method text
  std::map<std::string, at::Tensor> tensors;  ///< by ringlet's parameter: "residual.down", …
  std::map<std::string, std::string> names;   ///< the file's names of those taken as they are
};

struct ReadingContext {
  Naming naming;
  std::string path;  ///< of the layer in the network that the file's configuration speaks of
  const nn::Layer* layer;
  const PeftConfig* config = nullptr;  ///< PEFT's, or diffusers' metadata; may be missing
  bool kohya_oft = false;              ///< written by kohya's networks/oft.py
};

/// Reads one layer. `decisions` collects what had to be decided, in words. Throws
/// Error(bad_format | mismatch | unsupported) that names the file's tensor.
LayerReading read_layer(const LayerTensors& file, const ReadingContext& context,
                        std::set<std::string>& decisions);

/// A method text whose numbers come from a file. Throws Error(unsupported) that names the layer.
adapt::Method to_method(const std::string& text, const std::string& layer);

/// One layer in another program's form: tensors by what they are (see ending()), and for PEFT the
/// fields of its configuration.
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

LayerWriting write_layer(Naming naming, const nn::Layer& layer,
                         const adapt::TransformResidual& adapter);

}  // namespace ringlet::formats
