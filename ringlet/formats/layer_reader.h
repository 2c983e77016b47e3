// One layer's tensors of a foreign adapter file as a method of ringlet's.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/method.h"
#include "ringlet/adapt/part.h"
#include "ringlet/core/error.h"
#include "ringlet/formats/adapter_tensors.h"
#include "ringlet/formats/peft_config.h"
#include "ringlet/nn/layer.h"

namespace ringlet::formats {

/// What a file's tensors of one layer mean.
struct LayerReading {
  adapt::Method method;
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

/// Takes tensors out of a layer, one after the other, and makes parts of them; none may be left
/// over. What the files of parts/ read with.
class LayerReader {
 public:
  LayerReader(const LayerTensors& file, const ReadingContext& context,
              std::set<std::string>& decisions)
      : file_(file),
        context_(context),
        decisions_(decisions),
        shape_(adapt::LayerShape::of(context.layer->shape())) {}

  LayerReading read();

  const LayerTensors& file() const { return file_; }
  const ReadingContext& context() const { return context_; }
  const adapt::LayerShape& shape() const { return shape_; }
  bool of_peft() const { return context_.naming == Naming::peft; }

  bool has(const char* what) const { return file_.tensors.contains(what); }
  const std::string& name(const char* what) const { return file_.names.at(what); }
  void decide(const std::string& decision) { decisions_.insert(decision); }

  /// The layer gets this part, too. Throws Error(unsupported) for values that it cannot have.
  void add(const std::string& part, adapt::Options options = {});

  /// The same without adding it.
  adapt::PartSpec part(const std::string& name, adapt::Options options) const;

  Error bad(const char* what, const std::string& problem) const;
  /// Of numbers that no model would have: the file is at fault, whatever model it is for.
  Error damaged(const char* what, const std::string& problem) const;

  const at::Tensor& take(const char* what);
  /// A tensor that is a parameter of ringlet's as it stands.
  const at::Tensor& give(const char* what, const std::string& parameter);
  void give(const std::string& parameter, const at::Tensor& tensor);
  /// A tensor of one number.
  double scalar(const char* what);

  /// A number that everything else is multiplied by. Throws for one that only damage explains: what
  /// it scales would not be finite in fp32.
  double checked_scale(double value, const std::string& where) const;

  /// alpha, from the file, the configuration, or the rank.
  double alpha(std::int64_t rank);

  /// A PEFT configuration must be one of what the tensors are.
  void check_type(const char* type) const;
  /// And of their rank.
  void check_rank(const char* what, std::int64_t rank) const;
  bool configured(const char* flag) const;
  std::int64_t rank_of(const char* what, const at::Tensor& tensor, std::int64_t axis) const;

  /// The options of a transform of the input: PEFT's rotations of a convolution turn whole patches.
  adapt::Options over_patches(std::int64_t width) const;

 private:
  void check_finite(const std::string& what, const at::Tensor& tensor) const;

  /// PEFT keeps the weight of tables and heads beside their adapters, and loads it with them.
  void check_base();

  const LayerTensors& file_;
  const ReadingContext& context_;
  std::set<std::string>& decisions_;
  adapt::LayerShape shape_;
  LayerReading reading_;
  std::vector<adapt::PartSpec> parts_;
  std::set<std::string> used_;
};

}  // namespace ringlet::formats
