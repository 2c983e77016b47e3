#include "ringlet/pipeline/flow_process.h"

#include "ringlet/core/error.h"
#include "ringlet/models/diffusion/vae.h"

namespace ringlet::pipeline {

std::int64_t pixels_per_latent(const ModelFiles& files) {
  const ModelComponent& part = files.parts.at("vae");
  return models::VaeConfig::from_json(part.config, part.where).downscale();
}

std::shared_ptr<const diffusion::RectifiedFlow> flow_process(
    const ModelFiles& files, std::int64_t patch, const std::optional<diffusion::Spacing>& spacing) {
  if (!diffusion::RectifiedFlowConfig::describes(files.scheduler, files.scheduler_where))
    throw Error(ErrorCode::unsupported, files.scheduler_where,
                "the scheduler is not one of rectified flow, which " + files.kind + " needs",
                "give it the scheduler that the model was published with, "
                "FlowMatchEulerDiscreteScheduler");
  auto config = diffusion::RectifiedFlowConfig::from_json(files.scheduler, files.scheduler_where);
  config.pixels_per_token = patch * pixels_per_latent(files);
  if (spacing) config.spacing = spacing;
  return std::make_shared<diffusion::RectifiedFlow>(config);
}

}  // namespace ringlet::pipeline
