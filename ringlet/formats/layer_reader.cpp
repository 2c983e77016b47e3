#include "ringlet/formats/layer_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ringlet/core/text.h"
#include "ringlet/formats/part_format.h"
#include "ringlet/formats/parts/parts.h"

namespace ringlet::formats {

LayerReading LayerReader::read() {
  for (const auto& [what, tensor] : file_.tensors) check_finite(what, tensor);
  check_base();
  const auto format = std::ranges::find_if(part_formats(), [&](const PartFormat& one) {
    return one.recognises != nullptr && one.recognises(file_);
  });
  if (format != part_formats().end())
    format->read(*this);
  else if (!has("diff_b"))
    throw Error(ErrorCode::unsupported, file_.telling_name(),
                "is a tensor of an unsupported method",
                "merge the adapter with the program that made it, and use the merged model");
  read_bias(*this);
  if (has("alpha") && !used_.contains("alpha")) {
    take("alpha");
    decide("alpha is ignored, since the method has no scale");
  }
  std::vector<std::string> names;
  for (const adapt::PartSpec& part : parts_) names.push_back(part.name);
  for (const auto& [what, tensor] : file_.tensors)
    if (!used_.contains(what))
      throw Error(ErrorCode::bad_format, file_.names.at(what),
                  "does not belong to the rest of its layer's tensors (" + join(names, "+") + ")",
                  "the file is damaged, or of an unsupported method");
  reading_.method = adapt::make_method(std::move(parts_));
  return std::move(reading_);
}

adapt::PartSpec LayerReader::part(const std::string& name, adapt::Options options) const {
  try {
    return adapt::make_part(name, std::move(options));
  } catch (const Error& error) {
    throw Error(ErrorCode::unsupported, file_.prefix,
                "has options that cannot be used: " + error.message(),
                "the adapter is damaged, or of an unsupported kind");
  }
}

void LayerReader::add(const std::string& name, adapt::Options options) {
  parts_.push_back(part(name, std::move(options)));
}

Error LayerReader::bad(const char* what, const std::string& problem) const {
  const auto name = file_.names.find(what);
  return {ErrorCode::mismatch, name == file_.names.end() ? file_.prefix : name->second, problem,
          "the adapter was made for another model, or is damaged"};
}

Error LayerReader::damaged(const char* what, const std::string& problem) const {
  return {ErrorCode::mismatch, file_.names.at(what), problem,
          "the file is damaged, or of an unsupported form"};
}

void LayerReader::check_finite(const std::string& what, const at::Tensor& tensor) const {
  const at::ScalarType type = tensor.scalar_type();
  const bool setting = is_setting(what);
  const bool whole =
      at::isIntegralType(type, what == "oft_scaled") && !at::isBarebonesUnsignedType(type);
  if (!is_factor_type(type) && !(setting && whole))
    throw damaged(what.c_str(), std::string("has numbers of type ") + at::toString(type));
  if (tensor.numel() == 0) throw damaged(what.c_str(), "is empty");
  if (!tensor.isfinite().all().item<bool>())
    throw Error(ErrorCode::non_finite, file_.names.at(what), "holds a NaN or an infinity",
                "the file is damaged, or its training diverged");
}

void LayerReader::check_base() {
  if (!has("base_weight")) return;
  const at::Tensor& kept = take("base_weight");
  const at::Tensor own = context_.layer->stored(context_.layer->weight());
  if (kept.sizes() != own.sizes() || !at::equal(kept.to(at::kFloat), own.to(at::kFloat)))
    throw bad("base_weight", "differs from the model's weight");
}

const at::Tensor& LayerReader::take(const char* what) {
  const auto found = file_.tensors.find(what);
  if (found == file_.tensors.end())
    throw Error(ErrorCode::bad_format, file_.prefix + ending(context_.naming, what), "is missing",
                "the file is incomplete; download it again");
  used_.insert(what);
  return found->second;
}

const at::Tensor& LayerReader::give(const char* what, const std::string& parameter) {
  const at::Tensor& tensor = take(what);
  reading_.tensors[parameter] = tensor;
  reading_.names[parameter] = file_.names.at(what);
  return tensor;
}

void LayerReader::give(const std::string& parameter, const at::Tensor& tensor) {
  reading_.tensors[parameter] = tensor;
}

double LayerReader::scalar(const char* what) {
  const at::Tensor& stored = take(what);
  if (stored.numel() != 1) throw damaged(what, "is not one number");
  return stored.to(at::kDouble).item<double>();
}

double LayerReader::checked_scale(double value, const std::string& where) const {
  constexpr double kMost = 1e18;  // full-matrix LoKr is trained with 1e10
  if (std::abs(value) <= kMost) return value;
  throw Error(ErrorCode::unsupported, where, exact_number(value) + " cannot be a scale",
              "the adapter is damaged");
}

double LayerReader::alpha(std::int64_t rank) {
  if (has("alpha")) {
    const double value = scalar("alpha");
    if (value < 0.0) throw damaged("alpha", "is " + exact_number(value) + ", below zero");
    if (value == 0.0) {
      decide("alpha 0 means alpha = rank (scale 1), as in kohya and LyCORIS");
      return static_cast<double>(rank);
    }
    decide("scale = alpha / rank, alpha from the file");
    return checked_scale(value, file_.names.at("alpha"));
  }
  if (context_.config != nullptr) {
    const PeftConfig& config = *context_.config;
    const double general = config.number("lora_alpha", config.number("alpha", 8.0));
    decide("scale = alpha / rank, alpha from the configuration");
    return checked_scale(config.for_layer("alpha_pattern", context_.path, general), config.where());
  }
  decide("no alpha in the file: scale 1");
  return static_cast<double>(rank);
}

void LayerReader::check_type(const char* type) const {
  if (context_.naming == Naming::peft && context_.config->type() != type)
    throw Error(ErrorCode::bad_format, context_.config->where(),
                "says peft_type \"" + context_.config->type() + "\", but " + file_.prefix +
                    " has tensors of " + type,
                "the folder was put together wrongly");
}

void LayerReader::check_rank(const char* what, std::int64_t rank) const {
  if (context_.config == nullptr) return;
  const std::int64_t stated = context_.config->rank(context_.path, rank);
  if (stated != rank)
    throw bad(what, "is of rank " + std::to_string(rank) + ", the configuration says rank " +
                        std::to_string(stated));
}

bool LayerReader::configured(const char* flag) const {
  return context_.config != nullptr && context_.config->flag(flag);
}

std::int64_t LayerReader::rank_of(const char* what, const at::Tensor& tensor,
                                  std::int64_t axis) const {
  if (tensor.dim() <= axis) throw bad(what, "has too few axes");
  return tensor.size(axis);
}

adapt::Options LayerReader::over_patches(std::int64_t width) const {
  const bool patches = width == shape_.patch() && shape_.positions() > 1;
  return {{"over", patches ? "patches" : "channels"}};
}

LayerReading read_layer(const LayerTensors& file, const ReadingContext& context,
                        std::set<std::string>& decisions) {
  return LayerReader(file, context, decisions).read();
}

}  // namespace ringlet::formats
