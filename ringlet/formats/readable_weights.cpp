#include "ringlet/formats/readable_weights.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <ATen/TensorOperators.h>

#include "ringlet/core/error.h"

namespace ringlet::formats {
namespace {

constexpr const char* kUseUnquantised =
    "use the file as it was published, in fp32, bf16, fp16 or fp8; `base_storage=nf4` and the like "
    "keep its weights narrow in memory";

/// Programs by the endings of tensors that only they write.
struct Quantiser {
  std::string_view ending;
  const char* name;
};
constexpr std::array<Quantiser, 16> kQuantisers = {{
    {".quant_state.bitsandbytes__nf4", "bitsandbytes (nf4)"},
    {".quant_state.bitsandbytes__fp4", "bitsandbytes (fp4)"},
    {".absmax", "bitsandbytes (4 bits)"},
    {".quant_map", "bitsandbytes (4 bits)"},
    {".SCB", "bitsandbytes (int8)"},
    {".wscales", "Nunchaku (SVDQuant)"},
    {".smooth_factor", "Nunchaku (SVDQuant)"},
    {".smooth_orig", "Nunchaku (SVDQuant)"},
    {".g_idx", "GPTQ"},
    {".qzeros", "AWQ or GPTQ"},
    {".qweight", "AWQ, GPTQ or Nunchaku"},
    {".weight._data", "Quanto"},
    {".weight._scale", "Quanto"},
    {".weight._packed", "Quanto"},
    {".weight_scale_2", "ComfyUI or ModelOpt (nvfp4)"},
    {".weight_packed", "compressed-tensors"},
}};

constexpr std::string_view kWeightName = ".weight";
/// ComfyUI's scale beside a weight, in its two spellings.
constexpr std::array<std::string_view, 2> kScaleNames = {".scale_weight", ".weight_scale"};
/// Tensors of such files that say nothing about the weights' values.
constexpr std::array<std::string_view, 4> kBesideScales = {".scale_input", ".input_scale",
                                                           ".comfy_quant", ".weight_format"};
constexpr std::string_view kScaledMarker = "scaled_fp8";

bool is_fp8(io::Dtype type) {
  using enum io::Dtype;
  return type == f8_e4m3 || type == f8_e5m2 || type == f8_e4m3fnuz || type == f8_e5m2fnuz;
}

bool is_whole_number(io::Dtype type) {
  using enum io::Dtype;
  return type == u8 || type == i8 || type == u16 || type == i16 || type == u32 || type == i32 ||
         type == u64 || type == i64;
}

[[noreturn]] void refuse(const std::string& where, const std::string& said,
                         const std::string& program) {
  throw Error(ErrorCode::unsupported, where,
              said + " says that the weights were quantised by " + program +
                  ", which ringlet does not read",
              kUseUnquantised);
}

std::string quoted_tensor(const std::string& name) { return "tensor \"" + name + "\""; }

/// ComfyUI's note about a layer, {"format": "float8_e4m3fn"}, as bytes in a tensor.
void check_comfy_quant(const io::SafetensorsFile& file, const io::TensorInfo& info) {
  const auto bytes = file.bytes(info);
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const std::string format =
      json.is_object() && json.contains("format") && json.at("format").is_string()
          ? json.at("format").get<std::string>()
          : "an unknown format";
  if (format != "float8_e4m3fn" && format != "float8_e5m2")
    refuse(file.path().string(), quoted_tensor(info.name), "ComfyUI (" + format + ")");
}

bool is_beside_scales(std::string_view name) {
  return std::ranges::any_of(kBesideScales,
                             [&](std::string_view end) { return name.ends_with(end); }) ||
         name == kScaledMarker || name.ends_with("." + std::string(kScaledMarker));
}

/// The weight that a tensor is the scale of, or "".
std::string scaled_weight(const std::string& name) {
  for (const std::string_view ending : kScaleNames)
    if (name.ends_with(ending))
      return name.substr(0, name.size() - ending.size()) + std::string(kWeightName);
  return "";
}

}  // namespace

WidenedStore::WidenedStore(std::shared_ptr<const nn::FileStore> store,
                           std::map<std::string, std::string> scales,
                           std::vector<std::string> names)
    : store_(std::move(store)), scales_(std::move(scales)), names_(std::move(names)) {}

std::optional<at::Tensor> WidenedStore::find(const std::string& name, const nn::Shape& shape,
                                             const nn::Init& init) const {
  std::optional<at::Tensor> found = store_->find(name, shape, init);
  const auto scale_name = scales_.find(name);
  if (!found || !found->is_floating_point()) return found;
  if (scale_name == scales_.end())
    return at::isFloat8Type(found->scalar_type()) ? found->to(at::kBFloat16) : *found;
  at::Tensor scale = store_->find(scale_name->second, {}, {}).value().to(at::kFloat).flatten();
  nn::Shape places(static_cast<std::size_t>(found->dim()), 1);
  if (!places.empty() && scale.numel() == found->size(0)) places.front() = scale.numel();
  if (scale.numel() != 1 && (places.empty() || scale.numel() != places.front()))
    throw Error(ErrorCode::unsupported, description(),
                quoted_tensor(scale_name->second) + " has " + std::to_string(scale.numel()) +
                    " numbers: it is neither one scale nor one for each output row",
                kUseUnquantised);
  return found->to(at::kFloat) * scale.view(places);
}

std::shared_ptr<const nn::TensorStore> as_stored(
    const std::shared_ptr<const nn::TensorStore>& weights) {
  const auto* widened = dynamic_cast<const WidenedStore*>(weights.get());
  if (widened != nullptr) return widened->stored();
  return weights;
}

void refuse_quantised(const io::SafetensorsFile& file) {
  const std::string where = file.path().string();
  for (const auto& [ending, program] : kQuantisers)
    for (const io::TensorInfo& info : file.tensors())
      if (info.name.ends_with(ending)) refuse(where, quoted_tensor(info.name), program);
  if (file.metadata().contains("quantization_config"))
    refuse(where, "the metadata \"quantization_config\"", "another program");
  for (const io::TensorInfo& info : file.tensors()) {
    if (info.name.ends_with(".comfy_quant")) check_comfy_quant(file, info);
    const bool known = io::bits(info.dtype) >= 8 && info.dtype != io::Dtype::f8_e8m0;
    if (info.name.ends_with(kWeightName) && (is_whole_number(info.dtype) || !known))
      refuse(where,
             quoted_tensor(info.name) + ", of type " + std::string(io::to_string(info.dtype)) + ",",
             "another program");
  }
}

void refuse_quantised(const Json& config, const std::string& where) {
  if (!config.is_object() || !config.contains("quantization_config")) return;
  const Json& said = config.at("quantization_config");
  if (said.is_null()) return;
  const bool named =
      said.is_object() && said.contains("quant_method") && said.at("quant_method").is_string();
  refuse(where, "field \"quantization_config\"",
         named ? said.at("quant_method").get<std::string>() : "another program");
}

std::shared_ptr<const nn::TensorStore> readable_weights(
    std::shared_ptr<const nn::FileStore> weights) {
  std::map<std::string, std::string> scales;
  std::vector<std::string> names;
  bool narrow = false;
  for (const auto& file : weights->files()) {
    refuse_quantised(*file);
    narrow = narrow || std::ranges::any_of(file->tensors(), [](const io::TensorInfo& info) {
               return is_fp8(info.dtype);
             });
  }
  if (!narrow) return weights;
  const std::vector<std::string> all = weights->names();
  for (const std::string& name : all) {
    if (is_beside_scales(name)) continue;
    const std::string weight = scaled_weight(name);
    if (!weight.empty() && std::ranges::binary_search(all, weight))
      scales[weight] = name;
    else
      names.push_back(name);
  }
  return std::make_shared<WidenedStore>(std::move(weights), std::move(scales), std::move(names));
}

}  // namespace ringlet::formats
