#include "ringlet/formats/unread_adapter.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <string_view>

#include "ringlet/core/text.h"
#include "ringlet/formats/adapter_tensors.h"

namespace ringlet::formats {
namespace {

struct Family {
  std::string_view block;
  const char* name;
};

/// Stable Diffusion 3, FLUX and others have blocks of this name in diffusers.
constexpr std::string_view kCommonBlocks = "transformer_blocks";

/// Lists of blocks at the top of a network, the more telling ones first.
constexpr std::array kFamilies = {Family{"double_blocks", "FLUX"},
                                  Family{"single_blocks", "FLUX"},
                                  Family{"single_transformer_blocks", "FLUX"},
                                  Family{"joint_blocks", "Stable Diffusion 3"},
                                  Family{kCommonBlocks, "a diffusion transformer"},
                                  Family{"blocks", "a diffusion transformer"},
                                  Family{"down_blocks", kUNet},
                                  Family{"up_blocks", kUNet},
                                  Family{"input_blocks", kUNet},
                                  Family{"output_blocks", kUNet}};

constexpr std::array<std::string_view, 10> kBefore = {
    "base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.",
    "lora_unet_",        "lora_transformer_",      "oft_unet_",        "lycoris_",     ""};

/// A tensor's name from the path of its layer on.
std::string_view without_prefix(std::string_view name) {
  const auto before =
      std::ranges::find_if(kBefore, [&](std::string_view one) { return name.starts_with(one); });
  name.remove_prefix(before->size());
  return name;
}

/// The place of a network's family in kFamilies.
std::optional<std::size_t> family_of(std::string_view name) {
  name = without_prefix(name);
  for (std::size_t i = 0; i < kFamilies.size(); ++i) {
    const std::size_t length = kFamilies[i].block.size();
    if (name.starts_with(kFamilies[i].block) && name.size() > length + 1 &&
        (name[length] == '.' || name[length] == '_') &&
        std::isdigit(static_cast<unsigned char>(name[length + 1])) != 0)
      return i;
  }
  return std::nullopt;
}

std::string quoted(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> some;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i)
    some.push_back("\"" + shown(names[i]) + "\"");
  return join(some) + (names.size() > kShown ? ", …" : "");
}

bool any_contains(const std::vector<std::string>& names, std::string_view part) {
  return std::ranges::any_of(
      names, [&](const std::string& name) { return name.find(part) != std::string::npos; });
}

/// Names that only Stable Diffusion XL has: its second text encoder, and blocks of several layers.
bool is_xl(const std::vector<std::string>& names) {
  return std::ranges::any_of(std::array{"lora_te2_", "text_encoder_2.", "text_encoders.clip_g"},
                             [&](const char* part) { return any_contains(names, part); }) ||
         std::ranges::any_of(names, [](const std::string& name) {
           return name.find("attentions") != std::string::npos &&
                  (name.find("transformer_blocks_1_") != std::string::npos ||
                   name.find("transformer_blocks.1.") != std::string::npos);
         });
}

/// Names of blocks that Stable Diffusion 3 and FLUX share, of which the one has more.
bool is_of_common_blocks(const std::vector<std::string>& names) {
  return std::ranges::all_of(names, [](const std::string& name) {
    return without_prefix(name).starts_with(kCommonBlocks);
  });
}

}  // namespace

Error not_understood(const std::filesystem::path& path, const UnreadTensors& unread) {
  if (!unread.endings.empty() && (unread.fitting > 0 || unread.layers.empty())) {
    const std::size_t more = unread.endings.size() - 1;
    return {ErrorCode::mismatch, path.string(),
            "tensor \"" + shown(unread.endings.front()) + "\" is not understood" +
                (more > 0 ? ", nor are " + std::to_string(more) + " others" : ""),
            "no supported method has such an ending; merge the adapter with the program "
            "that made it, and use the merged model"};
  }
  const std::size_t missing = unread.layers.size();
  const std::string what = std::to_string(missing) + " of its " +
                           std::to_string(missing + unread.fitting) +
                           " layers are not in the model: " + quoted(unread.layers);
  if (is_xl(unread.layers))
    return {ErrorCode::mismatch, path.string(), what, "these are names of Stable Diffusion XL"};
  if (unread.fitting == 0)
    return {ErrorCode::mismatch, path.string(), what,
            "the adapter was made for another kind of model, or by a program whose names are "
            "unsupported"};
  if (is_of_common_blocks(unread.layers))
    return {ErrorCode::mismatch, path.string(), what,
            "Stable Diffusion 3 and FLUX call their blocks so, and have different numbers of them: "
            "the adapter is probably of the other family, or of another size of the model"};
  return {ErrorCode::mismatch, path.string(), what,
          "the others fit: the adapter also changes layers that this model lacks, or their names "
          "are unsupported"};
}

void refuse_other_family(const io::SafetensorsFile& file, const std::string& denoiser) {
  std::optional<std::size_t> family;
  std::string tensor;
  bool lone_names = denoiser != kUNet, down = false;
  for (const io::TensorInfo& info : file.tensors()) {
    // Qwen-Image has layers of FLUX's names and sizes, and such files of it have no prefix.
    lone_names = lone_names && info.name.starts_with("transformer_blocks.");
    down = down || info.name.ends_with(".lora_down.weight");
    const std::optional<std::size_t> own = family_of(info.name);
    if (!own || (family && *family <= *own)) continue;
    family = own;
    tensor = info.name;
  }
  if (!family) return;
  const std::string name = kFamilies[*family].name;
  if (name == denoiser) return;
  if (kFamilies[*family].block == kCommonBlocks && denoiser != kUNet) {
    if (!lone_names || !down) return;
    throw Error(ErrorCode::mismatch, file.path().string(),
                "has the names of an adapter of Qwen-Image (tensor \"" + shown(tensor) +
                    "\"), and the model is " + denoiser,
                "if it is for this model, put \"transformer.\" before the names of its tensors");
  }
  throw Error(ErrorCode::mismatch, file.path().string(),
              "is an adapter of " + name + " (tensor \"" + shown(tensor) + "\"), and the model " +
                  (denoiser == kUNet ? "has " : "is ") + denoiser,
              "use it with the model that it was made for");
}

bool names_transformer(const std::string& tensor) {
  // Beside the blocks: layers of FLUX and Stable Diffusion 3 that no U-Net has.
  constexpr std::array<std::string_view, 8> kOthers = {"img_in",     "txt_in",      "time_in",
                                                       "vector_in",  "guidance_in", "final_layer",
                                                       "t_embedder", "y_embedder"};
  const std::string_view path = without_prefix(tensor);
  if (std::ranges::any_of(kOthers, [&](std::string_view one) { return path.starts_with(one); }))
    return true;
  const std::optional<std::size_t> family = family_of(tensor);
  return family && kFamilies[*family].name != std::string_view(kUNet);
}

}  // namespace ringlet::formats
