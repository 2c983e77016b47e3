#include "ringlet/train/text_to_image/training_set.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include <ATen/core/grad_mode.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/random.h"
#include "ringlet/core/sha256.h"
#include "ringlet/data/crop.h"
#include "ringlet/data/picture_mask.h"
#include "ringlet/io/alpha_channel.h"
#include "ringlet/io/image.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/image_tensor.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

std::string hash_of(const nn::ModuleIndex& index) {
  Sha256 hash;
  for (const auto& [name, tensor] : index.tensors) {
    const at::Tensor bytes = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
    hash.update(std::as_bytes(std::span(name)));
    hash.update({static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()});
  }
  return hash.hex();
}

/// Latents of this shape, or nothing.
std::optional<EncodedCrop> read_cached(const fs::path& file, at::IntArrayRef shape,
                                       at::Device device) {
  if (!fs::exists(file)) return std::nullopt;
  try {
    const auto tensors = io::load_tensors(file);
    const at::Tensor &mean = tensors.at("mean"), &deviation = tensors.at("deviation");
    for (const at::Tensor& tensor : {mean, deviation})
      if (tensor.sizes() != shape || !tensor.isfinite().all().item<bool>())
        throw Error(ErrorCode::bad_format, file.string(), "not such latents");
    return EncodedCrop{mean.clone().to(device), deviation.clone().to(device), 0, 0};
  } catch (const std::exception&) {
    log(LogLevel::warning, file.string() + ": the cached latents are damaged; encoded again");
    return std::nullopt;
  }
}

bool latents_are_finite(const EncodedCrop& crop) {
  return (crop.mean.isfinite().all() & crop.deviation.isfinite().all()).item<bool>();
}

}  // namespace

std::vector<std::string> EncodedPicture::all_captions() const {
  return captions.empty() ? std::vector{caption} : captions;
}

std::vector<std::vector<std::size_t>> TrainingSet::buckets() const {
  std::vector<std::vector<std::size_t>> found;
  std::map<std::vector<std::int64_t>, std::size_t> numbers;  // by the size of latents
  for (const std::size_t entry : order) {
    const auto sizes = pictures[entry].crops.front().mean.sizes().vec();
    const auto [place, is_new] = numbers.emplace(sizes, found.size());
    if (is_new) found.emplace_back();
    found[place->second].push_back(entry);
  }
  return found;
}

LatentCache::LatentCache(const pipeline::TextToImageModel& model, fs::path folder)
    : model_(model), folder_(std::move(folder)) {
  if (folder_.empty()) return;
  make_folder(folder_, "choose another `cache`");
  std::string autoencoders;
  for (const auto& [name, network] : model.networks())
    if (network.role == pipeline::NetworkRole::autoencoder)
      autoencoders += hash_of(network.index) + network.config.dump();
  autoencoder_hash_ = sha256_text(autoencoders);
}

EncodedCrop LatentCache::compute(const io::Image& crop) const {
  at::NoGradGuard no_grad;
  const pipeline::LatentPosterior posterior = model_.encode(pipeline::image_to_tensor(crop));
  return {posterior.mean[0].contiguous(), posterior.deviation[0].contiguous(), 0, 0};
}

EncodedCrop LatentCache::encode(const std::string& picture_hash, const io::Image& crop,
                                std::int64_t left, std::int64_t top, bool mirrored) const {
  EncodedCrop encoded;
  if (folder_.empty()) {
    encoded = compute(crop);
  } else {
    const std::string key = picture_hash + autoencoder_hash_ + crop.size().short_text() + "," +
                            std::to_string(left) + "," + std::to_string(top) + "," +
                            (mirrored ? "mirrored" : "plain");
    const fs::path file = folder_ / (sha256_text(key) + ".safetensors");
    if (auto cached =
            read_cached(file, model_.latent_shape(crop.size()), model_.options().device)) {
      encoded = *std::move(cached);
    } else {
      encoded = compute(crop);
      if (latents_are_finite(encoded))
        io::save_tensors(file, {{"mean", encoded.mean}, {"deviation", encoded.deviation}});
    }
  }
  encoded.left = left;
  encoded.top = top;
  return encoded;
}

