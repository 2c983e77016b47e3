#include "ringlet/eval/segmenter.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

constexpr int kMostClasses = 255;  // label 255 is the ignored one

Preprocessing usual_preprocessing() {
  Preprocessing how;
  constexpr std::int64_t kSide = 512;
  how.shortest = how.crop = 0;
  how.width = how.height = kSide;
  how.bicubic = false;
  return how;
}

}  // namespace

Segmenter Segmenter::open(const fs::path& folder, at::Device device) {
  return nn::with_ringlet_errors(folder.string(), [&]() -> Segmenter {
    const fs::path config_file = folder / "config.json";
    if (!fs::exists(config_file))
      throw Error(
          ErrorCode::not_found, config_file.string(),
          "the segmentation network's description is missing",
          "published as nvidia/segformer-b4-finetuned-ade-512-512 and others; a folder with "
          "config.json and model.safetensors is needed");
    const auto config =
        models::SegformerConfig::from_json(read_json_file(config_file), config_file.string());
    if (config.classes > kMostClasses)
      throw Error(ErrorCode::unsupported, config_file.string(),
                  std::to_string(config.classes) + " classes are more than a label map can store");
    const fs::path weights = pipeline::find_weights(folder, "model", "");
    const nn::WeightSource source(nn::FileStore::open(weights), {.device = device});
    auto network = std::make_unique<models::Segformer>(source, config);
    source.finish();
    return {network_identity(folder_name(folder), weights), std::move(network),
            Preprocessing::read(folder, usual_preprocessing()), device};
  });
}

data::LabelMap Segmenter::labels(const io::Image& picture, std::int64_t width,
                                 std::int64_t height) const {
  const at::NoGradGuard no_grad;
  const at::Tensor scores =
      network_->forward(prepared(picture, preprocessing_).to(device_)).to(at::kCPU);
  const at::Tensor best = at::upsample_bilinear2d(scores, {height, width}, /*align_corners=*/false)
                              .argmax(1)
                              .to(at::kByte)
                              .contiguous();
  const auto* labels = best.const_data_ptr<std::uint8_t>();
  return {width, height, {labels, labels + best.numel()}};
}

}  // namespace ringlet::eval
