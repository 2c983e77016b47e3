#include "ringlet/eval/perceptual_distance.h"

#include <ATen/core/grad_mode.h>

#include "ringlet/core/error.h"
#include "ringlet/eval/feature_network.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/image_tensor.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBackbone = "backbone.safetensors";
constexpr const char* kLinear = "linear.safetensors";

nn::WeightSource open_part(const fs::path& file, const char* what, at::Device device) {
  if (!fs::exists(file))
    throw Error(ErrorCode::not_found, file.string(), std::string(what) + " is missing",
                "convert torchvision's alexnet or vgg16 to backbone.safetensors, and alex.pth or "
                "vgg.pth of the lpips package to linear.safetensors");
  return nn::WeightSource(nn::FileStore::open(file), {.device = device});
}

}  // namespace

PerceptualDistance PerceptualDistance::open(const fs::path& folder, at::Device device) {
  return nn::with_ringlet_errors(folder.string(), [&]() -> PerceptualDistance {
    // Classifiers of the backbones are left where they are.
    const auto backbone = open_part(folder / kBackbone, "the network below LPIPS", device);
    const auto linear = open_part(folder / kLinear, "the file of LPIPS' own weights", device);
    const bool vgg = backbone.has("features.28.weight");
    auto network = std::make_unique<models::Lpips>(
        backbone, linear, vgg ? models::LpipsBackbone::vgg16 : models::LpipsBackbone::alexnet);
    return {vgg ? "LPIPS (VGG-16)" : "LPIPS (AlexNet)",
            network_identity("backbone", folder / kBackbone) + ", " +
                network_identity("linear", folder / kLinear),
            std::move(network), device};
  });
}

double PerceptualDistance::operator()(const io::Image& a, const io::Image& b) const {
  if (a.width != b.width || a.height != b.height)
    throw Error(ErrorCode::mismatch, "LPIPS", "pictures of different sizes cannot be compared",
                "make them with the same `width` and `height`");
  const at::NoGradGuard no_grad;
  return network_
      ->distance(pipeline::image_to_tensor(a).to(device_), pipeline::image_to_tensor(b).to(device_))
      .item<double>();
}

}  // namespace ringlet::eval
