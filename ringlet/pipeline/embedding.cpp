#include "ringlet/pipeline/embedding.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/formats/adapter_tensors.h"
#include "ringlet/io/tensor_file.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

Error bad(const fs::path& file, const std::string& what) {
  return {ErrorCode::bad_format, file.string(), what,
          "a textual-inversion file holds \"emb_params\", \"clip_l\" and \"clip_g\", or one tensor "
          "named after the word"};
}

at::Tensor rows_of(const std::shared_ptr<const io::SafetensorsFile>& file,
                   const io::TensorInfo& info) {
  const at::Tensor stored = io::view_tensor(file, info);
  constexpr std::int64_t kMostVectors = 75;  // what a prompt holds
  const bool fits = (stored.dim() == 1 || stored.dim() == 2) && stored.numel() > 0 &&
                    at::isFloatingType(stored.scalar_type());
  const at::Tensor rows = fits && stored.dim() == 1 ? stored.unsqueeze(0) : stored;
  if (!fits || rows.size(0) > kMostVectors)
    throw bad(file->path(), "tensor \"" + info.name + "\" is not a list of 1 to 75 vectors");
  if (!rows.isfinite().all().item<bool>())
    throw Error(ErrorCode::non_finite, file->path().string(),
                "tensor \"" + info.name + "\" holds a NaN or an infinity", "the file is damaged");
  return rows.to(at::kFloat);
}

/// Those that OneTrainer and SD web UIs bundle with an adapter: "bundle_emb.WORD.clip_l" (and
/// clip_g), "bundle_emb.WORD.string_to_param.*" or "bundle_emb.WORD.emb_params".
std::vector<TextEmbedding> bundled_embeddings(
    const std::shared_ptr<const io::SafetensorsFile>& file) {
  constexpr std::string_view kBefore = formats::kBundledEmbedding;
  static const std::map<std::string, std::size_t, std::less<>> kEncoders = {
      {"clip_l", 0}, {"string_to_param.*", 0}, {"emb_params", 0}, {"clip_g", 1}};
  std::map<std::string, std::map<std::size_t, at::Tensor>> words;
  for (const io::TensorInfo& info : file->tensors()) {
    if (!info.name.starts_with(kBefore)) continue;
    const std::string rest = info.name.substr(kBefore.size());
    const auto part = std::ranges::find_if(
        kEncoders, [&](const auto& one) { return rest.ends_with("." + one.first); });
    if (part == kEncoders.end())
      throw Error(
          ErrorCode::unsupported, file->path().string(),
          "tensor \"" + info.name + "\" is not a text encoder's input",
          "of bundled embeddings clip_l, clip_g, emb_params and string_to_param.* are read");
    const std::string word = rest.substr(0, rest.size() - part->first.size() - 1);
    if (!words[word].emplace(part->second, rows_of(file, info)).second)
      throw bad(file->path(), "has the vectors of \"" + word + "\" twice");
  }
  std::vector<TextEmbedding> embeddings;
  for (const auto& [word, rows] : words) {
    if (!rows.contains(0))
      throw bad(file->path(), "has \"clip_g\" of \"" + word + "\" but no \"clip_l\"");
    embeddings.push_back({word, {}});
    for (const auto& [encoder, tensor] : rows) embeddings.back().rows.push_back(tensor);
  }
  return embeddings;
}

}  // namespace

std::vector<TextEmbedding> read_embeddings(const fs::path& path) {
  const auto file = io::SafetensorsFile::open(path);
  const std::string name = path.stem().string();
  if (auto bundled = bundled_embeddings(file); !bundled.empty()) return bundled;
  if (const io::TensorInfo* first = file->find("clip_l"); first != nullptr) {
    const io::TensorInfo* second = file->find("clip_g");
    if (second == nullptr) throw bad(path, "has \"clip_l\" but no \"clip_g\"");
    return {{name, {rows_of(file, *first), rows_of(file, *second)}}};
  }
  if (const io::TensorInfo* only = file->find("emb_params"); only != nullptr)
    return {{name, {rows_of(file, *only)}}};
  std::vector<TextEmbedding> words;
  for (const io::TensorInfo& info : file->tensors())
    if (file->tensors().size() == 1 || info.name.starts_with('<'))
      words.push_back({info.name, {rows_of(file, info)}});
  if (words.empty()) throw bad(path, "holds no embedding");
  return words;
}

}  // namespace ringlet::pipeline
