// A view of a tensor store under other names.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/formats/row_range.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

/// Where a tensor comes from and what is done to it.
struct TensorOrigin {
  std::string name;                 ///< in the underlying store
  std::vector<RowRange> rows = {};  ///< of the first axis, in this order; empty = all
  bool transpose = false;           ///< matrix stored as [in, out]
  bool drop_kernel = false;         ///< 1x1 convolution stored for what is now a linear layer
};

class RenamedStore final : public nn::TensorStore {
 public:
  /// `lacks_text_model_level`: it is a text encoder, and has the level that `store` lacks.
  RenamedStore(std::shared_ptr<const nn::TensorStore> store,
               std::map<std::string, TensorOrigin> origins, bool lacks_text_model_level = false);

  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init& init) const override;
  std::vector<std::string> names() const override;
  std::string description() const override { return store_->description(); }
  void release() const override { store_->release(); }
  bool lacks_text_model_level() const { return lacks_text_model_level_; }

  /// Tensors of this store under the names and in the form of the underlying one: what has to be
  /// written there in place of what it holds. Its types are kept.
  std::map<std::string, at::Tensor> in_origin(
      const std::map<std::string, at::Tensor>& tensors) const;

 private:
  std::shared_ptr<const nn::TensorStore> store_;
  std::map<std::string, TensorOrigin> origins_;
  bool lacks_text_model_level_;
  bool makes_tensors_;  ///< the underlying store's are no views of a file
};

/// An autoencoder's store with the attention names of today (to_q, …): files written before
/// diffusers 0.14 say query, key, value and proj_attn. Returns `store` itself when it is current.
std::shared_ptr<const nn::TensorStore> with_current_attention_names(
    std::shared_ptr<const nn::TensorStore> store);

/// A CLIP text encoder's store with the level "text_model." in its names (nn/text_model_level.h),
/// which files of transformers 5.6 and later lack. Returns `store` itself when it has the level, or
/// is something else than a text encoder alone.
std::shared_ptr<const nn::TensorStore> with_text_model_level(
    std::shared_ptr<const nn::TensorStore> store);

/// Whether with_text_model_level has put the level there: the file itself is to be written without.
bool lacks_text_model_level(const nn::TensorStore& store);

}  // namespace ringlet::formats
