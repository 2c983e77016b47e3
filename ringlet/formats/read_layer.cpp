#include <cmath>

#include "ringlet/adapt/method_text.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/layer_reader.h"

namespace ringlet::formats {

LayerReading LayerReader::read() {
  for (const auto& [what, tensor] : file_.tensors) check_finite(what, tensor);
  check_base();
  read_family();
  read_bias();
  if (has("alpha") && !used_.contains("alpha")) {
    take("alpha");
    decisions_.insert("alpha counts for nothing beside a method without a scale");
  }
  for (const auto& [what, tensor] : file_.tensors)
    if (!used_.contains(what))
      throw Error(ErrorCode::bad_format, file_.names.at(what),
                  "does not belong to the rest of its layer's tensors (" + reading_.method + ")",
                  "the file is damaged, or of a method that is not known here");
  return std::move(reading_);
}

Error LayerReader::bad(const char* what, const std::string& problem) const {
  const auto name = file_.names.find(what);
  return {ErrorCode::mismatch, name == file_.names.end() ? file_.prefix : name->second, problem,
          "the adapter was made for another model, or is damaged"};
}

Error LayerReader::damaged(const char* what, const std::string& problem) const {
  return {ErrorCode::mismatch, file_.names.at(what), problem,
          "the file is damaged, or of a form that is not known here"};
}

void LayerReader::check_finite(const std::string& what, const at::Tensor& tensor) const {
  const at::ScalarType type = tensor.scalar_type();
  const bool setting = what == "alpha" || what == "on_input" || what == "oft_scaled";
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
    throw bad("base_weight", "is another weight than the model's own");
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
      decisions_.insert("alpha 0 means alpha = rank (scale 1), as in kohya and LyCORIS");
      return static_cast<double>(rank);
    }
    decisions_.insert("scale = alpha / rank, alpha from the file");
    return checked_scale(value, file_.names.at("alpha"));
  }
  if (context_.config != nullptr) {
    const PeftConfig& config = *context_.config;
    const double general = config.number("lora_alpha", config.number("alpha", 8.0));
    decisions_.insert("scale = alpha / rank, alpha from the configuration");
    return checked_scale(config.for_layer("alpha_pattern", context_.path, general), config.where());
  }
  decisions_.insert("no alpha in the file: scale 1");
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

std::string LayerReader::ranked(const std::string& part, std::int64_t rank, double of_alpha,
                                const std::string& more) const {
  return part + "(rank=" + std::to_string(rank) + ",alpha=" + exact_number(of_alpha) + more + ")";
}

std::int64_t LayerReader::rank_of(const char* what, const at::Tensor& tensor,
                                  std::int64_t axis) const {
  if (tensor.dim() <= axis) throw bad(what, "has too few axes");
  return tensor.size(axis);
}

std::string LayerReader::magnitude() {
  if (!configured("use_dora") && !has("magnitude")) return "";
  const at::Tensor& m = give("magnitude", "magnitude.m");
  const bool peft = !file_.names.at("magnitude").ends_with(".dora_scale");
  // [1, in] is the axis of LyCORIS before 3.2; PEFT's convolutions are [1, out, 1, 1].
  const bool columns = !peft && m.dim() > 1 && m.size(0) == 1 && m.numel() == shape_.in &&
                       (shape_.in != 1 || shape_.out != 1);
  if (m.numel() != (columns ? shape_.in : shape_.out))
    throw bad("magnitude", "has " + std::to_string(m.numel()) + " numbers, the layer " +
                               std::to_string(shape_.out) + " outputs and " +
                               std::to_string(shape_.in) + " inputs");
  decisions_.insert(columns ? "DoRA's lengths are those of input columns (from the shape [1, in])"
                            : "DoRA's lengths are those of output rows");
  std::string text = columns ? "+magnitude(axis=input" : "+magnitude(axis=output";
  return text + (peft ? ")" : ",norm=exact)");
}

void LayerReader::read_family() {
  if (has("hada_w1_b")) return read_loha();
  if (has("lokr_w1") || has("lokr_w1_a")) return read_lokr();
  if (has("oft_r")) return read_peft_oft();
  if (has("oft_blocks")) return read_lycoris_oft();
  if (has("oft_diag")) return read_old_lycoris_oft();
  if (has("boft_r")) return read_peft_boft();
  if (has("hra_u")) return read_hra();
  if (has("a1")) return read_glora();
  if (has("ia3")) return read_ia3();
  if (has("spectrum")) return read_fourier();
  if (has("vera_b")) return read_vera();
  if (has("diff") || has("set_weight")) return read_difference();
  if (has("rank_scale")) return read_adalora();
  if (has("down") || has("up")) return read_lora();
  if (has("table_down") || has("table_up")) return read_table();
  if (has("saved_weight") || has("saved_bias")) return read_saved();
  if (has("diff_b")) return;  // read() takes it
  throw Error(ErrorCode::unsupported, file_.telling_name(), "is a tensor of no known method",
              "merge the adapter with the program that made it, and use the merged model");
}

