// LoRA and its kin, and products of small factors: AdaLoRA, LoHa, LoKr.
#include <cmath>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/kronecker.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/layer_reader.h"

namespace ringlet::formats {

void LayerReader::read_lora() {
  check_type("LORA");
  const at::Tensor& down = give("down", "residual.down");
  const at::Tensor& up = give("up", "residual.up");
  const std::int64_t rank = rank_of("down", down, 0);
  if (rank_of("up", up, 1) != rank)
    throw bad("up", "has " + std::to_string(up.size(1)) + " ranks, the other factor " +
                        std::to_string(rank));
  check_rank("down", rank);
  std::string more;
  const bool mid = has("mid");
  if (mid) {
    if (shape_.positions() == 1) throw bad("mid", "is a core for a kernel, which the layer lacks");
    give("mid", "residual.mid");
    more += ",tucker=yes";
  }
  if (configured("use_rslora")) {
    more += ",scaling=sqrt";
    decisions_.insert("rsLoRA: scale = alpha / sqrt(rank)");
  }
  const std::string start = start_from();
  const double of_alpha = alpha(rank);
  if (!start.empty()) more += start_from_weight(start, rank, of_alpha, more);
  std::string bias;
  if (configured("lora_bias") || has("up_bias")) {
    const double root = more.find("sqrt") != std::string::npos ? std::sqrt(rank) : rank;
    give("up_bias", "bias.d");
    bias = "+bias(scale=" + exact_number(of_alpha / root) + ")";
  }
  reading_.method = ranked("lora", rank, of_alpha, more) + magnitude() + bias;
}

void LayerReader::read_table() {
  check_type("LORA");
  const at::Tensor &a = take("table_down"), &b = take("table_up");
  const std::int64_t rank = rank_of("table_down", a, 0);
  if (a.dim() != 2 || b.dim() != 2 || b.size(1) != rank || a.size(1) != shape_.out ||
      b.size(0) != shape_.in || shape_.convolution)
    throw bad("table_down", "and its partner do not fit a table of " + std::to_string(shape_.out) +
                                "x" + std::to_string(shape_.in));
  check_rank("table_down", rank);
  if (!start_from().empty() || configured("use_dora"))
    throw Error(ErrorCode::unsupported, file_.names.at("table_down"),
                "is of a table with DoRA or a start from the weight, which is not known here",
                "merge the adapter with PEFT and use the merged model");
  give("residual.up", a.t().contiguous());
  give("residual.down", b.t().contiguous());
  reading_.method =
      ranked("lora", rank, alpha(rank), configured("use_rslora") ? ",scaling=sqrt" : "");
}

std::string LayerReader::start_from() const {
  if (context_.config == nullptr) return "";
  const std::string word = context_.config->word("init_lora_weights", "");
  if (word.starts_with("pissa")) return "pissa";
  if (word == "olora") return word;
  for (const char* harmless : {"", "gaussian", "orthogonal", "eva", "mica", "lora_ga"})
    if (word == harmless) return "";
  throw Error(ErrorCode::unsupported, context_.config->where(),
              "init_lora_weights is \"" + shown(word) +
                  "\", which may change the model's weight and is not known here",
              "merge the adapter with PEFT and use the merged model");
}

std::string LayerReader::start_from_weight(const std::string& start, std::int64_t rank,
                                           double of_alpha, const std::string& more) {
  const std::string option = ",init=" + start;
  adapt::FactorTable factors;
  const auto fresh =
      adapt::build_adapter(to_method(ranked("lora", rank, of_alpha, more + option), file_.prefix),
                           *context_.layer, factors, Random(0), file_.prefix);
  for (const auto& [name, tensor] : fresh->constants()) {
    if (!tensor.isfinite().all().item<bool>())
      throw Error(ErrorCode::non_finite, file_.prefix,
                  "has no finite start of \"" + start + "\" with alpha " + exact_number(of_alpha),
                  "the configuration is damaged, or the model's weight not finite");
    give(name, tensor);
  }
  decisions_.insert(start + ": the start is taken from the model's own weight, as PEFT does");
  return option;
}

void LayerReader::read_adalora() {
  check_type("ADALORA");
  const at::Tensor& down = take("down");
  const at::Tensor& scale = take("rank_scale");
  rank_of("down", down, 1);
  const std::int64_t rank = down.size(0), first_rank = context_.config->integer("init_r", 12);
  if (first_rank < 1)
    throw Error(ErrorCode::unsupported, context_.config->where(),
                "init_r is " + std::to_string(first_rank) + ", not a rank");
  const double initial = static_cast<double>(first_rank) + 1e-5;
  if (scale.numel() != rank) throw bad("rank_scale", "does not have one number per rank");
  give("residual.down", down.to(at::kFloat).flatten(1) * scale.to(at::kFloat).view({-1, 1}));
  give("up", "residual.up");
  // AdaLoRA's scale is alpha over the first rank, whatever rank is left.
  const double of_alpha = alpha(rank) * static_cast<double>(rank) / initial;
  decisions_.insert("AdaLoRA becomes LoRA: its diagonal goes into the first factor");
  reading_.method = ranked("lora", rank, of_alpha);
}

void LayerReader::read_loha() {
  check_type("LOHA");
  for (const char* name : {"w1_a", "w1_b", "w2_a", "w2_b"})
    give((std::string("hada_") + name).c_str(), std::string("residual.") + name);
  const bool tucker = has("hada_t1") || has("hada_t2");
  if (tucker) {
    give("hada_t1", "residual.t1");
    give("hada_t2", "residual.t2");
  }
  const std::int64_t rank = rank_of("hada_w1_b", file_.tensors.at("hada_w1_b"), 0);
  check_rank("hada_w1_b", rank);
  reading_.method = ranked("loha", rank, alpha(rank), tucker ? ",tucker=yes" : "") + magnitude();
}

void LayerReader::read_lokr() {
  check_type("LOKR");
  const bool whole_1 = has("lokr_w1"), whole_2 = has("lokr_w2"), tucker = has("lokr_t2");
  std::int64_t rank = 0, a = 0, b = 0, c = 0, d = 0;
  if (whole_1) {
    const at::Tensor& w1 = give("lokr_w1", "residual.w1");
    a = rank_of("lokr_w1", w1, 0);
    c = rank_of("lokr_w1", w1, 1);
  } else {
    a = rank_of("lokr_w1_a", give("lokr_w1_a", "residual.w1_a"), 0);
    const at::Tensor& second = give("lokr_w1_b", "residual.w1_b");
    rank = rank_of("lokr_w1_b", second, 0);
    c = rank_of("lokr_w1_b", second, 1);
  }
  if (whole_2) {
    const at::Tensor& w2 = give("lokr_w2", "residual.w2");
    b = rank_of("lokr_w2", w2, 0);
    d = columns("lokr_w2", w2, c);
  } else {
    const at::Tensor& first = give("lokr_w2_a", "residual.w2_a");
    const at::Tensor& second = give("lokr_w2_b", "residual.w2_b");
    if (tucker) give("lokr_t2", "residual.t2");
    b = rank_of("lokr_w2_a", first, tucker ? 1 : 0);
    rank = rank_of("lokr_w2_b", second, 0);
    d = tucker ? rank_of("lokr_w2_b", second, 1) : columns("lokr_w2_b", second, c);
  }
  // A core has the kernel's positions, so that the columns beside it are channels.
  const bool fits = c * d == shape_.in || (!tucker && c * d == shape_.patch());
  if (a * b != shape_.out || !fits)
    throw bad(whole_1 ? "lokr_w1" : "lokr_w1_a",
              "and its partner make " + std::to_string(a * b) + "x" + std::to_string(c * d) +
                  ", the layer is " + std::to_string(shape_.out) + "x" + std::to_string(shape_.in));
  const auto pair = [](std::int64_t m, std::int64_t n) {
    return std::to_string(m) + "x" + std::to_string(n);
  };
  const std::string form = ",out=" + pair(a, b) + ",in=" + pair(c, d) +
                           (whole_1 ? ",w1=full" : ",w1=factored") +
                           (whole_2 ? ",w2=full" : ",w2=factored") + (tucker ? ",tucker=yes" : "");
  reading_.method = lokr_scale(rank, form) + magnitude();
}

std::string LayerReader::lokr_scale(std::int64_t rank, const std::string& form) {
  if (rank > 0) {
    check_rank(has("lokr_w2_b") ? "lokr_w2_b" : "lokr_w1_b", rank);
    return ranked("lokr", rank, alpha(rank), form);
  }
  if (context_.config != nullptr) {
    const std::int64_t r = context_.config->rank(context_.path, 8);
    return ranked("lokr", r, alpha(r), form);
  }
  // LyCORIS gives alpha the rank's value when neither factor is of low rank.
  const double stored = has("alpha") ? scalar("alpha") : 1.0;
  constexpr double kMost = 9007199254740992.0;  // 2^53, what a method's rank may be
  const bool keeps = stored >= 1.0 && stored <= kMost && std::floor(stored) == stored;
  decisions_.insert("LoKr of two whole factors: scale 1, whatever alpha the file states");
  return ranked("lokr", keeps ? static_cast<std::int64_t>(stored) : 1, keeps ? stored : 1.0, form);
}

std::int64_t LayerReader::columns(const char* what, const at::Tensor& tensor,
                                  std::int64_t c) const {
  if (tensor.dim() < 2) throw bad(what, "has too few axes");
  const std::int64_t all = tensor.numel() / tensor.size(0), positions = shape_.positions();
  // A flat kernel is a kernel where its positions divide it: c (d kh kw) = (c d) kh kw.
  return all % positions == 0 && c * (all / positions) == shape_.in ? all / positions : all;
}

}  // namespace ringlet::formats
