#include "ringlet/formats/renamed_store.h"

#include <algorithm>
#include <array>
#include <utility>

#include "ringlet/formats/readable_weights.h"
#include "ringlet/nn/text_model_level.h"

namespace ringlet::formats {

RenamedStore::RenamedStore(std::shared_ptr<const nn::TensorStore> store,
                           std::map<std::string, TensorOrigin> origins, bool lacks_text_model_level)
    : store_(std::move(store)),
      origins_(std::move(origins)),
      lacks_text_model_level_(lacks_text_model_level),
      makes_tensors_(dynamic_cast<const WidenedStore*>(store_.get()) != nullptr) {}

std::optional<at::Tensor> RenamedStore::find(const std::string& name, const nn::Shape& shape,
                                             const nn::Init& init) const {
  const auto found = origins_.find(name);
  if (found == origins_.end()) return std::nullopt;
  const TensorOrigin& origin = found->second;
  std::optional<at::Tensor> tensor = store_->find(origin.name, shape, init);
  if (!tensor) return std::nullopt;
  // A tensor of another shape stays whole: whoever asked for it says that it does not fit.
  if (!origin.rows.empty() && has_rows(*tensor, origin.rows)) {
    tensor = taken_rows(*tensor, origin.rows);
    // What was made for this call would be in memory as a whole for each of its pieces.
    if (makes_tensors_) tensor = tensor->clone();
  }
  if (origin.transpose && tensor->dim() == 2) tensor = tensor->t().contiguous();
  if (origin.drop_kernel && tensor->dim() == 4) tensor = tensor->flatten(1);
  return tensor;
}

std::map<std::string, at::Tensor> RenamedStore::in_origin(
    const std::map<std::string, at::Tensor>& tensors) const {
  std::map<std::string, at::Tensor> out;
  for (const auto& [name, tensor] : tensors) {
    const TensorOrigin& origin = origins_.at(name);
    const auto [place, fresh] = out.try_emplace(origin.name);
    if (fresh) place->second = store_->find(origin.name, {}, {}).value().clone();
    at::Tensor part = place->second;
    if (!origin.rows.empty()) {
      put_rows(part, origin.rows, tensor);
      continue;
    }
    if (origin.transpose && part.dim() == 2) part = part.t();
    part.copy_(tensor.view(part.sizes()));
  }
  return out;
}

std::vector<std::string> RenamedStore::names() const {
  std::vector<std::string> out;
  for (const auto& [name, origin] : origins_) out.push_back(name);
  return out;
}

std::shared_ptr<const nn::TensorStore> with_current_attention_names(
    std::shared_ptr<const nn::TensorStore> store) {
  static constexpr std::array<std::pair<const char*, const char*>, 4> kOldToNew = {
      {{".query.", ".to_q."},
       {".key.", ".to_k."},
       {".value.", ".to_v."},
       {".proj_attn.", ".to_out.0."}}};
  std::map<std::string, TensorOrigin> origins;
  bool changed = false;
  for (const std::string& name : store->names()) {
    std::string current = name;
    for (const auto& [old_part, new_part] : kOldToNew) {
      const std::size_t at = current.find(old_part);
      if (at == std::string::npos) continue;
      current.replace(at, std::string_view(old_part).size(), new_part);
      changed = true;
    }
    origins[current] = {.name = name, .drop_kernel = current != name};
  }
  if (!changed) return store;
  return std::make_shared<RenamedStore>(std::move(store), std::move(origins));
}

std::shared_ptr<const nn::TensorStore> with_text_model_level(
    std::shared_ptr<const nn::TensorStore> store) {
  const std::vector<std::string> names = store->names();
  const auto has = [&](const char* name) { return std::ranges::find(names, name) != names.end(); };
  if (!has("embeddings.token_embedding.weight") || !has("encoder.layers.0.self_attn.q_proj.weight"))
    return store;
  std::map<std::string, TensorOrigin> origins;
  for (const std::string& name : names) origins[nn::with_text_model_level(name)] = {.name = name};
  return std::make_shared<RenamedStore>(std::move(store), std::move(origins), true);
}

bool lacks_text_model_level(const nn::TensorStore& store) {
  const auto* renamed = dynamic_cast<const RenamedStore*>(&store);
  return renamed != nullptr && renamed->lacks_text_model_level();
}

}  // namespace ringlet::formats
