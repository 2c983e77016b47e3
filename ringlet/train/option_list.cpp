#include "ringlet/train/option_list.h"

#include <charconv>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

template <class Number = double>
Number number_in(const std::string& text, const Field& option) {
  Number number{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size())
    throw Error(ErrorCode::invalid_argument, option, "\"" + text + "\" is not a number");
  return number;
}

/// What is before and behind the last separator: a pattern may hold others.
std::pair<std::string, std::string> halves(const std::string& text, char separator,
                                           const Field& option, const std::string& example) {
  const std::size_t middle = text.rfind(separator);
  if (middle == std::string::npos)
    throw Error(ErrorCode::invalid_argument, option, "\"" + text + "\" cannot be read",
                "write it as " + example);
  return {text.substr(0, middle), text.substr(middle + 1)};
}

std::string nothing() { return ""; }

WrittenValue rates_by_pattern(const std::string& name, RateFactors& factors) {
  const auto read = [name, &factors](const std::vector<std::string>& texts) {
    const Field option(name);
    for (const std::string& text : texts) {
      const auto [pattern, factor] = halves(text, '=', option, "*.transform.*=0.5");
      factors.emplace_back(pattern, number_in(factor, option));
    }
  };
  return {.read = read,
          .value = [&factors] { return Json(factors); },
          .shown = nothing,
          .repeatable = true};
}

/// Steps, or below 1 a share of them.
WrittenValue warmup(LearningRate& rate) {
  const auto read = [&rate](const std::vector<std::string>& texts) {
    const Field option("warmup_steps");
    const auto number = number_in(texts.back(), option);
    if (!(number >= 0.0))
      throw Error(ErrorCode::invalid_argument, option, Range::at_least(0).refusal());
    if (number >= 1.0 && number != std::floor(number))
      throw Error(ErrorCode::invalid_argument, option,
                  "\"" + texts.back() + "\" is neither a number of steps nor a share below 1");
    rate.warmup = number < 1.0 ? 0 : number_in<std::int64_t>(texts.back(), option);
    rate.warmup_share = number < 1.0 ? number : 0.0;
  };
  const auto value = [&rate] {
    return rate.warmup_share > 0.0 ? Json(rate.warmup_share) : Json(rate.warmup);
  };
  const auto check = [&rate] {
    if (rate.warmup < 0 || !Range::share().contains(rate.warmup_share))
      throw Error(ErrorCode::invalid_argument, Field("warmup_steps"), Range::at_least(0).refusal());
  };
  return {.read = read,
          .value = value,
          .shown = [value] { return value().dump(); },
          .placeholder = "N",
          .check = check};
}

WrittenValue averages(OptimizerNumbers& numbers) {
  const auto read = [&numbers](const std::vector<std::string>& texts) {
    const Field option("betas");
    const auto [first, second] = halves(texts.back(), ',', option, "0.9,0.999");
    numbers.betas = {number_in(first, option), number_in(second, option)};
    for (const double beta : {numbers.betas->first, numbers.betas->second})
      if (!Range::share().contains(beta))
        throw Error(ErrorCode::invalid_argument, option, Range::share().refusal());
  };
  const auto value = [&numbers] { return numbers.betas ? Json(*numbers.betas) : Json(); };
  return {.read = read, .value = value, .shown = nothing};
}

WrittenValue dimension_factors(std::map<std::int64_t, adapt::Factors>& factors) {
  const auto read = [&factors](const std::vector<std::string>& texts) {
    const Field option("factors");
    for (const std::string& text : texts) {
      const auto [size, split] = halves(text, '=', option, "320=4x8x10");
      factors[number_in<std::int64_t>(size, option)] = adapt::parse_factors(split);
    }
  };
  const auto value = [&factors] {
    Json splits = Json::object();
    for (const auto& [size, split] : factors)
      splits[std::to_string(size)] = adapt::to_string(split);
    return splits;
  };
  return {.read = read, .value = value, .shown = nothing, .repeatable = true};
}

WrittenValue penalties(AdapterTrainingOptions& options) {
  const auto read = [&options](const std::vector<std::string>& texts) {
    const Field option("penalty");
    for (const std::string& text : texts) {
      const auto [name, weight] = halves(text, ':', option, "identity:1e-3");
      if (name != "identity" && name != "orthogonal")
        throw Error(ErrorCode::invalid_argument, option, "\"" + name + "\" is not known",
                    "use identity or orthogonal");
      (name == "identity" ? options.identity_penalty : options.orthogonal_penalty) =
          number_in(weight, option);
    }
  };
  const auto value = [&options] {
    return Json{{"identity", options.identity_penalty}, {"orthogonal", options.orthogonal_penalty}};
  };
  return {.read = read, .value = value, .shown = nothing, .repeatable = true};
}

