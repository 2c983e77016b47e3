#include "ringlet/formats/layer_writer.h"

#include <utility>

#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include "ringlet/adapt/registry.h"
#include "ringlet/formats/part_format.h"

namespace ringlet::formats {
namespace {

/// Whether the checkpoint stores the weight as [in, out], as GPT-2's Conv1D does.
bool is_stored_transposed(const nn::Layer& layer) {
  if (layer.shape().size() != 2) return false;
  return layer.stored(at::zeros({1, 2})).size(0) == 2;
}

}  // namespace

LayerWriter::LayerWriter(AdapterFormat format, const nn::Layer& layer,
                         const adapt::TransformResidual& adapter)
    : format_(format),
      layer_(layer),
      shape_(adapt::LayerShape::of(layer.shape())),
      adapter_(adapter) {
  for (const adapt::Parameters& some : {adapter.parameters(), adapter.constants()})
    for (const auto& [name, tensor] : some) numbers_[name] = tensor.detach().cpu();
  for (const adapt::PartSpec& part : adapter.method().parts) {
    const adapt::PartKind kind = adapt::find_part(part.name).kind;
    if (kind == adapt::PartKind::transform) transforms_.push_back(&part);
    if (kind == adapt::PartKind::residual) residual_ = &part;
    if (kind == adapt::PartKind::magnitude) magnitude_ = &part;
    if (kind == adapt::PartKind::bias) bias_ = &part;
  }
}

LayerWriting LayerWriter::write() {
  const PartFormat* const format = find_format(leading_part(adapter_.method()).name);
  if (format == nullptr || format->write == nullptr)
    refuse_method();
  else if (format->holds(format_))
    format->write(*this);
  else if (format_ == AdapterFormat::kohya && format->holds(AdapterFormat::lycoris))
    refuse("has no form for " + adapter_.spec() + "; LyCORIS may have");
  else
    refuse_method();
  if (peft() && !refused()) check_peft_class();
  return std::move(writing_);
}

void LayerWriter::refuse_method() { refuse("has no form for " + adapter_.spec()); }

void LayerWriter::check_peft_class() {
  const std::string& name = leading_part(adapter_.method()).name;
  writing_.fan_in_fan_out = is_stored_transposed(layer_);
  if (writing_.fan_in_fan_out && !find_format(name)->peft.of_conv1d)
    refuse("has no " + name + " for layers of class Conv1D (GPT-2)");
  if (dynamic_cast<const nn::EmbeddingLayer*>(&layer_) != nullptr) write_table();
}

void LayerWriter::write_table() {
  const auto& tensors = writing_.tensors;
  if (tensors.size() != 2 || !tensors.contains("down") || !tensors.contains("up"))
    return refuse("has LoRA only for tables, not " + adapter_.spec());
  writing_.tensors = {{"table_down", tensors.at("up").t().contiguous()},
                      {"table_up", tensors.at("down").t().contiguous()}};
}

void LayerWriter::put_scale(double alpha, double rank) {
  if (lycoris()) put("alpha", at::scalar_tensor(alpha, at::kFloat));
  writing_.alpha = alpha;
  writing_.rank = rank;
}

void LayerWriter::put_block(std::int64_t block) {
  writing_.width = shape_.patch();
  writing_.block = block;
}

LayerWriting write_layer(AdapterFormat format, const nn::Layer& layer,
                         const adapt::TransformResidual& adapter) {
  return LayerWriter(format, layer, adapter).write();
}

}  // namespace ringlet::formats
