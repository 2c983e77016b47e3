#include "training_options.h"

#include <charconv>
#include <cstdio>
#include <random>
#include <utility>

#include "options.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"
#include "ringlet/train/run_folder.h"

namespace ringlet::app {
namespace {

template <class Number = double>
Number number_in(const std::string& text, const std::string& option) {
  Number number{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size())
    throw Error(ErrorCode::invalid_argument, option, "\"" + text + "\" is no number");
  return number;
}

/// What is before and behind the last separator: a pattern may hold others.
std::pair<std::string, std::string> halves(const std::string& text, char separator,
                                           const std::string& option, const std::string& example) {
  const std::size_t middle = text.rfind(separator);
  if (middle == std::string::npos)
    throw Error(ErrorCode::invalid_argument, option, "\"" + text + "\" cannot be read",
                "write it as " + example);
  return {text.substr(0, middle), text.substr(middle + 1)};
}

train::Learning parse_learning(const std::string& method) {
  if (method == "full") return train::AllWeights{};
  if (method == "none") return train::NoWeights{};
  return adapt::parse_method(method);
}

}  // namespace

void TrainingOptions::add_method(CLI::App& app, train::AdapterTrainingOptions& adapters,
                                 const char* method_help, const char* targets_help) {
  app.add_option("--method", method, method_help)->capture_default_str();
  app.add_option("--budget", adapters.budget,
                 "Parameters to spend, for example 0.4M: makes the residual, or without one the "
                 "transform, as large as that allows");
  repeatable(app.add_option("--targets", adapters.targets.presets, targets_help));
  repeatable(app.add_option("--include", adapters.targets.include,
                            "More layers, by glob over their full names or re:REGEX"));
  repeatable(
      app.add_option("--exclude", adapters.targets.exclude, "Fewer layers, by glob or re:REGEX"));
  repeatable(app.add_option("--factors", factors,
                            "Factors of a dimension by hand, for example 320=4x8x10"));
  app.add_option("--dropout", adapters.dropout.input, "Share of the residual's input left out");
  app.add_option("--rank-dropout", adapters.dropout.rank, "Chance of leaving a rank out of a step");
  app.add_option("--module-dropout", adapters.dropout.module,
                 "Chance of leaving a layer's adapter out of a step");
  repeatable(app.add_option("--penalty", penalties,
                            "Holds transforms near their start: identity:1e-3, orthogonal:1e-3"));
}

void TrainingOptions::add_loop(CLI::App& app, train::TrainerOptions& t, std::int64_t& batch_size,
                               const char* batch_help) {
  app.add_option("--steps", t.steps, "Optimiser steps")->capture_default_str();
  app.add_option("--batch-size", batch_size, batch_help)->capture_default_str();
  app.add_option("--gradient-accumulation", t.gradient_accumulation, "Batches per step")
      ->capture_default_str();
  app.add_option("--learning-rate", learning_rate, "Peak [1e-4; 1e-5 for --method full]");
  app.add_option("--learning-rate-schedule", schedule, "constant, linear or cosine")
      ->capture_default_str();
  repeatable(app.add_option("--learning-rate-factor", rate_factors,
                            "Factor on the rate of the parameters that a glob or re:REGEX matches, "
                            "for example *.transform.*=0.5 or text_encoder*=0.1"));
  app.add_option("--warmup-steps", t.learning_rate.warmup, "Steps of linear rise")
      ->capture_default_str();
  app.add_option("--optimizer", optimizer, join(train::optimizer_names(), " or "))
      ->capture_default_str();
  app.add_option("--betas", betas, "The optimiser's averages [0.9,0.999; 0.9,0.99 for lion]");
  app.add_option("--weight-decay", weight_decay,
                 "Pull towards the start: the identity for transforms, zero for the rest [0.01; 0 "
                 "for lion]");
  app.add_option("--clip-norm", t.clip_norm, "Largest gradient norm; 0 = no limit")
      ->capture_default_str();
  app.add_option("--ema", t.ema_decay, "Decay of a moving average of what learns; 0 = none")
      ->capture_default_str();
  app.add_option("--seed", seed, "Seed of everything random [random]")->transform(whole_number());
}

void TrainingOptions::add_output(CLI::App& app, train::TrainerOptions& trainer) {
  app.add_option("--out", out, "Folder for the adapter, checkpoints, logs and report")->required();
  app.add_option("--save-precision", save_precision, "fp32, fp16 or bf16: type of what is saved")
      ->capture_default_str();
  app.add_flag("--resume", resume, "Go on from the last checkpoint of --out");
  app.add_option("--checkpoint-every", trainer.checkpoint_every,
                 "Steps between checkpoints; 0 = only at the end and when stopped")
      ->capture_default_str();
  app.add_option("--keep-checkpoints", trainer.keep_checkpoints, "How many stay")
      ->capture_default_str();
  app.add_flag("--dry-run", dry_run, "Show the plan and stop");
}

void TrainingOptions::translate(train::AdapterTrainingOptions& adapters,
                                train::TrainerOptions& trainer) const {
  adapters.learning = parse_learning(method);
  trainer.learning_rate.decay = train::decay_from_name(schedule);
  trainer.learning_rate.peak = learning_rate.value_or(adapters.full() ? 1e-5 : 1e-4);
  trainer.optimizer = chosen_optimizer();
  for (const std::string& text : factors) {
    const auto [size, split] = halves(text, '=', "--factors", "320=4x8x10");
    adapters.factors[number_in<std::int64_t>(size, "--factors")] = adapt::parse_factors(split);
  }
  for (const std::string& text : rate_factors) {
    const auto [pattern, factor] = halves(text, '=', "--learning-rate-factor", "*.transform.*=0.5");
    trainer.rate_factors.emplace_back(pattern, number_in(factor, "--learning-rate-factor"));
  }
  for (const std::string& text : penalties) {
    const auto [name, weight] = halves(text, ':', "--penalty", "identity:1e-3");
    if (name != "identity" && name != "orthogonal")
      throw Error(ErrorCode::invalid_argument, "--penalty", "\"" + name + "\" is not known",
                  "use identity or orthogonal");
    (name == "identity" ? adapters.identity_penalty : adapters.orthogonal_penalty) =
        number_in(weight, "--penalty");
  }
  if (save_precision == "auto")
    throw Error(ErrorCode::invalid_argument, "--save-precision", "use fp32, fp16 or bf16");
  check_share("--ema", trainer.ema_decay);
  check_share("--dropout", adapters.dropout.input);
  check_share("--rank-dropout", adapters.dropout.rank);
  check_share("--module-dropout", adapters.dropout.module);
  check_not_negative("--clip-norm", trainer.clip_norm);
  check_not_negative("--warmup-steps", static_cast<double>(trainer.learning_rate.warmup));
  check_not_negative("--checkpoint-every", static_cast<double>(trainer.checkpoint_every));
  if (trainer.keep_checkpoints < 1)
    throw Error(ErrorCode::invalid_argument, "--keep-checkpoints", "must be at least 1");
}

train::OptimizerSpec TrainingOptions::chosen_optimizer() const {
  train::OptimizerNumbers numbers{{}, weight_decay};
  if (betas) {
    const auto [beta1, beta2] = halves(*betas, ',', "--betas", "0.9,0.999");
    numbers.betas = {number_in(beta1, "--betas"), number_in(beta2, "--betas")};
    check_share("--betas", numbers.betas->first);
    check_share("--betas", numbers.betas->second);
  }
  if (weight_decay) check_not_negative("--weight-decay", *weight_decay);
  return train::optimizer_from_name(optimizer, numbers);
}

std::uint64_t TrainingOptions::choose_seed() const {
  std::optional<std::uint64_t> chosen = seed;
  if (!chosen && resume) chosen = train::recorded_seed(out);
  return chosen.value_or(std::random_device{}());
}

at::ScalarType TrainingOptions::storage(c10::Device device) const {
  return nn::select_precision(save_precision, device);
}

void plan_line(const char* what, const std::string& text) {
  std::fprintf(stderr, "  %-14s %s\n", what, printable(text).c_str());
}

void show_method(const std::string& method, std::size_t layers,
                 const std::vector<adapt::BudgetRow>& budget, std::int64_t parameters) {
  plan_line("method", method + (layers == 0 ? "" : " on " + std::to_string(layers) + " layers"));
  for (const adapt::BudgetRow& row : budget) {
    char text[200];
    std::snprintf(text, sizeof text, "%3lld layers %lld x %lld (%s, %s): %lld parameters each",
                  static_cast<long long>(row.layers), static_cast<long long>(row.shape.out),
                  static_cast<long long>(row.shape.in), adapt::to_string(row.out).c_str(),
                  adapt::to_string(row.in).c_str(), static_cast<long long>(row.parameters));
    plan_line("budget", text);
  }
  plan_line("parameters", human_count(parameters) + " (" + std::to_string(parameters) + ")");
}

void show_memory(std::uint64_t expected_bytes) {
  plan_line("memory", "about " + human_bytes(expected_bytes) + " at the peak");
}

void show_optimizer(const train::OptimizerSpec& optimizer) {
  std::string text = optimizer.name;
  for (const auto& [name, number] : optimizer.settings.items())
    text += ", " + name + " " + number.dump();
  plan_line("optimizer", text);
}

void show_learning_rate(const train::LearningRate& rate, const std::string& schedule,
                        std::int64_t steps) {
  const auto at = [&](std::int64_t step) {
    train::LearningRate curve = rate;
    curve.steps = steps;
    return curve.at(step);
  };
  char text[160];
  std::snprintf(text, sizeof text, "%s: %.3g at the start, %.3g in the middle, %.3g at the end",
                schedule.c_str(), at(0), at(steps / 2), at(steps - 1));
  plan_line("learning rate", text);
}

void check_share(const char* option, double value) {
  if (!(value >= 0.0 && value < 1.0))
    throw Error(ErrorCode::invalid_argument, option, "must lie in [0, 1)");
}

void check_not_negative(const char* option, double value) {
  if (!(value >= 0.0)) throw Error(ErrorCode::invalid_argument, option, "must not be negative");
}

bool TrainProgress::stage(const std::string& name, std::size_t total) {
  if (name != stage_) bar_.emplace(name, total, silent_);
  stage_ = name;
  bar_->advance();
  return !interrupted();
}

bool TrainProgress::step(const train::StepReport& report) {
  if (stage_ != "training") bar_.emplace("training", left_, silent_);
  stage_ = "training";
  loss_ = report.step == 1 || loss_ == 0.0 ? report.loss : 0.95 * loss_ + 0.05 * report.loss;
  char text[64];
  std::snprintf(text, sizeof text, "loss %.4f  ", loss_);
  bar_->advance(text + ("peak memory " + human_bytes(peak_resident_bytes())));
  return !interrupted();
}

}  // namespace ringlet::app