namespace {

/// How pictures become crops.
struct Encoding {
  const LatentCache& cache;
  const CropOptions& crop;
  const data::ControlSettings* control;
  bool control_latents;
  const MaskWeights& mask;
};

/// The latents of a crop's control picture, which are cached like those of pictures.
at::Tensor encoded_control(const Encoding& how, const io::Image& signal) {
  const auto bytes = std::as_bytes(std::span(signal.pixels));
  Sha256 hash;
  hash.update(bytes);
  return how.cache.encode(hash.hex(), signal, 0, 0, false).mean.to(at::kCPU);
}

/// The source of a crop with all that is cut at the same place.
struct CropSource {
  const data::Picture& picture;
  const io::Image& image;
  const std::string& hash;               ///< of the picture's file
  const std::optional<io::Image>& mask;  ///< of the whole picture
};

/// The key of the cache says where a crop lies; how far the picture was scaled follows from the
/// crop's size unless the picture keeps its own.
std::string key_of(const CropSource& source, const data::Crop& crop) {
  const PictureSize size = crop.image.size();
  const bool covers = crop.whole.width == size.width || crop.whole.height == size.height;
  return covers || source.hash.empty() ? source.hash : source.hash + " of " + crop.whole.text();
}

void add_crop(EncodedPicture& picture, const Encoding& how, const CropSource& source,
              const data::Crop& crop, const io::Image& signal, bool mirrored) {
  picture.crops.push_back(how.cache.encode(key_of(source, crop),
                                           mirrored ? data::mirrored(crop.image) : crop.image,
                                           crop.left, crop.top, mirrored));
  EncodedCrop& encoded = picture.crops.back();
  // What was cut off at the right of the mirrored picture was at the left before.
  if (mirrored) encoded.left = crop.whole.width - crop.image.width - crop.left;
  if (source.mask) {
    const io::Image part = data::same_crop(*source.mask, crop);
    encoded.mask = loss_mask(mirrored ? data::mirrored(part) : part, encoded.mean.sizes(), how.mask,
                             source.picture.path.string())
                       .to(encoded.mean.device());
  }
  if (how.control == nullptr) return;
  const io::Image hint = mirrored ? data::mirrored(signal) : signal;
  encoded.control = pipeline::image_bytes(hint)[0];
  if (how.control_latents) encoded.control_latents = encoded_control(how, hint);
}

data::Crop crop_at(const Encoding& how, const data::Picture& picture, const io::Image& image,
                   data::CropPlace where) {
  return picture.use.place ? data::bucket_crop(image, *picture.use.place, where)
                           : data::covering_crop(image, how.crop.size, where);
}

/// Whether there is just one place to cut at.
bool is_whole(const Encoding& how, const data::Picture& picture, PictureSize image) {
  if (picture.use.place) return picture.use.place->bucket == picture.use.place->scaled;
  return image.width * how.crop.size.height == image.height * how.crop.size.width;
}

std::optional<io::Image> mask_of(const data::Picture& picture, PictureSize size) {
  if (picture.use.masked_by_alpha) return io::read_alpha(picture.path);
  if (picture.use.mask.empty()) return std::nullopt;
  return data::read_mask(picture.use.mask, size);
}

EncodedPicture encode_one(const Encoding& how, const data::Picture& picture, std::size_t number,
                          const std::string& hash) {
  const io::Image image = io::read_image(picture.path);
  const std::optional<io::Image> mask = mask_of(picture, image.size());
  const CropSource source{picture, image, hash, mask};
  EncodedPicture encoded{{},
                         picture.shown_caption(),
                         image.size(),
                         picture.path.filename().string(),
                         picture.use.captions,
                         picture.use.caption_dropout,
                         picture.use.dropout_every_epochs};
  const bool random_places =
      picture.use.random_crop.value_or(how.crop.random) && !is_whole(how, picture, image.size());
  for (int place = 0; place < (random_places ? kRandomCrops : 1); ++place) {
    data::CropPlace where;
    if (random_places) {
      RandomStream random =
          Random(how.crop.seed).stream("crop", number, static_cast<std::uint64_t>(place));
      where = {random.uniform(), random.uniform()};
    }
    const data::Crop crop = crop_at(how, picture, image, where);
    io::Image signal;
    if (how.control) signal = data::control_picture(*how.control, picture.path, image, crop);
    add_crop(encoded, how, source, crop, signal, false);
    if (picture.use.flip.value_or(how.crop.flip))
      add_crop(encoded, how, source, crop, signal, true);
  }
  if (!std::ranges::all_of(encoded.crops, latents_are_finite))
    log(LogLevel::warning,
        picture.path.string() +
            ": the autoencoder makes numbers of it that are not finite, so steps with it will be "
            "skipped; use `precision=fp32`");
  return encoded;
}

}  // namespace

TrainingSet encode_pictures(const pipeline::TextToImageModel& model,
                            const std::vector<data::Picture>& pictures, const CropOptions& options,
                            const fs::path& cache_folder, const std::function<bool()>& progress,
                            const data::ControlSettings* control, bool control_latents,
                            const MaskWeights& mask) {
  return nn::with_ringlet_errors("training", [&] {
    const LatentCache cache(model, cache_folder);
    const Encoding how{cache, options, control, control_latents, mask};
    TrainingSet set;
    for (std::size_t i = 0; i < pictures.size(); ++i) {
      const std::string hash = cache_folder.empty() ? "" : sha256_file(pictures[i].path);
      set.pictures.push_back(encode_one(how, pictures[i], i, hash));
      for (std::int64_t n = 0; n < pictures[i].repeats; ++n) set.order.push_back(i);
      if (progress && !progress())
        throw Error(ErrorCode::cancelled, "training", "stopped while the pictures were encoded");
    }
    return set;
  });
}

}  // namespace ringlet::train
