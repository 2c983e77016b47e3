#include "ringlet/eval/feature_network.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"
#include "ringlet/core/sha256.h"
#include "ringlet/eval/pil_resize.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/image_tensor.h"
#include "ringlet/pipeline/model_files.h"
#include "ringlet/tokenizers/clip_tokenizer.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;
using Kind = models::VisionConfig::Kind;

constexpr const char* kInception = "inception.safetensors";

constexpr const char* kPublished =
    "published as facebook/dino-vits16, facebook/dinov2-small, openai/clip-vit-base-patch32 and "
    "others; a folder with config.json and model.safetensors is needed, or for FID one with "
    "inception.safetensors: the tensors of pytorch-fid's pt_inception-2015-12-05-6726825d.pth";

std::array<double, 3> three_numbers(const Json& json, const char* key,
                                    const std::array<double, 3>& fallback,
                                    const std::string& where) {
  const auto values =
      json_value(json, key, std::vector<double>(fallback.begin(), fallback.end()), where);
  if (values.size() != fallback.size())
    throw Error(ErrorCode::bad_format, where, std::string(key) + " must hold three numbers");
  return {values[0], values[1], values[2]};
}

/// Both sides, from a number or {"height", "width"}; {0, 0} for another form.
std::pair<std::int64_t, std::int64_t> both_sides(const Json& size, const std::string& where) {
  if (size.is_number_integer()) return {size.get<std::int64_t>(), size.get<std::int64_t>()};
  if (!size.is_object() || !size.contains("height")) return {0, 0};
  return {json_require<std::int64_t>(size, "height", where),
          json_require<std::int64_t>(size, "width", where)};
}

io::Image centre(const io::Image& image, std::int64_t side) {
  const std::int64_t left = (image.width - side) / 2, top = (image.height - side) / 2;
  if (left < 0 || top < 0)
    throw Error(ErrorCode::unsupported, "preprocessing",
                "a crop of " + std::to_string(side) + " from a picture of " +
                    std::to_string(image.width) + "x" + std::to_string(image.height));
  return io::cut_image(image, left, top, side, side);
}

/// Resized as clean-fid does, by PIL's bicubic filter in floating point; then [-1, 1] as
/// pytorch-fid has it, x / 127.5 - 1 (clean-fid feeds (x - 128) / 128).
at::Tensor inception_input(const io::Image& image) {
  constexpr std::int64_t kSide = models::InceptionV3::kSide;
  std::vector<float> pixels = pil_resize_float(image, kSide, kSide, PilFilter::bicubic);
  const at::Tensor rows = at::from_blob(pixels.data(), {1, kSide, kSide, 3}, at::kFloat);
  return (rows / 127.5 - 1.0).permute({0, 3, 1, 2}).contiguous();
}

}  // namespace

Preprocessing Preprocessing::from_json(const Json& json, const std::string& where) {
  Preprocessing how;
  how.crop = 0;
  const Json size = json_value(json, "size", Json(224), where);
  const bool crops = json_value(json, "do_center_crop", false, where);
  std::tie(how.height, how.width) = both_sides(size, where);
  how.shortest = 0;
  if (size.is_object() && size.contains("shortest_edge"))
    how.shortest = json_require<std::int64_t>(size, "shortest_edge", where);
  else if (size.is_number_integer() && crops)
    how.shortest = how.width;  // CLIP's old files: a plain number is the shorter side
  else if (how.width == 0)
    throw Error(ErrorCode::unsupported, where, "field \"size\" is " + size.dump());
  if (crops) {
    const auto [height, width] = both_sides(json_value(json, "crop_size", Json(224), where), where);
    if (height != width || height <= 0)
      throw Error(ErrorCode::unsupported, where, "field \"crop_size\" is not square");
    how.crop = width;
  }
  constexpr int kBilinear = 2, kBicubic = 3;  // PIL's numbers
  const int resample = json_value(json, "resample", kBicubic, where);
  if (resample != kBilinear && resample != kBicubic)
    throw Error(ErrorCode::unsupported, where, "field \"resample\" is " + std::to_string(resample));
  how.bicubic = resample == kBicubic;
  how.mean = three_numbers(json, "image_mean", how.mean, where);
  how.deviation = three_numbers(json, "image_std", how.deviation, where);
  return how;
}

Preprocessing Preprocessing::read(const fs::path& folder, const Preprocessing& otherwise) {
  const fs::path file = folder / "preprocessor_config.json";
  return fs::exists(file) ? from_json(read_json_file(file), file.string()) : otherwise;
}

