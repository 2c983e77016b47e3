// Label maps of pictures by a segmentation network.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "ringlet/data/control_signal.h"
#include "ringlet/eval/feature_network.h"
#include "ringlet/models/vision/segformer.h"

namespace ringlet::eval {

class Segmenter {
 public:
  /// A folder with config.json (model_type segformer) and model.safetensors;
  /// preprocessor_config.json is followed, without it pictures are brought to 512 x 512. Throws as
  /// FeatureNetwork::open, and Error(unsupported) for more classes than a label map holds (255).
  static Segmenter open(const std::filesystem::path& folder, at::Device device = at::kCPU);

  /// The likeliest class of every pixel of a map of width x height: class scores are brought to
  /// that size bilinearly first, as SegFormer's evaluation does.
  data::LabelMap labels(const io::Image& picture, std::int64_t width, std::int64_t height) const;

  const std::string& identity() const { return identity_; }  ///< name and hash of the weights
  int classes() const { return static_cast<int>(network_->config().classes); }

 private:
  Segmenter(std::string identity, std::unique_ptr<models::Segformer> network,
            Preprocessing preprocessing, at::Device device)
      : identity_(std::move(identity)),
        network_(std::move(network)),
        preprocessing_(preprocessing),
        device_(device) {}

  std::string identity_;
  std::unique_ptr<models::Segformer> network_;
  Preprocessing preprocessing_;
  at::Device device_;
};

}  // namespace ringlet::eval
