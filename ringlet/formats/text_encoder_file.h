// Text encoders in checkpoints and in files of their own: which one it is, and its configuration.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/formats/checkpoint_part.h"
#include "ringlet/formats/ldm/ldm_text.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

/// CLIP's of OpenAI (ViT-L), OpenCLIP's (ViT-bigG), and T5.
enum class TextEncoderKind { clip_l, clip_g, t5 };

/// "CLIP-L", "CLIP-G", "T5".
const char* name_of(TextEncoderKind kind);

/// A text encoder's tensors in a file under the names of transformers, and its configuration.
struct FoundTextEncoder {
  TextEncoderKind kind;
  LdmTextEncoder encoder;
};

/// All text encoders of a file: CLIP's under names of transformers, with the level "text_model." or
/// without, or of OpenCLIP, and T5's, behind any prefix ("text_encoders.clip_l.transformer.", "").
/// CLIP-G is told by its prefix, by OpenCLIP's names or by its width (1280). CLIP's heads are 64
/// wide and T5 counts distances up to 128, as in all that are published. Throws Error(bad_format)
/// for incomplete ones.
std::vector<FoundTextEncoder> find_text_encoders(const nn::TensorStore& store);

/// A configuration's kind, by its fields: "d_model" of T5, the activation of CLIP's; none for
/// others.
std::optional<TextEncoderKind> text_encoder_kind(const Json& config);

/// What becomes of CLIP-L's projection. Stable Diffusion 3 takes one: that of the file, or the
/// identity that its authors' code has where there is none. FLUX takes none.
enum class ClipProjection { needed, none };

/// A text encoder of `store` as a network. `projection` is for CLIP-L.
SingleFileComponent open_text_encoder(const std::shared_ptr<const nn::TensorStore>& store,
                                      FoundTextEncoder found, ClipProjection projection);

/// A store with tensors that it lacks.
class StoreWith final : public nn::TensorStore {
 public:
  StoreWith(std::shared_ptr<const nn::TensorStore> store, std::map<std::string, at::Tensor> added)
      : store_(std::move(store)), added_(std::move(added)) {}
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init& init) const override;
  std::vector<std::string> names() const override;
  void release() const override { store_->release(); }
  std::string description() const override { return store_->description(); }

  const nn::TensorStore& inner() const { return *store_; }  ///< without what is added
  bool adds(const std::string& name) const { return added_.contains(name); }

 private:
  std::shared_ptr<const nn::TensorStore> store_;
  std::map<std::string, at::Tensor> added_;
};

}  // namespace ringlet::formats
