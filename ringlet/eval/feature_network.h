// Networks that turn pictures into features: DINO, DINOv2, CLIP, and ringlet's own for icons.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/io/image.h"
#include "ringlet/models/text/clip_text.h"
#include "ringlet/models/vision/inception.h"
#include "ringlet/models/vision/vision_transformer.h"
#include "ringlet/tokenizers/clip_tokenizer.h"

namespace ringlet::eval {

/// How pictures are prepared, as preprocessor_config.json says.
struct Preprocessing {
  std::int64_t shortest = 224;  ///< the shorter side becomes this; 0 = `width` x `height` exactly
  std::int64_t width = 224;
  std::int64_t height = 224;
  std::int64_t crop = 224;  ///< a centred square is cut; 0 = none
  bool bicubic = true;      ///< else bilinear
  std::array<double, 3> mean = {0.485, 0.456, 0.406};
  std::array<double, 3> deviation = {0.229, 0.224, 0.225};

  /// Throws Error(bad_format | unsupported).
  static Preprocessing from_json(const Json& json, const std::string& where);

  /// What the folder's preprocessor_config.json says, or `otherwise` where there is none.
  static Preprocessing read(const std::filesystem::path& folder, const Preprocessing& otherwise);

  /// What the networks were published with: DINO resizes to the trained size, DINOv2 to 256 with a
  /// crop of 224, CLIP to the trained size with a crop, with its own mean and deviation.
  static Preprocessing usual(const models::VisionConfig& config);
};

/// [1, 3, h, w]: resampled as PIL does it, cut, scaled to [0, 1] and normalised.
at::Tensor prepared(const io::Image& image, const Preprocessing& how);

/// The last part of a path, also of one that ends with a slash.
std::string folder_name(const std::filesystem::path& folder);

/// "dino-vits16 (0123456789abcdef)": what a folder is called, and a hash of its weights, so that
/// two networks of one name are told apart.
std::string network_identity(const std::string& name, const std::filesystem::path& weights);

class FeatureNetwork {
 public:
  /// A folder with config.json (model_type vit, dinov2, clip or clip_vision_model) and
  /// model.safetensors; for texts (CLIP) also the tokenizer's vocab.json and merges.txt. Or with
  /// inception.safetensors alone, the tensors of pytorch-fid's weights: pictures are then brought
  /// to 299 x 299 by clean-fid's filter and to [-1, 1] as pytorch-fid does. Throws Error(not_found)
  /// that says which file is missing and what it is called where it was published, and as other
  /// networks' loading does.
  static FeatureNetwork open(const std::filesystem::path& folder, at::Device device = at::kCPU);

  const std::string& name() const { return name_; }          ///< the folder's
  const std::string& identity() const { return identity_; }  ///< name and hash of the weights
  bool reads_texts() const { return text_ != nullptr; }
  const Preprocessing& preprocessing() const { return preprocessing_; }

  /// [pictures, width], fp32 on the CPU, not normalised.
  at::Tensor features(const std::vector<io::Image>& pictures) const;

  /// [texts, width] in the space of features(). Throws Error(unsupported) for networks without
  /// texts.
  at::Tensor text_features(const std::vector<std::string>& texts) const;

 private:
  struct Text {
    tokenizers::ClipTokenizer tokenizer;
    models::ClipTextModel encoder;
  };
  FeatureNetwork(std::string name, Preprocessing preprocessing, at::Device device)
      : name_(std::move(name)), preprocessing_(preprocessing), device_(device) {}

  at::Tensor look(const io::Image& picture) const;

  std::string name_, identity_;
  Preprocessing preprocessing_;
  at::Device device_;

  std::unique_ptr<models::VisionTransformer> vision_;
  std::unique_ptr<models::InceptionV3> inception_;
  std::unique_ptr<Text> text_;
};

}  // namespace ringlet::eval