void describe_parts(OptionList& list, TrainerOptions& o) {
  list.add("part_learning_rate", rates_by_pattern("part_learning_rate", o.part_rates),
           "Peak of the rate of the parameters that a glob or re:REGEX matches, for example "
           "text_encoder*=5e-6; may be given several times")
      .repeated("learning rates of parts");
  list.add("lora_plus_ratio", o.lora_plus_ratio,
           "LoRA+: factor on the rate of the matrices that start at zero (*.up), usually 16")
      .within(Range::above(0))
      .repeated();
}

}  // namespace

void describe(OptionList& list, TrainerOptions& o) {
  list.add("steps", o.steps, "Optimiser steps").within(Range::above(0));
  list.add("gradient_accumulation", o.gradient_accumulation,
           "Gradient accumulation: batches per optimiser step")
      .within(Range::above(0))
      .repeated();
  list.add("learning_rate_schedule",
           choice("learning_rate_schedule", o.learning_rate.decay, kDecayNames),
           "How the rate falls after the warm-up")
      .repeated("learning rate decay");
  list.add("learning_rate_factor", rates_by_pattern("learning_rate_factor", o.rate_factors),
           "Learning-rate factor of the parameters that a glob or re:REGEX matches, for example "
           "*.transform.*=0.5 or text_encoder*=0.1; may be given several times")
      .repeated("learning rate factors");
  describe_parts(list, o);
  list.add("warmup_steps", warmup(o.learning_rate),
           "Linear warm-up: steps, or a number below 1 as a share of all steps")
      .repeated("learning rate warm-up");
  list.add("learning_rate_cycles", o.learning_rate.cycles,
           "How often the curve of the rate starts again from the peak")
      .within(Range::at_least(1))
      .repeated();
  list.add("learning_rate_power", o.learning_rate.power, "polynomial: its power")
      .within(Range::above(0))
      .repeated();
  list.add("learning_rate_end", o.learning_rate.end, "The rate at the end of a curve")
      .within(Range::at_least(0))
      .repeated();
  list.add("clip_norm", o.clip_norm, "Clip gradients to this norm; 0 = off")
      .within(Range::at_least(0))
      .repeated();
  list.add("ema", o.ema_decay, "EMA decay of the trained weights; 0 = off")
      .within(Range::share())
      .repeated("moving average");
  list.add("checkpoint_every", o.checkpoint_every,
           "Steps between checkpoints; 0 = only at the end and when stopped")
      .within(Range::at_least(0));
  list.add("keep_checkpoints", o.keep_checkpoints,
           "Checkpoints to keep; with 1 there is none to fall back to when it is damaged")
      .within(Range::at_least(1));
}

void describe(OptionList& list, std::string& optimizer, OptimizerNumbers& numbers) {
  list.add("optimizer", word_choice("optimizer", optimizer, optimizer_names()), "Optimiser")
      .repeated();
  list.add("betas", averages(numbers), "Decay rates of the optimiser's averages")
      .or_else("0.9,0.999; 0.9,0.99 for lion; none for adafactor and sgd")
      .repeated();
  list.add("weight_decay", numbers.weight_decay,
           "Weight decay: towards the identity for transforms, towards zero for the rest")
      .within(Range::at_least(0))
      .or_else("0.01 for adamw and adamw8bit; 0.1 for muon; otherwise 0")
      .repeated();
  list.add("optimizer_options", numbers.options,
           "Numbers of the optimiser alone, for example momentum=0.9,nesterov=yes; may be given "
           "several times");
}

void describe(OptionList& list, AdapterTrainingOptions& o, const std::string& layers,
              const std::string& usual_layers) {
  list.add("budget", o.budget,
           "Parameter budget, for example 0.4M: sizes the residual, or without one the transform, "
           "to fit");
  list.add("targets", o.targets.presets, layers).or_else(usual_layers);
  list.add("include", o.targets.include, "More layers, by glob over their full names or re:REGEX");
  list.add("exclude", o.targets.exclude, "Fewer layers, by glob or re:REGEX");
  list.add("factors", dimension_factors(o.factors),
           "Factors of a dimension, for example 320=4x8x10; may be given several times");
  list.add("dropout", o.dropout.input, "Dropout on the residual's input")
      .within(Range::share())
      .repeated();
  list.add("rank_dropout", o.dropout.rank, "Probability of dropping each rank in a step")
      .within(Range::share())
      .repeated();
  list.add("module_dropout", o.dropout.module,
           "Probability of dropping each layer's adapter in a step")
      .within(Range::share())
      .repeated();
  list.add("scale_weight_norms", o.scale_weight_norms,
           "Largest norm of a low-rank residual's change, usually 1; 0 = no limit")
      .within(Range::at_least(0))
      .repeated();
  list.add("init_adapter", o.init_adapter,
           "Adapter file to start from, with its method, ranks and layers");
  list.add("penalty", penalties(o),
           "Keeps transforms near their start: identity:1e-3, orthogonal:1e-3; may be given "
           "several times");
}

}  // namespace ringlet::train
