// Pictures as the loss sees them: latents from the autoencoder, encoded once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/picture_size.h"
#include "ringlet/data/control_signal.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/train/text_to_image/loss_mask.h"

namespace ringlet::train {

struct CropOptions {
  PictureSize size = PictureSize::square(512);
  bool random = false;     ///< several random places instead of the centre
  bool flip = false;       ///< also mirrored
  std::uint64_t seed = 0;  ///< of the random places
};

/// One way of cutting a picture: the autoencoder's posterior over it, at the denoiser's scale.
struct EncodedCrop {
  at::Tensor mean;       ///< [C, h, w]
  at::Tensor deviation;  ///< [C, h, w]
  std::int64_t left = 0;
  std::int64_t top = 0;
  at::Tensor control = {};  ///< [3, H, W] as bytes, on the host; undefined without control
  /// The same as latents [C, h, w], on the host, for control networks that see those.
  at::Tensor control_latents = {};
  at::Tensor mask = {};  ///< weights of the loss [1, h, w]; undefined without a mask

  /// What a control network sees of it, for pipeline::control_tensor.
  const at::Tensor& seen_control() const {
    return control_latents.defined() ? control_latents : control;
  }
};

struct EncodedPicture {
  std::vector<EncodedCrop> crops;
  std::string caption;
  PictureSize size = {};                   ///< of the file
  std::string name = {};                   ///< of the file, without its folder
  std::vector<std::string> captions = {};  ///< of which one is drawn; none = `caption`
  std::optional<double> caption_dropout = {};
  std::int64_t dropout_every_epochs = 0;

  /// Every caption that may be shown.
  std::vector<std::string> all_captions() const;
};

/// Pictures to draw from. `order` lists each picture as often as an epoch shows it.
struct TrainingSet {
  std::vector<EncodedPicture> pictures;
  std::vector<std::size_t> order;

  /// The entries of `order` by the size of their latents, in the order of its first entry.
  std::vector<std::vector<std::size_t>> buckets() const;
};

/// Latents on disk under the hash of everything that they depend on: the picture's bytes, the
/// autoencoder's weights, the crop. An edited picture or another autoencoder is thus never answered
/// with old latents. An empty folder means no cache.
class LatentCache {
 public:
  LatentCache(const pipeline::TextToImageModel& model, std::filesystem::path folder);

  /// The posterior of one crop. Damaged files of the cache are replaced, with a warning.
  EncodedCrop encode(const std::string& picture_hash, const io::Image& crop, std::int64_t left,
                     std::int64_t top, bool mirrored) const;

 private:
  EncodedCrop compute(const io::Image& crop) const;

  const pipeline::TextToImageModel& model_;
  std::filesystem::path folder_;
  std::string autoencoder_hash_;  ///< of its weights and configuration
};

/// How many random places of a picture are encoded.
inline constexpr int kRandomCrops = 8;

/// Encodes all pictures, each as its PictureUse says, and makes their control pictures when
/// `control` says how; with `control_latents` those are encoded as well. `progress` is called after
/// each and stops the work with Error(cancelled) when it returns false. Throws Error as image
/// reading does, with the file's name.
TrainingSet encode_pictures(const pipeline::TextToImageModel& model,
                            const std::vector<data::Picture>& pictures, const CropOptions& options,
                            const std::filesystem::path& cache_folder,
                            const std::function<bool()>& progress = {},
                            const data::ControlSettings* control = nullptr,
                            bool control_latents = false, const MaskWeights& mask = {});

}  // namespace ringlet::train
