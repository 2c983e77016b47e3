// LPIPS of pictures, with weights that the user gives.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "ringlet/io/image.h"
#include "ringlet/models/vision/lpips.h"

namespace ringlet::eval {

class PerceptualDistance {
 public:
  /// A folder with backbone.safetensors (torchvision's AlexNet or VGG-16, told apart by its layers)
  /// and linear.safetensors (LPIPS' own weights of that network). Throws Error(not_found) that says
  /// which is missing and where it is published, and Error(mismatch) for other tensors.
  static PerceptualDistance open(const std::filesystem::path& folder, at::Device device = at::kCPU);

  /// Distance of two pictures of one size; they should have the size that others' numbers were made
  /// at (512 in OFT's protocol). Throws Error(mismatch) for different sizes.
  double operator()(const io::Image& a, const io::Image& b) const;

  const std::string& name() const { return name_; }          ///< "LPIPS (AlexNet)"
  const std::string& identity() const { return identity_; }  ///< hashes of both files of weights

 private:
  PerceptualDistance(std::string name, std::string identity, std::unique_ptr<models::Lpips> network,
                     at::Device device)
      : name_(std::move(name)),
        identity_(std::move(identity)),
        network_(std::move(network)),
        device_(device) {}

  std::string name_, identity_;
  std::unique_ptr<models::Lpips> network_;
  at::Device device_;
};

}  // namespace ringlet::eval
