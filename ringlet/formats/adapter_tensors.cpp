#include "ringlet/formats/adapter_tensors.h"

#include <algorithm>
#include <array>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/io/tensor_file.h"

namespace ringlet::formats {
namespace {

struct Ending {
  const char* text;
  const char* what;
};

/// Longer ones first where one ends another. The first of each meaning is what is written.
constexpr std::array kPeftEndings = {Ending{".lora_A.weight", "down"},
                                     Ending{".lora_B.weight", "up"},
                                     Ending{".lora_B.bias", "up_bias"},
                                     Ending{".lora_magnitude_vector", "magnitude"},
                                     Ending{".lora_magnitude_vector.weight", "magnitude"},
                                     Ending{".lora_A", "down"},
                                     Ending{".lora_E", "rank_scale"},
                                     Ending{".lora_B", "up"},
                                     Ending{".lora_embedding_A", "table_down"},
                                     Ending{".lora_embedding_B", "table_up"},
                                     Ending{".base_layer.weight", "base_weight"},
                                     Ending{".weight", "saved_weight"},
                                     Ending{".bias", "saved_bias"},
                                     Ending{".oft_R.weight", "oft_r"},
                                     Ending{".boft_R", "boft_r"},
                                     Ending{".boft_s", "boft_s"},
                                     Ending{".hra_u", "hra_u"},
                                     Ending{".ia3_l", "ia3"},
                                     Ending{".fourierft_spectrum", "spectrum"},
                                     Ending{".vera_lambda_b", "vera_b"},
                                     Ending{".vera_lambda_d", "vera_d"},
                                     Ending{".hada_w1_a", "hada_w1_a"},
                                     Ending{".hada_w1_b", "hada_w1_b"},
                                     Ending{".hada_w2_a", "hada_w2_a"},
                                     Ending{".hada_w2_b", "hada_w2_b"},
                                     Ending{".hada_t1", "hada_t1"},
                                     Ending{".hada_t2", "hada_t2"},
                                     Ending{".lokr_w1", "lokr_w1"},
                                     Ending{".lokr_w1_a", "lokr_w1_a"},
                                     Ending{".lokr_w1_b", "lokr_w1_b"},
                                     Ending{".lokr_w2", "lokr_w2"},
                                     Ending{".lokr_w2_a", "lokr_w2_a"},
                                     Ending{".lokr_w2_b", "lokr_w2_b"},
                                     Ending{".lokr_t2", "lokr_t2"}};

/// LoRA under dotted names: diffusers' spellings, and those that ComfyUI reads beside them.
constexpr std::array kDotted = {Ending{".lora_A.weight", "down"},
                                Ending{".lora_B.weight", "up"},
                                Ending{".lora_B.bias", "up_bias"},
                                Ending{".lora_magnitude_vector", "magnitude"},
                                Ending{".lora_magnitude_vector.weight", "magnitude"},
                                Ending{".lora_linear_layer.down.weight", "down"},
                                Ending{".lora_linear_layer.up.weight", "up"},
                                Ending{".lora.down.weight", "down"},
                                Ending{".lora.up.weight", "up"},
                                Ending{".down.weight", "down"},
                                Ending{".up.weight", "up"},
                                Ending{".lora_A", "down"},
                                Ending{".lora_B", "up"},
                                Ending{".lora_A.default.weight", "down"},
                                Ending{".lora_B.default.weight", "up"}};

/// What kohya, LyCORIS, ComfyUI and OneTrainer write under their own names of layers, and
/// OneTrainer under diffusers', too.
constexpr std::array kShared = {Ending{".lora_down.weight", "down"},
                                Ending{".lora_up.weight", "up"},
                                Ending{".lora_mid.weight", "mid"},
                                Ending{".alpha", "alpha"},
                                Ending{".dora_scale", "magnitude"},
                                Ending{".hada_w1_a", "hada_w1_a"},
                                Ending{".hada_w1_b", "hada_w1_b"},
                                Ending{".hada_w2_a", "hada_w2_a"},
                                Ending{".hada_w2_b", "hada_w2_b"},
                                Ending{".hada_t1", "hada_t1"},
                                Ending{".hada_t2", "hada_t2"},
                                Ending{".lokr_w1", "lokr_w1"},
                                Ending{".lokr_w1_a", "lokr_w1_a"},
                                Ending{".lokr_w1_b", "lokr_w1_b"},
                                Ending{".lokr_w2", "lokr_w2"},
                                Ending{".lokr_w2_a", "lokr_w2_a"},
                                Ending{".lokr_w2_b", "lokr_w2_b"},
                                Ending{".lokr_t2", "lokr_t2"},
                                Ending{".oft_blocks", "oft_blocks"},
                                Ending{".oft_diag", "oft_diag"},
                                Ending{".rescale", "rescale"},
                                Ending{".oft_R.weight", "oft_r"},
                                Ending{".oft_R.scaled_oft", "oft_scaled"},
                                Ending{".a1.weight", "a1"},
                                Ending{".a2.weight", "a2"},
                                Ending{".b1.weight", "b1"},
                                Ending{".b2.weight", "b2"},
                                Ending{".bm.weight", "bm"},
                                Ending{".diff", "diff"},
                                Ending{".diff_b", "diff_b"},
                                Ending{".set_weight", "set_weight"},
                                Ending{".w_norm", "w_norm"},
                                Ending{".b_norm", "b_norm"}};

/// LyCORIS' IA3. Under dotted names this would be the name of any weight.
constexpr std::array kIa3 = {Ending{".weight", "ia3"}, Ending{".on_input", "on_input"}};

constexpr std::array kCloneofsimo = {Ending{":down", "down"}, Ending{":up", "up"}};

/// The first that has a meaning is the one that is written.
std::vector<std::span<const Ending>> endings(Naming naming) {
  switch (naming) {
    case Naming::peft:
      return {kPeftEndings};
    case Naming::cloneofsimo:
      return {kCloneofsimo};
    case Naming::diffusers:
    case Naming::comfyui:
      return {kDotted, kShared};
    default:
      return {kShared, kIa3, kDotted};
  }
}

constexpr const char* kPeftPrefix = "base_model.model.";

bool starts_with_one_of(const std::string& name, std::initializer_list<const char*> prefixes) {
  return std::ranges::any_of(prefixes, [&](const char* one) { return name.starts_with(one); });
}

/// Who names tensors like this one.
Naming naming_of(const std::string& name) {
  if (name.starts_with("base_model.")) return Naming::peft;
  if (name.starts_with("lycoris_")) return Naming::lycoris;
  if (starts_with_one_of(name, {"lora_unet_", "lora_te", "oft_unet_"})) return Naming::kohya;
  if (starts_with_one_of(name, {"diffusion_model.", "text_encoders.", "clip_"}))
    return Naming::comfyui;
  if (name.find(':') != std::string::npos) return Naming::cloneofsimo;
  return Naming::diffusers;
}

std::optional<Ending> ending_of(Naming naming, const std::string& name) {
  std::optional<Ending> best;
  for (const std::span<const Ending> table : endings(naming))
    for (const Ending& one : table)
      if (name.ends_with(one.text) &&
          (!best || std::string_view(one.text).size() > std::string_view(best->text).size()))
        best = one;
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
    const std::optional<Ending> end = ending_of(naming, info.name);
    if (!end || (naming == Naming::peft && !info.name.starts_with(kPeftPrefix))) {
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
                  "says the same twice: \"" + shown(layer.names[end->what]) + "\" and \"" +
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
  const auto found = std::ranges::find_if(
      names, [](const auto& entry) { return entry.first != "alpha" && entry.first != "on_input"; });
  return found != names.end() ? found->second : names.begin()->second;
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
  for (const std::span<const Ending> table : endings(naming))
    for (const Ending& one : table)
      if (what == one.what) return one.text;
  throw Error(ErrorCode::internal, what, std::string("has no name in ") + name_of(naming));
}

}  // namespace ringlet::formats
