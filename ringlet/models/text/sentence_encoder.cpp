#include "ringlet/models/text/sentence_encoder.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>

#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linalg_norm.h>
#include <ATen/ops/matmul.h>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/path_guard.h"

namespace ringlet::models {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::pair<const char*, Pooling>, 4> kPoolings{
    {{"pooling_mode_mean_tokens", Pooling::mean},
     {"pooling_mode_cls_token", Pooling::first_token},
     {"pooling_mode_max_tokens", Pooling::largest},
     {"pooling_mode_mean_sqrt_len_tokens", Pooling::mean_of_root}}};

/// sentence-transformers 5.3 and later write one word.
constexpr std::array<std::pair<const char*, Pooling>, 4> kPoolingWords{
    {{"mean", Pooling::mean},
     {"cls", Pooling::first_token},
     {"max", Pooling::largest},
     {"mean_sqrt_len_tokens", Pooling::mean_of_root}}};

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(
      ErrorCode::unsupported, where, what,
      "ringlet pools by the mean, the first token, the largest numbers or the mean with the "
      "root of the length");
}

Pooling read_pooling(const fs::path& file) {
  const Json json = read_json_file(file);
  const std::string where = file.string();
  if (const auto word = json.find("pooling_mode"); word != json.end() && word->is_string()) {
    for (const auto& [name, pooling] : kPoolingWords)
      if (*word == name) return pooling;
    refuse(where, "pooling_mode " + word->dump() + " is not known");
  }
  std::optional<Pooling> found;
  for (const auto& [key, value] : json.items()) {
    if (!key.starts_with("pooling_mode_") || value != true) continue;
    const auto known = std::ranges::find(kPoolings, key, &std::pair<const char*, Pooling>::first);
    if (known == kPoolings.end()) refuse(where, "\"" + key + "\" is not known");
    if (found) refuse(where, "joins several poolings");
    found = known->second;
  }
  if (!found) refuse(where, "names no pooling");
  return *found;
}

void read_limits(const fs::path& network, SentenceFolder& folder) {
  const fs::path file = network / "sentence_bert_config.json";
  if (!fs::exists(file)) return;
  const Json json = read_json_file(file);
  const auto length = json_value<std::int64_t>(json, "max_seq_length", 0, file.string());
  if (length > 0) folder.length = length;
  if (json_value(json, "do_lower_case", false, file.string()))
    throw Error(ErrorCode::unsupported, file.string(), "lowercases the text before the tokenizer",
                "set do_lower_case in tokenizer_config.json and remove it here");
}

}  // namespace

SentenceFolder SentenceFolder::read(const fs::path& folder) {
  SentenceFolder found{folder, Pooling::mean, std::nullopt};
  const fs::path modules = folder / "modules.json";
  if (fs::exists(modules)) {
    const std::string where = modules.string();
    const Json list = read_json_file(modules);
    if (!list.is_array()) throw Error(ErrorCode::bad_format, where, "is not a list of modules");
    for (const Json& module : list) {
      const auto type = json_require<std::string>(module, "type", where);
      const std::string kind = type.substr(type.rfind('.') + 1);
      const auto path = json_value<std::string>(module, "path", "", where);
      // Normalize has no files, and where empty folders are not kept no folder either.
      const auto place = [&] { return path.empty() ? folder : resolve_under(folder, path); };
      if (kind == "Transformer")
        found.network = place();
      else if (kind == "Pooling")
        found.pooling = read_pooling(place() / "config.json");
      else if (kind != "Normalize")
        throw Error(ErrorCode::unsupported, where, "has a module of the kind " + kind,
                    "ringlet reads Transformer, Pooling and Normalize");
    }
  }
  read_limits(found.network, found);
  return found;
}

SentenceEncoder::SentenceEncoder(const nn::WeightSource& source, const BertConfig& config,
                                 Pooling pooling)
    : network_(source, config), pooling_(pooling) {}

at::Tensor SentenceEncoder::forward(const TextBatch& texts) const {
  const at::Tensor tokens = network_.forward(texts);
  const at::Tensor seen = texts.seen.to(tokens.scalar_type()).unsqueeze(2);  // [B, T, 1]
  const auto pooled = [&] {
    if (pooling_ == Pooling::first_token) return tokens.select(1, 0);
    if (pooling_ == Pooling::largest)
      return tokens
          .masked_fill(texts.seen.logical_not().unsqueeze(2),
                       -std::numeric_limits<double>::infinity())
          .amax(1);
    const at::Tensor sum = (tokens * seen).sum(1), count = seen.sum(1);
    return sum / (pooling_ == Pooling::mean ? count : count.sqrt());
  };
  const at::Tensor rows = pooled();
  constexpr double kSmallest = 1e-12;
  return rows / at::linalg_norm(rows, 2, at::IntArrayRef{1}, /*keepdim=*/true).clamp_min(kSmallest);
}

at::Tensor ranking_loss(const at::Tensor& first, const at::Tensor& second, double scale) {
  const at::Tensor cosines = at::matmul(first, second.t()).to(at::kFloat) * scale;
  return at::cross_entropy_loss(cosines,
                                at::arange(first.size(0), first.options().dtype(at::kLong)));
}

}  // namespace ringlet::models
