#include "ringlet/models/diffusion/control_embedding.h"

#include "ringlet/models/diffusion/blocks.h"

namespace ringlet::models {

ControlEmbedding::ControlEmbedding(const nn::WeightSource& s,
                                   const std::vector<std::int64_t>& channels, std::int64_t out)
    : conv_in_(s.at("conv_in"), 3, channels.front(), 3, {.padding = 1}),
      conv_out_(s.at("conv_out"), channels.back(), out, 3, {.padding = 1}) {
  const nn::WeightSource blocks = s.at("blocks");
  std::int64_t number = 0;
  for (std::size_t i = 0; i + 1 < channels.size(); ++i) {
    blocks_.emplace_back(blocks.at(number++), channels[i], channels[i], 3,
                         nn::Conv2dOptions{.padding = 1});
    blocks_.emplace_back(blocks.at(number++), channels[i], channels[i + 1], 3,
                         nn::Conv2dOptions{.stride = 2, .padding = 1});
  }
}

at::Tensor ControlEmbedding::forward(const at::Tensor& pictures) const {
  at::Tensor x = nn::silu(conv_in_(pictures.contiguous(at::MemoryFormat::ChannelsLast)));
  for (const nn::Conv2d& block : blocks_) x = nn::silu(block(x));
  return conv_out_(x);
}

}  // namespace ringlet::models