Preprocessing Preprocessing::usual(const models::VisionConfig& config) {
  Preprocessing how;
  const std::int64_t side = config.image_size;
  if (config.kind == Kind::vit) {
    how.shortest = how.crop = 0;
    how.width = how.height = side;
    how.bicubic = false;
  } else if (config.kind == Kind::dinov2) {
    how.shortest = 256;
    how.crop = 224;
  } else {
    how.shortest = how.crop = side;
    how.mean = {0.48145466, 0.4578275, 0.40821073};
    how.deviation = {0.26862954, 0.26130258, 0.27577711};
  }
  return how;
}

at::Tensor prepared(const io::Image& image, const Preprocessing& how) {
  std::int64_t width = how.width, height = how.height;
  if (how.shortest > 0) {
    const std::int64_t shorter = std::min(image.width, image.height);
    width = how.shortest * image.width / shorter;
    height = how.shortest * image.height / shorter;
  }
  io::Image resized =
      pil_resize(image, width, height, how.bicubic ? PilFilter::bicubic : PilFilter::bilinear);
  if (how.crop > 0) resized = centre(resized, how.crop);
  const auto channels = [](const std::array<double, 3>& numbers) {
    return at::tensor({numbers[0], numbers[1], numbers[2]}, at::kFloat).view({1, 3, 1, 1});
  };
  const at::Tensor unit = pipeline::image_to_tensor(resized) * 0.5 + 0.5;
  return (unit - channels(how.mean)) / channels(how.deviation);
}

std::string folder_name(const fs::path& folder) {
  return (fs::absolute(folder).lexically_normal() / "").parent_path().filename().string();
}

std::string network_identity(const std::string& name, const fs::path& weights) {
  return name + " (" + short_hash(sha256_file(weights)) + ")";
}

FeatureNetwork FeatureNetwork::open(const fs::path& folder, at::Device device) {
  return nn::with_ringlet_errors(folder.string(), [&] {
    if (fs::exists(folder / kInception)) {
      FeatureNetwork network("Inception-v3", {}, device);
      network.identity_ = network_identity(network.name_, folder / kInception);
      const nn::WeightSource source(nn::FileStore::open(folder / kInception), {.device = device});
      network.inception_ = std::make_unique<models::InceptionV3>(source);
      source.finish();
      return network;
    }
    const fs::path config_file = folder / "config.json";
    if (!fs::exists(config_file))
      throw Error(ErrorCode::not_found, config_file.string(),
                  "the network's description is missing", kPublished);
    const Json json = read_json_file(config_file);
    const std::string where = config_file.string();
    const auto config = models::VisionConfig::from_json(json, where);
    FeatureNetwork network(folder_name(folder),
                           Preprocessing::read(folder, Preprocessing::usual(config)), device);
    const fs::path weights = pipeline::find_weights(folder, "model", "");
    network.identity_ = network_identity(network.name_, weights);
    const std::string kind = models::network_type(json);
    const auto file = nn::FileStore::open(weights);
    const nn::WeightSource source(std::make_shared<models::PublishedStore>(
                                      file, models::PublishedLayout(kind, file->names())),
                                  {.device = device});
    network.vision_ = std::make_unique<models::VisionTransformer>(
        config.kind == Kind::clip ? source : source.at(kind), config);
    if (kind == "clip") {
      source.get("logit_scale", {});
      network.text_ = std::make_unique<Text>(
          Text{tokenizers::ClipTokenizer::open(folder, ""),
               models::ClipTextModel(source, models::ClipTextConfig::from_clip_json(json, where))});
    }
    source.finish();
    return network;
  });
}

at::Tensor FeatureNetwork::look(const io::Image& picture) const {
  const at::Tensor pixels =
      inception_ ? inception_input(picture) : prepared(picture, preprocessing_);
  return (inception_ ? inception_->features(pixels.to(device_))
                     : vision_->features(pixels.to(device_)))
      .to(at::kCPU);
}

at::Tensor FeatureNetwork::features(const std::vector<io::Image>& pictures) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> rows;
  for (const io::Image& picture : pictures) rows.push_back(look(picture));
  if (rows.empty()) throw Error(ErrorCode::invalid_argument, name_, "there are no pictures");
  return at::cat(rows);
}

at::Tensor FeatureNetwork::text_features(const std::vector<std::string>& texts) const {
  if (!text_)
    throw Error(ErrorCode::unsupported, name_, "the network does not read texts",
                "CLIP-T needs a CLIP folder");
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> rows;
  for (const std::string& text : texts) {
    const auto encoded =
        text_->tokenizer.encode_prompt(text, text_->encoder.config().max_position_embeddings);
    const at::Tensor ids = at::tensor(encoded.ids, at::kLong).unsqueeze(0).to(device_);
    rows.push_back(text_->encoder.forward(ids).pooled.to(at::kCPU));
  }
  return at::cat(rows);
}

}  // namespace ringlet::eval
