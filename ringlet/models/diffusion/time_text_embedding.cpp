#include "ringlet/models/diffusion/time_text_embedding.h"

namespace ringlet::models {
namespace {

constexpr std::int64_t kSinusoids = 256;

}  // namespace

TimeTextEmbedding::TimeTextEmbedding(const nn::WeightSource& s, std::int64_t width,
                                     std::int64_t pooled_width, bool guided)
    : timestep_embedder_(s.at("timestep_embedder"), kSinusoids, width),
      text_embedder_(s.at("text_embedder"), pooled_width, width) {
  if (guided) guidance_embedder_.emplace(s.at("guidance_embedder"), kSinusoids, width);
}

at::Tensor TimeTextEmbedding::forward(const at::Tensor& timesteps, const at::Tensor& pooled,
                                      const at::Tensor& guidance) const {
  const auto sinusoids = [&pooled](const at::Tensor& numbers) {
    return sinusoidal_embedding(numbers, kSinusoids, /*flip_sin_to_cos=*/true, /*freq_shift=*/0.0)
        .to(pooled.scalar_type());
  };
  at::Tensor time = timestep_embedder_.forward(sinusoids(timesteps));
  if (guidance_embedder_) time = time + guidance_embedder_->forward(sinusoids(guidance));
  return time + text_embedder_.forward(pooled);
}

}  // namespace ringlet::models
