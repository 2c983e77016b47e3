#include "ringlet/formats/adapter_tensors.h"

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/part_format.h"
#include "ringlet/io/tensor_file.h"

namespace ringlet::formats {
namespace {

/// Groups of endings that a name may have, in the order in which they are looked through for the
/// one that is written.
std::vector<Spellings> spellings(Naming naming) {
  switch (naming) {
    case Naming::peft:
      return {kPeftNames};
    case Naming::cloneofsimo:
      return {kCloneofsimo};
    case Naming::diffusers:
    case Naming::comfyui:
    case Naming::xlabs:
      return {kDotted, kShared};
    case Naming::original:
      return {kDotted, kShared, kOriginal};
    default:
      return {kShared, kUnderscored, kDotted};
  }
}

constexpr const char* kPeftPrefix = "base_model.model.";

bool starts_with_one_of(const std::string& name, std::initializer_list<const char*> prefixes) {
  return std::ranges::any_of(prefixes, [&](const char* one) { return name.starts_with(one); });
}

}  // namespace

Naming naming_of(const std::string& name) {
  if (name.starts_with("base_model.")) return Naming::peft;
  if (name.starts_with("lycoris_")) return Naming::lycoris;
  if (starts_with_one_of(name, {"lora_unet_", "lora_te", "oft_unet_", "lora_transformer_"}))
    return Naming::kohya;
  if (name.find(".processor.") != std::string::npos &&
      starts_with_one_of(name,
                         {"double_blocks.", "single_blocks.", "diffusion_model.double_blocks.",
                          "diffusion_model.single_blocks."}))
    return Naming::xlabs;
  if (starts_with_one_of(name, {"diffusion_model.", "model.diffusion_model.", "text_encoders.",
                                "clip_", "t5xxl."}))
    return Naming::comfyui;
  if (starts_with_one_of(name, {"double_blocks.", "single_blocks.", "joint_blocks.", "img_in.",
                                "txt_in.", "time_in.", "vector_in.", "guidance_in.", "final_layer.",
                                "t_embedder.", "y_embedder."}))
    return Naming::original;
  if (name.find(':') != std::string::npos) return Naming::cloneofsimo;
  return Naming::diffusers;
}

namespace {

struct Match {
  const PartFormat* format = nullptr;
  const Ending* ending = nullptr;
};

/// The longest ending that a name has, if any: some end others.
Match match(Naming naming, const std::string& name) {
  Spellings known = 0;
  for (const Spellings group : spellings(naming)) known |= group;
  Match best;
  std::size_t length = 0;
  for (const PartFormat& format : part_formats())
    for (const Ending& one : format.endings) {
      const std::string_view text = one.text;
      if ((one.spellings & known) == 0 || text.size() <= length || !name.ends_with(text)) continue;
      best = {&format, &one};
      length = text.size();
    }
  return best;
}

/// Rows of new tokens: cloneofsimo keeps them beside the layers, OneTrainer and SD web UIs bundle
/// them; others have files of their own.
bool is_embedding(const std::string& name) {
  return name.starts_with('<') || name.starts_with(kBundledEmbedding) || name == "emb_params" ||
         name == "clip_l" || name == "clip_g";
}

}  // namespace

AdapterTensors sort_tensors(const std::shared_ptr<const io::SafetensorsFile>& file) {
  AdapterTensors sorted;
  std::map<std::string, LayerTensors> layers;
  for (const io::TensorInfo& info : file->tensors()) {
    if (is_embedding(info.name)) {
      sorted.embeddings.push_back(info.name);
      continue;
    }
    if (info.name == "base_model.vera_A" || info.name == "base_model.vera_B") {
      sorted.projections.emplace(info.name, io::view_tensor(file, info));
      continue;
    }
    const Naming naming = naming_of(info.name);
    const Ending* const end = match(naming, info.name).ending;
    if (end == nullptr || (naming == Naming::peft && !info.name.starts_with(kPeftPrefix))) {
      sorted.unknown.push_back(info.name);
      continue;
    }
    const std::string prefix =
        info.name.substr(0, info.name.size() - std::string_view(end->text).size());
    LayerTensors& layer = layers[prefix];
    layer.prefix = prefix;
    layer.naming = naming;
    if (!layer.tensors.emplace(end->what, io::view_tensor(file, info)).second)
      throw Error(ErrorCode::bad_format, file->path().string(),
                  "has the same tensor twice: \"" + shown(layer.names[end->what]) + "\" and \"" +
                      shown(info.name) + "\"",
                  "the file is damaged or was put together wrongly");
    layer.names[end->what] = info.name;
  }
  if (file->tensors().empty())
    throw Error(ErrorCode::bad_format, file->path().string(), "holds no tensor",
                "the file is empty; save or download it again");
  for (auto& [prefix, layer] : layers) sorted.layers.push_back(std::move(layer));
  std::ranges::sort(sorted.unknown);
  return sorted;
}

std::string AdapterTensors::dialect() const {
  std::map<Naming, std::size_t> counts;
  for (const LayerTensors& layer : layers) ++counts[layer.naming];
  // LyCORIS names text encoders as kohya does.
  if (counts.contains(Naming::lycoris)) counts.erase(Naming::kohya);
  std::vector<std::pair<std::size_t, std::string>> order;
  for (const auto& [naming, count] : counts) order.emplace_back(count, name_of(naming));
  std::ranges::sort(order, std::greater());
  std::vector<std::string> names;
  for (const auto& [count, name] : order) names.push_back(name);
  return join(names, " and ");
}

const std::string& LayerTensors::telling_name() const {
  const auto found =
      std::ranges::find_if(names, [](const auto& entry) { return !is_setting(entry.first); });
  return found != names.end() ? found->second : names.begin()->second;
}

std::string told_method(const io::SafetensorsFile& file) {
  const PartFormat* told = nullptr;
  for (const io::TensorInfo& info : file.tensors()) {
    const auto [format, end] = match(naming_of(info.name), info.name);
    const bool tells = end != nullptr && end->telling == Telling::method &&
                       info.name.ends_with(std::string(end->behind) + end->text);
    if (tells && (told == nullptr || format < told)) told = format;  // the list's order
  }
  return told == nullptr ? "" : told->shown;
}

bool is_setting(const std::string& what) {
  return std::ranges::any_of(part_formats(), [&](const PartFormat& format) {
    return std::ranges::any_of(format.endings, [&](const Ending& one) {
      return one.telling == Telling::setting && what == one.what;
    });
  });
}

bool is_factor_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kHalf || type == at::kBFloat16 || type == at::kDouble;
}

std::string shown(const std::string& text) {
  constexpr std::size_t kMost = 120;
  if (text.size() <= kMost) return text;
  std::size_t length = kMost;
  while ((static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;  // whole letters
  return text.substr(0, length) + "…";
}

std::string ending(Naming naming, const std::string& what) {
  for (const Spellings group : spellings(naming))
    for (const PartFormat& format : part_formats())
      for (const Ending& one : format.endings)
        if ((one.spellings & group) != 0 && what == one.what) return one.text;
  throw Error(ErrorCode::internal, what, std::string("has no name in ") + name_of(naming));
}

}  // namespace ringlet::formats
