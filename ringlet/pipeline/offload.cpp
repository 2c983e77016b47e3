#include "ringlet/pipeline/offload.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"

namespace ringlet::pipeline {
namespace {

constexpr const char* kAutomatic = "auto";

std::string offload_text(const LoadOptions& load) {
  return load.offload_layers ? std::to_string(*load.offload_layers) : kAutomatic;
}

void check_count(std::int64_t blocks) {
  if (blocks < 0)
    throw Error(ErrorCode::invalid_argument, Field("offload_layers"), Range::at_least(0).refusal());
}

std::optional<std::int64_t> parse_count(const std::string& text) {
  if (text == kAutomatic) return std::nullopt;
  std::int64_t blocks = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), blocks);
  if (problem != std::errc() || end != text.data() + text.size())
    throw Error(ErrorCode::invalid_argument, Field("offload_layers"),
                "\"" + text + "\" is not a whole number",
                std::string("use a number or ") + kAutomatic);
  check_count(blocks);
  return blocks;
}

/// Null where the model has none that moves.
nn::NetworkMemory* denoiser_memory(const TextToImageModel& model) {
  for (const auto& [name, network] : model.networks())
    if (network.role == NetworkRole::denoiser) return network.memory.get();
  return nullptr;
}

}  // namespace

void describe_offload(OptionList& list, LoadOptions& load) {
  list.add(
      "offload_layers",
      WrittenValue{.read =
                       [&load](const std::vector<std::string>& texts) {
                         load.offload_layers = parse_count(texts.back());
                       },
                   .value = [&load] { return Json(offload_text(load)); },
                   .shown = [&load] { return offload_text(load); },
                   .placeholder = "N",
                   .check = [&load] { check_count(load.offload_layers.value_or(0)); }},
      "Blocks of the denoiser that stay in host memory and are copied to the GPU for each use, "
      "the largest first; auto: as few as are needed; slower");
}

double weight_bytes(const TextToImageModel& model, NetworkRole role) {
  double bytes = 0.0;
  for (const auto& [name, network] : model.networks())
    if (network.role == role && network.memory) bytes += network.memory->bytes();
  return bytes;
}

std::int64_t offloadable_blocks(const TextToImageModel& model) {
  const nn::NetworkMemory* memory = denoiser_memory(model);
  return memory != nullptr ? memory->blocks() : 0;
}

std::int64_t offloaded_blocks(const TextToImageModel& model) {
  const nn::NetworkMemory* memory = denoiser_memory(model);
  return memory != nullptr ? memory->offloaded() : 0;
}

nn::OffloadEffect offload_effect(const TextToImageModel& model, std::int64_t blocks) {
  const nn::NetworkMemory* memory = denoiser_memory(model);
  return memory != nullptr ? memory->offload_effect(blocks) : nn::OffloadEffect{};
}

std::int64_t blocks_that_save(const TextToImageModel& model, double bytes) {
  const std::int64_t all = offloadable_blocks(model);
  for (std::int64_t blocks = 0; blocks < all; ++blocks)
    if (offload_effect(model, blocks).saved_bytes >= bytes) return blocks;
  return all;
}

void offload_denoiser(const TextToImageModel& model, std::int64_t blocks) {
  nn::NetworkMemory* memory = denoiser_memory(model);
  if (memory == nullptr) {
    if (blocks == 0) return;
    throw Error(ErrorCode::unsupported, Field("offload_layers"),
                "this kind of model has no layers that can be offloaded", "leave it out");
  }
  memory->offload(blocks);
}

double generation_bytes(const TextToImageModel& model, PictureSize size, std::int64_t pictures) {
  const double text = weight_bytes(model, NetworkRole::text_encoder);
  const double autoencoder = weight_bytes(model, NetworkRole::autoencoder);
  const double steps = model.denoising_bytes(size, 2 * pictures);  // guided
  const double decoding = model.decoding_bytes(size);
  // Networks that leave take turns; the denoiser is there with each of them.
  if (model.options().idle_networks() == IdleNetworks::stay)
    return text + autoencoder + std::max(steps, decoding);
  return std::max({text, steps, autoencoder + decoding});
}

std::int64_t offload_for(const TextToImageModel& model, double other_bytes) {
  nn::NetworkMemory* memory = denoiser_memory(model);
  if (memory == nullptr) return 0;
  const LoadOptions& load = model.options();
  if (load.offload_layers || memory->blocks() == 0) return memory->offloaded();
  // What it has on the device already it may keep; and an allocator wastes some between its pieces.
  constexpr double kUsable = 0.95;
  const double free =
      kUsable * static_cast<double>(nn::free_memory(load.device)) + memory->present();
  const std::int64_t needed = blocks_that_save(model, memory->bytes() + other_bytes - free);
  if (needed > memory->offloaded()) {
    memory->offload(needed);
    log(LogLevel::info,
        std::to_string(needed) + " of " + std::to_string(memory->blocks()) +
            " blocks of the denoiser stay in host memory: " +
            human_bytes(static_cast<std::uint64_t>(memory->offload_effect(needed).saved_bytes)) +
            " less on the GPU");
  }
  return memory->offloaded();
}

}  // namespace ringlet::pipeline
