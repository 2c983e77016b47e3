#include "ringlet/models/diffusion/control_channels.h"

namespace ringlet::models {

ControlChannels::ControlChannels(const nn::WeightSource& s, std::int64_t latent_channels,
                                 std::int64_t out, std::int64_t kernel, std::int64_t stride)
    : channels_(s.at("channels"), latent_channels, out, kernel,
                {.stride = stride, .padding = (kernel - stride) / 2}, /*bias=*/false) {}

}  // namespace ringlet::models
