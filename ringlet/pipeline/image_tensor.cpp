#include "ringlet/pipeline/image_tensor.h"

#include <algorithm>

#include <ATen/ops/clamp.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/round.h>

namespace ringlet::pipeline {

at::Tensor image_to_tensor(const io::Image& image) { return pixels_of_bytes(image_bytes(image)); }

at::Tensor image_bytes(const io::Image& image) {
  const at::Tensor bytes = at::from_blob(const_cast<std::uint8_t*>(image.pixels.data()),
                                         {image.height, image.width, 3}, at::kByte);
  return bytes.permute({2, 0, 1}).unsqueeze(0).clone(at::MemoryFormat::Contiguous);
}

at::Tensor pixels_of_bytes(const at::Tensor& bytes) { return bytes.to(at::kFloat) / 127.5 - 1.0; }

io::Image tensor_to_image(const at::Tensor& pixels) {
  const at::Tensor bytes =
      at::round(at::clamp(pixels.to(at::kCPU, at::kFloat) / 2.0 + 0.5, 0, 1) * 255.0)
          .to(at::kByte)
          .permute({1, 2, 0})
          .contiguous();
  const auto* data = bytes.const_data_ptr<std::uint8_t>();
  return {bytes.size(1), bytes.size(0), std::vector<std::uint8_t>(data, data + bytes.numel())};
}

}  // namespace ringlet::pipeline