void LayerReader::read_glora() {
  const at::Tensor& a1 = give("a1", "transform.a1");
  const std::int64_t rank = rank_of("a1", a1, 1);
  give("a2", "transform.a2");
  give("b1", "residual.up");
  give("b2", "residual.down");
  if (rank_of("b1", file_.tensors.at("b1"), 1) != rank) throw bad("b1", "has another rank than a1");
  const double of_alpha = alpha(rank);
  reading_.method =
      ranked("lowrank", rank, of_alpha) + "+" + ranked("lora", rank, of_alpha, ",init=glora");
}

void LayerReader::read_ia3() {
  const at::Tensor& scale = give("ia3", "transform.scale");
  bool input = false;
  if (context_.naming == Naming::peft) {
    check_type("IA3");
    input = context_.config != nullptr &&
            context_.config->selects("feedforward_modules", context_.path);
    const bool bias = !input && context_.layer->bias().defined();
    reading_.method = input  ? "diagonal(side=input)"
                      : bias ? "diagonal(side=output,bias=yes)"
                             : "diagonal(side=output)";
    if (bias) decisions_.insert("IA3 on the output scales the bias, too (PEFT)");
  } else {
    input = scalar("on_input") != 0.0;
    reading_.method = std::string("diagonal(form=offset,side=") + (input ? "input)" : "output)");
  }
  decisions_.insert(input ? "IA3 on the input" : "IA3 on the output");
  if (scale.numel() != (input ? shape_.in : shape_.out))
    throw bad("ia3", "does not have one number per channel");
}

void LayerReader::read_fourier() {
  check_type("FOURIERFT");
  const at::Tensor& spectrum = give("spectrum", "residual.spectrum");
  reading_.method = "fourierft(n=" + std::to_string(spectrum.numel()) +
                    ",scale=" + exact_number(context_.config->number("scaling", 150.0)) +
                    ",seed=" + std::to_string(context_.config->integer("random_loc_seed", 777)) +
                    ")";
}

void LayerReader::read_vera() {
  check_type("VERA");
  give("vera_b", "residual.b");
  const at::Tensor& d = give("vera_d", "residual.d");
  check_rank("vera_d", d.numel());
  reading_.method = "vera(rank=" + std::to_string(d.numel()) +
                    ",seed=" + std::to_string(context_.config->integer("projection_prng_key", 0)) +
                    ")";
}

void LayerReader::read_saved() {
  const bool whole = has("saved_weight");
  if (context_.config == nullptr || !context_.config->is_set("modules_to_save"))
    throw bad(whole ? "saved_weight" : "saved_bias",
              "is a whole layer's, but the configuration names no modules_to_save");
  const auto difference = [&](const char* what, const at::Tensor& own) {
    const at::Tensor& saved = take(what);
    const bool fits = own.defined() && saved.sizes() == own.sizes();
    if (!fits) throw bad(what, "is of another shape than the model's own");
    return saved.to(at::kFloat) - own.to(at::kFloat);
  };
  const nn::Layer& layer = *context_.layer;
  if (whole) {
    // Turned back where the checkpoint stores the weight as [in, out].
    give("residual.diff", layer.stored(difference("saved_weight", layer.stored(layer.weight()))));
    reading_.method = "diff";
  }
  if (has("saved_bias")) {
    give("bias.d", difference("saved_bias", layer.bias()));
    reading_.method += whole ? "+bias" : "bias";
  }
  decisions_.insert("modules_to_save: whole layers, read as their difference from the model's");
}

void LayerReader::read_difference() {
  const char* what = has("diff") ? "diff" : "set_weight";
  const at::Tensor& stored = file_.tensors.at(what);
  const at::Tensor& w0 = context_.layer->weight();
  if (stored.numel() != w0.numel()) throw bad(what, "has another size than the layer's weight");
  if (has("diff")) {
    give("diff", "residual.diff");
  } else {
    decisions_.insert("set_weight is the whole weight: its difference from the model's is taken");
    give("residual.diff",
         take("set_weight").to(at::kFloat).reshape(w0.sizes()) - w0.to(at::kCPU, at::kFloat));
  }
  reading_.method = "diff" + magnitude();
}

void LayerReader::read_bias() {
  if (!has("diff_b")) return;
  give("diff_b", "bias.d");
  reading_.method += reading_.method.empty() ? "bias" : "+bias";
}

adapt::Method to_method(const std::string& text, const std::string& layer) {
  try {
    return adapt::parse_method(text);
  } catch (const Error& error) {
    throw Error(ErrorCode::unsupported, layer, "asks for what cannot be: " + error.message(),
                "the adapter is damaged, or of a kind that is not known here");
  }
}

LayerReading read_layer(const LayerTensors& file, const ReadingContext& context,
                        std::set<std::string>& decisions) {
  return LayerReader(file, context, decisions).read();
}

}  // namespace ringlet::formats
