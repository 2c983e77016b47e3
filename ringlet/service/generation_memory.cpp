#include "ringlet/service/generation_memory.h"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/core/text.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/pipeline/offload.h"
#include "ringlet/pipeline/weight_pages.h"
#include "ringlet/train/memory_estimate.h"
#include "ringlet/train/memory_plan.h"

namespace ringlet::service {
namespace {

PictureSize size_of(const pipeline::TextToImageModel& model, const PictureRequest& request) {
  PictureSize size = model.defaults().size;
  if (request.width > 0) size.width = request.width;
  if (request.height > 0) size.height = request.height;
  return size;
}

/// From what was asked for to the least memory.
std::vector<std::int64_t> tiles_of(const pipeline::TextToImageModel& model, PictureSize size) {
  const std::int64_t given = model.options().tile;
  if (given > 0) return {given};
  std::vector<std::int64_t> sides = {0};
  // Smaller ones show: their norms see little of the picture.
  constexpr std::int64_t kMost = 1024, kLeast = 128;
  for (std::int64_t side = kMost; side >= kLeast; side /= 2)
    if (side % model.size_unit() == 0 && side < std::max(size.width, size.height))
      sides.push_back(side);
  return sides;
}

constexpr nn::WeightStorage kNarrowest = nn::WeightStorage::nf4;

/// From the one that was asked for to those that harm more. A storage that was asked for stays.
std::vector<pipeline::LoadOptions> ways_to_open(const pipeline::LoadOptions& asked) {
  std::vector<pipeline::LoadOptions> ways = {asked};
  pipeline::LoadOptions next = asked;
  next.low_memory = true;
  if (!asked.low_memory) ways.push_back(next);
  if (asked.storage == nn::WeightStorage::as_stored)
    for (const nn::WeightStorage storage :
         {nn::WeightStorage::bf16, nn::WeightStorage::fp8, nn::WeightStorage::int8, kNarrowest}) {
      next.storage = storage;
      ways.push_back(next);
    }
  return ways;
}

struct Search {
  const PictureRequest& pictures;
  std::uint64_t limit;
  std::uint64_t smallest = std::numeric_limits<std::uint64_t>::max();

  /// The first batch and tile that fit; 0 where none does.
  bool fits(pipeline::TextToImageModel& model, GenerationPlan& plan) {
    const std::vector<std::int64_t> tiles = tiles_of(model, size_of(model, pictures));
    for (std::int64_t batch = std::min(pictures.batch_size, pictures.images); batch > 0; --batch)
      for (const std::int64_t tile : tiles) {
        model.code_in_tiles(tile);
        plan.pictures.batch_size = batch;
        plan.expected = expected_peak_bytes(model, plan.pictures);
        plan.model.load.tile = tile;
        smallest = std::min(smallest, plan.expected);
        if (plan.expected <= limit) return true;
      }
    return false;
  }
};

}  // namespace

std::uint64_t expected_peak_bytes(const pipeline::TextToImageModel& model,
                                  const PictureRequest& request) {
  using pipeline::NetworkRole;
  constexpr double kGuidanceOff = 1.0, kBetween = 1.15;
  const PictureSize size = size_of(model, request);
  pipeline::GenerateRequest asked;
  asked.guidance = request.guidance;
  asked.true_guidance = request.true_guidance;
  const double guidance = pipeline::classifier_free_scale(model, asked);
  const std::int64_t batch = std::min(request.batch_size, request.images);
  const std::int64_t rows = guidance > kGuidanceOff ? 2 * batch : batch;
  const bool on_cpu = model.options().device.is_cpu();
  const auto bytes = [&](double activations) {
    return static_cast<std::uint64_t>(kBetween * activations);
  };
  if (!on_cpu) {
    const double denoiser =
        pipeline::weight_bytes(model, NetworkRole::denoiser) -
        pipeline::offload_effect(model, pipeline::offloaded_blocks(model)).saved_bytes;
    return static_cast<std::uint64_t>(denoiser + pipeline::generation_bytes(model, size, batch));
  }
  const std::uint64_t now = resident_bytes() + pipeline::program_bytes(model, /*backward=*/false);
  double coding = model.decoding_bytes(size);
  if (!request.init_image.empty()) coding = std::max(coding, model.encoding_bytes(size));
  // Text encoders, denoiser and autoencoder let each other's pages go.
  const std::uint64_t most =
      std::max({page_bytes(model, NetworkRole::text_encoder),
                page_bytes(model, NetworkRole::denoiser) + bytes(model.denoising_bytes(size, rows)),
                page_bytes(model, NetworkRole::autoencoder) + bytes(coding)});
  return std::max(now + most, peak_resident_bytes());
}

GenerationPlan plan_generation(const ModelRequest& model, const PictureRequest& pictures,
                               std::uint64_t limit) {
  GenerationPlan plan{model, pictures};
  Search search{pictures, limit};
  for (const pipeline::LoadOptions& load : ways_to_open(model.load)) {
    plan.model.load = load;
    const auto open = pipeline::open_text_to_image_model(model.model, load);
    if (search.fits(*open, plan)) return plan;
    if (load.offload_layers.value_or(0) > 0) continue;
    for (std::int64_t blocks = 1; blocks <= pipeline::offloadable_blocks(*open); ++blocks) {
      if (load.storage != kNarrowest && model.load.storage == nn::WeightStorage::as_stored) break;
      pipeline::offload_denoiser(*open, blocks);
      plan.model.load.offload_layers = blocks;
      if (search.fits(*open, plan)) return plan;
    }
  }
  throw Error(
      ErrorCode::out_of_memory, Field("memory_limit"), "nothing fits into " + human_bytes(limit),
      "the smallest limit that is enough is `memory_limit=" + train::limit_text(search.smallest) +
          "`; smaller pictures need less");
}

std::string text_of(const GenerationPlan& plan, const ModelRequest& model,
                    const PictureRequest& pictures) {
  std::vector<std::string> words;
  if (plan.pictures.batch_size < std::min(pictures.batch_size, pictures.images))
    words.push_back("batches of " + std::to_string(plan.pictures.batch_size));
  if (plan.model.load.tile != model.load.tile)
    words.push_back("autoencoder in tiles of " + std::to_string(plan.model.load.tile) + " pixels");
  if (plan.model.load.low_memory != model.load.low_memory) words.emplace_back("low memory");
  if (plan.model.load.storage != model.load.storage)
    words.push_back("base in " + nn::weight_storage_name(plan.model.load.storage));
  if (plan.model.load.offload_layers != model.load.offload_layers)
    words.push_back(std::to_string(plan.model.load.offload_layers.value_or(0)) +
                    " blocks in host memory");
  return join(words);
}

}  // namespace ringlet::service
