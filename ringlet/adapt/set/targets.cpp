#include "ringlet/adapt/set/targets.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns falsely inside std::regex when it is compiled with sanitizers (GCC bug 105562).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <algorithm>
#include <functional>
#include <regex>
#include <string_view>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/text_model_level.h"

namespace ringlet::adapt {
namespace {

using Predicate = std::function<bool(const Target&)>;
using NamePredicate = std::function<bool(const std::string& full_name)>;

/// True when the last parts of the dotted path are one of `tails`. A tail that begins with a dot
/// has a level before it.
bool ends_with_one_of(const std::string& name, const std::vector<std::string_view>& tails) {
  return std::ranges::any_of(tails, [&](std::string_view tail) {
    return name == tail || name.ends_with((tail.starts_with('.') ? "" : ".") + std::string(tail));
  });
}

/// What a family of published networks calls its attention projections and the two layers of its
/// feed-forwards. A new network adds a row where its checkpoint has other names.
struct LayerNames {
  std::string_view component;  ///< how the component's name begins
  std::vector<std::string_view> attention, feed_forward;
};

/// Networks beside those of Stable Diffusion are one component, whose layers have the names that
/// their published checkpoints give them.
constexpr std::string_view kOtherNetwork = "model", kTextEncoder = "text_encoder",
                           kTransformer = "transformer";

const std::vector<LayerNames>& layer_names() {
  static const std::vector<LayerNames> table = {
      // U-Nets of diffusers
      {"unet", {"to_q", "to_k", "to_v", "to_out.0"}, {"ff.net.0.proj", "ff.net.2"}},
      // Transformers of Stable Diffusion 3 and FLUX
      {kTransformer,
       {"to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"},
       {"ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp",
        ".proj_out"}},
      // CLIP's text encoders beside a denoiser
      {kTextEncoder, {"q_proj", "k_proj", "v_proj", "out_proj"}, {"fc1", "fc2"}},
      // T5 beside a transformer
      {kTextEncoder,
       {"SelfAttention.q", "SelfAttention.k", "SelfAttention.v", "SelfAttention.o"},
       {"DenseReluDense.wi_0", "DenseReluDense.wi_1", "DenseReluDense.wo"}},
      // BERT, RoBERTa and sentence encoders; SegFormer's attention
      {kOtherNetwork,
       {"self.query", "self.key", "self.value", "attention.output.dense"},
       {"intermediate.dense", "output.dense"}},
      // ViT and DINOv2 (its other layers as BERT's and CLIP's)
      {kOtherNetwork, {"attention.query", "attention.key", "attention.value"}, {}},
      // CLIP; wav2vec 2.0's attention
      {kOtherNetwork, {"q_proj", "k_proj", "v_proj", "out_proj"}, {"fc1", "fc2"}},
      // wav2vec 2.0's feed-forwards
      {kOtherNetwork, {}, {"intermediate_dense", "output_dense"}},
      // GPT-2
      {kOtherNetwork, {"attn.c_attn", "attn.c_proj"}, {"mlp.c_fc", "mlp.c_proj"}}};
  return table;
}

bool is_named(const Target& target, std::vector<std::string_view> LayerNames::*names) {
  return std::ranges::any_of(layer_names(), [&](const LayerNames& row) {
    return target.component.starts_with(row.component) && ends_with_one_of(target.name, row.*names);
  });
}
bool is_main_network(const Target& target) {
  return target.component == "unet" || target.component == kTransformer ||
         target.component == kOtherNetwork;
}
bool is_attention(const Target& target) {
  return is_main_network(target) && is_named(target, &LayerNames::attention);
}
bool is_feed_forward(const Target& target) {
  return is_main_network(target) && is_named(target, &LayerNames::feed_forward);
}

/// How the blocks of a transformer are called in its checkpoint.
constexpr std::string_view kDoubleBlocks = "transformer_blocks.",
                           kSingleBlocks = "single_transformer_blocks.";

bool is_linear_of(const Target& target, std::string_view blocks) {
  return target.component == kTransformer && target.name.starts_with(blocks) &&
         target.layer->shape().size() == 2;
}

bool is_embedding(const Target& target) {
  return dynamic_cast<const nn::EmbeddingLayer*>(target.layer.get()) != nullptr;
}

bool is_layer_of_main_network(const Target& target) {
  return is_main_network(target) && !is_embedding(target);
}

bool is_text_encoder_block(const Target& target) {
  return target.component.starts_with(kTextEncoder) &&
         (is_named(target, &LayerNames::attention) || is_named(target, &LayerNames::feed_forward));
}

struct Preset {
  std::string name;
  Predicate selects;
};

const std::vector<Preset>& presets() {
  static const std::vector<Preset> table = {
      {"attention", is_attention},
      {"attention+ff", [](const Target& t) { return is_attention(t) || is_feed_forward(t); }},
      {"all-linear",
       [](const Target& t) { return is_layer_of_main_network(t) && t.layer->shape().size() == 2; }},
      {"all", is_layer_of_main_network},
      {"embedding", is_embedding},
      {"text-encoder", is_text_encoder_block},
      {"double-blocks", [](const Target& t) { return is_linear_of(t, kDoubleBlocks); }},
      {"single-blocks", [](const Target& t) { return is_linear_of(t, kSingleBlocks); }}};
  return table;
}

const Preset& find_preset(const std::string& name) {
  const auto found = std::ranges::find(presets(), name, &Preset::name);
  if (found != presets().end()) return *found;
  const std::vector<std::string> names = target_presets();
  const std::string near = nearest_name(name, names);
  throw Error(ErrorCode::invalid_argument, Field("targets"), "there is no preset \"" + name + "\"",
              (near.empty() ? "" : "did you mean \"" + near + "\"? ") + ("known: " + join(names)));
}

bool glob_matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, text_after_star = 0;
  std::size_t star = std::string_view::npos;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      text_after_star = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {  // the last star takes one more character
      p = star + 1;
      t = ++text_after_star;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

constexpr std::string_view kRegexPrefix = "re:";

/// Up to three names that the user may have meant: those like the whole pattern, else those whose
/// last part is like the pattern's, else any.
std::vector<std::string> examples_for(std::string_view pattern, std::vector<std::string> names) {
  constexpr std::size_t kMost = 3;
  if (pattern.starts_with(kRegexPrefix)) pattern.remove_prefix(kRegexPrefix.size());
  const auto last_part = [](std::string_view name) {
    return std::string(name.substr(name.rfind('.') + 1));  // npos + 1 = 0
  };
  std::vector<std::string> last_parts(names.size());
  std::ranges::transform(names, last_parts.begin(), last_part);
  const std::string near_part = nearest_name(last_part(pattern), last_parts);

  std::vector<std::string> rest = names, near;
  while (near.size() < kMost) {
    const std::string best = nearest_name(pattern, rest);
    if (best.empty()) break;
    near.push_back(best);
    std::erase(rest, best);
  }
  if (!near.empty()) return near;
  if (!near_part.empty())
    std::erase_if(names, [&](const std::string& name) { return last_part(name) != near_part; });
  names.resize(std::min(names.size(), kMost));
  return names;
}

NamePredicate matcher(const std::string& pattern, const Field& option) {
  if (!pattern.starts_with(kRegexPrefix))
    return [pattern](const std::string& name) {
      if (glob_matches(pattern, name)) return true;
      const std::string other = nn::other_text_spelling(name);
      return !other.empty() && glob_matches(pattern, other);
    };
  const auto fail = [pattern, option](const std::regex_error& problem) -> Error {
    return {ErrorCode::invalid_argument, option,
            "\"" + pattern + "\" is not a usable regular expression: " + problem.what(),
            "without \"re:\" a pattern is a glob, for example \"unet.mid_block.*.to_q\""};
  };
  try {
    return
        [fail, regex = std::regex(pattern.substr(kRegexPrefix.size()))](const std::string& name) {
          try {
            return std::regex_search(name, regex);
          } catch (const std::regex_error& problem) {  // it may give up while matching, too
            throw fail(problem);
          }
        };
  } catch (const std::regex_error& problem) {
    throw fail(problem);
  }
}

std::vector<Target> all_layers(const Components& components) {
  std::vector<Target> layers;
  for (const auto& [component, index] : components)
    for (const auto& [name, layer] : index->layers) layers.push_back({component, name, layer});
  return layers;
}

/// Sets the mark of every layer that the predicate selects; false when there is none.
bool mark(const std::vector<Target>& layers, const Predicate& selects, bool value,
          std::vector<bool>& marks) {
  bool any = false;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (!selects(layers[i])) continue;
    marks[i] = value;
    any = true;
  }
  return any;
}

void mark_patterns(const std::vector<Target>& layers, const std::vector<std::string>& patterns,
                   const Field& option, bool value, std::vector<bool>& marks) {
  for (const std::string& pattern : patterns) {
    const auto selects = [match = matcher(pattern, option)](const Target& target) {
      return match(target.full_name());
    };
    if (mark(layers, selects, value, marks)) continue;
    std::vector<std::string> names(layers.size());
    std::ranges::transform(layers, names.begin(), &Target::full_name);
    throw Error(ErrorCode::invalid_argument, option, "\"" + pattern + "\" matches no layer",
                "layers are named like " + join(examples_for(pattern, std::move(names))));
  }
}

}  // namespace

bool pattern_matches(const std::string& pattern, const std::string& name, const Field& option) {
  return matcher(pattern, option)(name);
}

std::string layer_group(const Target& target) {
  std::string group = target.component;
  if (target.component == kTransformer && target.name.starts_with(kDoubleBlocks))
    group += ", double blocks";
  if (target.component == kTransformer && target.name.starts_with(kSingleBlocks))
    group += ", single blocks";
  if (is_embedding(target)) return group + ", embeddings";
  if (is_named(target, &LayerNames::attention)) return group + ", attention";
  if (is_named(target, &LayerNames::feed_forward)) return group + ", feed-forward";
  if (target.component == kTransformer && target.name.find(".norm") != std::string::npos)
    return group + ", modulation";
  return group + ", other layers";
}

std::vector<std::string> target_presets() {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.push_back(preset.name);
  return names;
}

std::vector<Target> select_targets(const Components& components, const TargetOptions& options) {
  const std::vector<Target> layers = all_layers(components);
  std::vector<bool> marks(layers.size(), false);
  std::vector<std::string> chosen = options.presets;
  if (chosen.empty() && options.include.empty()) chosen = {"attention"};
  for (const std::string& name : chosen) {
    if (mark(layers, find_preset(name).selects, true, marks)) continue;
    std::vector<std::string> parts;
    for (const auto& component : components) parts.push_back(component.first);
    const bool blocks = name.ends_with("-blocks");
    throw Error(ErrorCode::invalid_argument, Field("targets"),
                "the preset \"" + name + "\" matches no layer",
                blocks ? "FLUX has double and single blocks, Stable Diffusion 3 double blocks; the "
                         "model's parts are: " +
                             join(parts)
                       : "the model's parts are: " + join(parts));
  }
  mark_patterns(layers, options.include, Field("include"), true, marks);
  mark_patterns(layers, options.exclude, Field("exclude"), false, marks);

  std::vector<Target> selected;
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (marks[i]) selected.push_back(layers[i]);
  if (selected.empty())
    throw Error(ErrorCode::invalid_argument, Field("exclude"), "excludes every selected layer",
                "exclude less, or include more");
  return selected;
}

}  // namespace ringlet::adapt
