#include "ringlet/train/trainer.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/processors.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/layer_scope.h"
#include "ringlet/nn/reused_memory.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_storage.h"
#include "ringlet/train/option_list.h"
#include "ringlet/train/part_rates.h"
#include "ringlet/train/thread_choice.h"

namespace ringlet::train {
namespace {

constexpr int kMostSkippedInARow = 10;

std::vector<at::Tensor> gradients_of(const std::vector<Trainable>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const Trainable& parameter : parameters)
    if (parameter.value.grad().defined()) gradients.push_back(parameter.value.grad());
  return gradients;
}

/// What brings gradients of this norm down to `limit`, or 1.
double clip_factor(double norm, double limit) {
  constexpr double kTiny = 1e-6;  // as torch.nn.utils.clip_grad_norm_
  return limit > 0.0 ? std::min(1.0, limit / (norm + kTiny)) : 1.0;
}

/// Tensors of one number each, of one device: the host waits for it once.
std::vector<double> read_numbers(std::vector<at::Tensor> numbers) {
  if (numbers.empty()) return {};
  at::ScalarType type = numbers.front().scalar_type();
  for (const at::Tensor& number : numbers) type = c10::promoteTypes(type, number.scalar_type());
  const c10::Device device = numbers.back().device();
  for (at::Tensor& number : numbers) number = number.detach().to(device, type).reshape({});
  const at::Tensor read = at::stack(numbers).cpu().to(at::kDouble);
  return {read.const_data_ptr<double>(), read.const_data_ptr<double>() + read.numel()};
}

/// bf16 numbers in fp32, where small steps of an average count.
at::Tensor averaged_type(const at::Tensor& value) {
  return value.scalar_type() == at::kBFloat16 ? value.to(at::kFloat) : value;
}

double sum_of(const std::vector<double>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), 0.0);
}

void check_ranks(const DataParallel& ranks) {
  const bool exists = ranks.rank >= 0 && ranks.rank < ranks.count;
  if (exists && (ranks.count == 1 || ranks.reduce)) return;
  throw Error(ErrorCode::invalid_argument, Field("data_parallel"),
              "rank " + std::to_string(ranks.rank) + " of " + std::to_string(ranks.count) +
                  (exists ? " has no reduction" : " does not exist"));
}

}  // namespace

Json settings_of(const TrainerOptions& options) {
  TrainerOptions described = options;
  OptionList list;
  describe(list, described);
  Json settings = list.settings();
  // Ranks share what one would accumulate, so that a run may go on with more or fewer of them.
  settings["gradient accumulation"] = options.gradient_accumulation * options.data_parallel.count;
  settings["learning rate"] = options.learning_rate.peak;
  settings["optimizer"] = options.optimizer.name;
  settings.update(options.optimizer.settings);
  // A curve that ends at the last step depends on how many there are.
  const LearningRate& rate = options.learning_rate;
  if (rate.decay != Decay::constant || rate.warmup_share > 0.0) settings["steps"] = options.steps;
  // Checkpoints of earlier versions have no others, and do not say so.
  if (options.part_rates.empty()) settings.erase("learning rates of parts");
  if (options.lora_plus_ratio == 1.0) settings.erase("lora plus ratio");
  if (rate.cycles == 1) settings.erase("learning rate cycles");
  if (rate.power == 1.0) settings.erase("learning rate power");
  if (rate.end == 0.0) settings.erase("learning rate end");
  return settings;
}

namespace {

/// The settings of a checkpoint in the words of today: earlier versions wrote kinds as numbers,
/// both thresholds of canny as one, and knew one optimiser.
Json in_todays_words(Json settings) {
  const auto name_number = [&](const char* key, std::span<const char* const> names) {
    const auto found = settings.find(key);
    if (found == settings.end() || !found->is_number_unsigned()) return;
    if (const auto number = found->get<std::size_t>(); number < names.size())
      *found = names[number];
  };
  constexpr std::array kDecayNames = {"constant", "linear", "cosine"};
  constexpr std::array kPredictionNames = {"epsilon", "v_prediction", "sample"};
  name_number("learning rate decay", kDecayNames);
  name_number("prediction", kPredictionNames);
  if (settings.contains("betas") && !settings.contains("optimizer"))
    settings["optimizer"] = adamw().name;
  if (const auto both = settings.find("control thresholds");
      both != settings.end() && both->is_array() && both->size() == 2) {
    settings["canny low"] = both->at(0);
    settings["canny high"] = both->at(1);
    settings.erase("control thresholds");
  }
  return settings;
}

}  // namespace

void check_settings(const Json& before, const Json& now, const std::string& where) {
  Json known = in_todays_words(before);
  // Before there was a choice.
  constexpr const char* kStorage = "base storage";
  if (now.contains(kStorage) && !known.contains(kStorage))
    known[kStorage] = nn::weight_storage_name(nn::WeightStorage::as_stored);
  for (const auto& [key, value] :
       {std::pair("aspect buckets", Json("off")), {"training data", Json::object()}})
    if (now.contains(key) && !known.contains(key)) known[key] = value;
  std::vector<std::string> changed, unknown;
  for (const auto& [key, value] : known.items()) {
    const auto found = now.find(key);
    const std::string text = found == now.end() ? "nothing" : found->dump();
    if (text != value.dump()) changed.push_back(key + " was " + value.dump() + ", now " + text);
  }
  for (const auto& [key, value] : now.items())
    if (!known.contains(key)) unknown.push_back(key);
  if (!changed.empty())
    throw Error(ErrorCode::mismatch, where,
                "the run was started with other settings: " + join(changed, "; "),
                "repeat them, or start a new run in another folder");
  if (!unknown.empty())
    log(LogLevel::warning,
        where + ": does not record whether these are unchanged: " + join(unknown));
}

Trainer::Trainer(std::vector<Trainable> parameters, LossFunction loss, TrainerOptions options)
    : loss_(std::move(loss)),
      options_(std::move(options)),
      optimizer_(options_.optimizer.make(with_rates(std::move(parameters), options_))) {
  check_ranks(options_.data_parallel);
  options_.learning_rate.steps = options_.steps;
  if (options_.loss_scaling) loss_scale_ = LossScale::dynamic();
  if (options_.ema_decay <= 0.0) return;
  for (const Trainable& parameter : optimizer_->parameters())
    averages_.push_back(averaged_type(parameter.value.detach().clone()));
}

/// What the loss function is asked for, of this step's i-th part of a micro-batch on this rank.
std::int64_t Trainer::number_of(std::int64_t micro_batch_part) const {
  const std::int64_t parts = options_.micro_batch_parts;
  const DataParallel& ranks = options_.data_parallel;
  const std::int64_t own = step_ * options_.gradient_accumulation + micro_batch_part / parts;
  return (own * ranks.count + ranks.rank) * parts + micro_batch_part % parts;
}

/// Fills the gradients with those of this rank's share of the mean loss, times the loss scale;
/// returns the losses of its micro-batches. Nothing waits for the device.
std::vector<at::Tensor> Trainer::accumulate_gradients() {
  for (const Trainable& parameter : optimizer_->parameters())
    parameter.value.mutable_grad().reset();
  const std::int64_t own = options_.gradient_accumulation;
  const auto count = static_cast<double>(own * options_.data_parallel.count);
  std::vector<at::Tensor> losses;
  const std::int64_t parts = options_.micro_batch_parts;
  for (std::int64_t i = 0; i < own * parts; ++i) {
    const at::Tensor loss = loss_(number_of(i));
    losses.push_back(loss.detach());
    (loss / (count / loss_scale_.factor())).backward();
  }
  return losses;
}

/// The mean loss of all ranks and the norm of its gradient, both finite on all ranks alike or on
/// none. On one rank the host waits for the device once.
StepResult Trainer::measure(const std::vector<at::Tensor>& losses) {
  const at::NoGradGuard no_grad;
  const DataParallel& ranks = options_.data_parallel;
  std::vector<double> read;
  if (ranks.count > 1) {
    double sum = sum_of(read_numbers(losses));
    reduce(sum);
    read.push_back(sum);
  }
  std::vector<at::Tensor> unread = ranks.count > 1 ? std::vector<at::Tensor>() : losses;
  const std::vector<at::Tensor> gradients = gradients_of(optimizer_->parameters());
  if (!gradients.empty()) unread.push_back(at::stack(at::_foreach_norm(gradients)).norm());
  for (const double number : read_numbers(std::move(unread))) read.push_back(number);
  StepResult result{step_ + 1, 0.0, options_.learning_rate.at(step_), 0.0, 0.0, false};
  if (!gradients.empty()) {
    result.gradient_norm = read.back() / loss_scale_.factor();
    read.pop_back();
  }
  result.loss = sum_of(read) / static_cast<double>(options_.gradient_accumulation * ranks.count);
  result.skipped = !std::isfinite(result.loss) || !std::isfinite(result.gradient_norm);
  if (!std::isfinite(result.loss)) result.gradient_norm = 0.0;
  return result;
}

/// Sums the loss and the gradients over the ranks. One that a parameter lacks on some of them, such
/// as that of a layer which module dropout left out, is zero there; one that it lacks on all of
/// them is none. With them goes whether a rank wants to stop.
void Trainer::reduce(double& loss) {
  const at::NoGradGuard no_grad;
  const std::vector<Trainable>& parameters = optimizer_->parameters();
  std::vector<double> numbers = {loss, wants_stop_ ? 1.0 : 0.0};
  const auto first = static_cast<std::int64_t>(numbers.size());  // how many ranks have a gradient
  std::vector<at::Tensor> sums;
  for (const Trainable& parameter : parameters) {
    const at::Tensor gradient = parameter.value.grad();
    numbers.push_back(gradient.defined() ? 1.0 : 0.0);
    sums.push_back(gradient.defined() ? gradient : at::zeros_like(parameter.value));
  }
  at::Tensor summed = at::tensor(numbers, at::kDouble);
  if (!parameters.empty()) summed = summed.to(parameters.front().value.device());
  sums.push_back(summed);
  options_.data_parallel.reduce(sums);
  summed = sums.back().cpu();
  const double* const sum = summed.const_data_ptr<double>();
  loss = sum[0];
  all_stop_ = sum[1] > 0.0;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (sum[first + static_cast<std::int64_t>(i)] > 0.0)
      parameters[i].value.mutable_grad() = sums[i];
}

/// Which loss, or the gradient of which parameters, is not finite. Costs a forward pass: steps that
/// are skipped are rare.
std::string Trainer::not_finite(const std::vector<at::Tensor>& losses) const {
  for (std::size_t i = 0; i < losses.size(); ++i) {
    if (std::isfinite(losses[i].item<double>())) continue;
    const std::int64_t number = number_of(static_cast<std::int64_t>(i));
    const std::string loss =
        "the loss of micro-batch " + std::to_string(number / options_.micro_batch_parts);
    return loss + (options_.explain_not_finite ? options_.explain_not_finite(number) : "");
  }
  std::vector<std::string> names;
  for (const Trainable& parameter : optimizer_->parameters())
    if (const at::Tensor gradient = parameter.value.grad();
        gradient.defined() && !gradient.isfinite().all().item<bool>())
      names.push_back(parameter.name);
  if (names.empty()) return "the norm of the gradient";  // or another rank's
  const std::string others =
      names.size() == 1 ? "" : " and of " + std::to_string(names.size() - 1) + " more parameters";
  return "the gradient of " + names.front() + others;
}

StepResult Trainer::train_step() {
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<at::Tensor> losses = accumulate_gradients();
  StepResult result = measure(losses);
  const at::NoGradGuard no_grad;
  const nn::LayerScope scope(nn::LayerKind::optimizer);
  const double factor =
      clip_factor(result.gradient_norm, options_.clip_norm) / loss_scale_.factor();
  result.scaled_down = loss_scale_.update(!result.skipped) && std::isfinite(result.loss);
  if (result.skipped) {
    ++skipped_;
    if (!result.scaled_down) result.problem = not_finite(losses);
  } else {
    const std::vector<at::Tensor> gradients = gradients_of(optimizer_->parameters());
    if (factor != 1.0 && !gradients.empty()) at::_foreach_mul_(gradients, factor);
    optimizer_->step(result.learning_rate);
    if (options_.after_update) options_.after_update();
    update_averages();
  }
  ++step_;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

void Trainer::report_skipped(const StepResult& result) const {
  const std::string step = "step " + std::to_string(result.step) + ": ";
  if (result.scaled_down)
    log(LogLevel::info, step +
                            "the gradients are too large for fp16 at this loss scale; no "
                            "update was made, and the loss scale is now " +
                            std::to_string(std::llround(loss_scale_.factor())));
  else
    log(LogLevel::warning,
        step + "the loss or its gradient is not finite; no update was made: " + result.problem);
}

void Trainer::update_averages() {
  if (averages_.empty()) return;
  // A short memory at first, so that the random start is forgotten.
  const auto updates = static_cast<double>(optimizer_->updates());
  const double decay = std::min(options_.ema_decay, (1.0 + updates) / (10.0 + updates));
  std::vector<at::Tensor> values = optimizer_->shown_values();
  if (values.empty())
    for (const Trainable& parameter : optimizer_->parameters())
      values.push_back(averaged_type(parameter.value.detach()));
  at::_foreach_lerp_(averages_, values, 1.0 - decay);
}

void Trainer::swap_averages() {
  at::NoGradGuard no_grad;
  const std::vector<Trainable>& parameters = optimizer_->parameters();
  const bool back = !hidden_.empty();
  const std::vector<at::Tensor> others = back                ? std::exchange(hidden_, {})
                                         : averages_.empty() ? optimizer_->shown_values()
                                                             : averages_;
  for (std::size_t i = 0; i < others.size(); ++i) {
    const at::Tensor value = parameters[i].value.detach();
    if (!back) hidden_.push_back(value.clone());
    value.copy_(others[i]);
  }
}

std::map<std::string, at::Tensor> Trainer::state_tensors() const {
  std::map<std::string, at::Tensor> tensors = optimizer_->state();
  const std::vector<Trainable>& parameters = optimizer_->parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    tensors["parameter." + parameters[i].name] = parameters[i].value.detach();
    if (!averages_.empty()) tensors["average." + parameters[i].name] = averages_[i];
  }
  return tensors;
}

std::filesystem::path Trainer::save() const {
  std::filesystem::path file;
  options_.data_parallel.alone([&] { file = save_state(); });
  return file;
}

std::filesystem::path Trainer::save_state() const {
  const CheckpointFolder folder(options_.checkpoint_folder, options_.keep_checkpoints,
                                options_.data_parallel.writes());
  return folder.save({step_, optimizer_->updates(), skipped_, options_.settings, state_tensors(),
                      at::get_num_threads(), loss_scale_.is_dynamic() ? loss_scale_.factor() : 0.0,
                      loss_scale_.good_steps()});
}

void Trainer::resume(const std::filesystem::path& checkpoint) {
  const TrainState state = CheckpointFolder::load(checkpoint);
  check_settings(state.settings, options_.settings, checkpoint.string());
  if (state.step > options_.steps)
    throw Error(ErrorCode::invalid_argument, Field("steps"),
                "the checkpoint has done " + std::to_string(state.step) + " steps already");
  restore_tensors(state_tensors(), state.tensors, checkpoint.string());
  optimizer_->set_updates(state.updates);
  step_ = state.step;
  skipped_ = state.skipped;
  threads_ = state.threads;
  loss_scale_ = loss_scale_.resumed(state.loss_scale, state.loss_scale_steps);
}

void Trainer::choose_threads() {
  const std::vector<Trainable>& parameters = optimizer_->parameters();
  const bool on_cpu = parameters.empty() || parameters.front().value.is_cpu();
  const int most = allowed_processors();
  if (!options_.choose_threads || !on_cpu || most == 1) return;
  if (threads_ > 0 && threads_ <= most) {
    at::set_num_threads(threads_);
    log(LogLevel::info,
        "threads: " + std::to_string(threads_) + ", as before this run was interrupted");
    return;
  }
  constexpr auto kLook = std::chrono::milliseconds(150);
  const ThreadChoice choice =
      train::choose_threads(most, busy_processors(kLook), [&] { loss_(number_of(0)).backward(); });
  for (const Trainable& parameter : parameters) parameter.value.mutable_grad().reset();
  log(LogLevel::info, "threads: " + choice.text());
}

bool Trainer::run(const StepObserver& observe,
                  const std::function<void(std::int64_t step)>& afterwards) {
  const nn::ReusedMemory memory;
  return nn::with_ringlet_errors("training", [&] { return run_steps(observe, afterwards); });
}

/// A step. Where other ranks are lost in it, the state before it is written: it is whole.
StepResult Trainer::step_with_others() {
  try {
    return train_step();
  } catch (const LostRanks& lost) {
    const bool saves = !options_.checkpoint_folder.empty() && options_.data_parallel.writes();
    if (!saves || step_ == 0) throw;
    throw LostRanks(lost.code(), lost.where(), lost.message(),
                    lost.hint() + "; " + save_state().string() + " holds the run as it was after " +
                        std::to_string(step_) + " steps: continue with `resume`, with any number " +
                        "of ranks");
  }
}

/// Whether the run is to stop, once this rank has said whether it goes on. Others hear of it by the
/// next step's sum.
bool Trainer::stops(bool proceeds) {
  if (options_.data_parallel.count == 1) return !proceeds;
  wants_stop_ = wants_stop_ || !proceeds;
  return all_stop_;
}

bool Trainer::run_steps(const StepObserver& observe,
                        const std::function<void(std::int64_t step)>& afterwards) {
  const bool saves = !options_.checkpoint_folder.empty();
  int skipped_in_a_row = 0;
  wants_stop_ = all_stop_ = false;
  if (step_ < options_.steps) choose_threads();
  while (step_ < options_.steps && !finished_) {
    const StepResult result = step_with_others();
    if (!result.scaled_down) skipped_in_a_row = result.skipped ? skipped_in_a_row + 1 : 0;
    if (result.skipped) report_skipped(result);
    const bool failed = skipped_in_a_row >= kMostSkippedInARow;
    const bool proceed = !stops(!observe || observe(result));
    const bool last = step_ == options_.steps;
    const bool due = std::exchange(save_asked_, false) ||
                     (options_.checkpoint_every > 0 && step_ % options_.checkpoint_every == 0);
    std::filesystem::path saved;
    if (saves && (due || last || failed || !proceed)) saved = save();
    if (failed) {
      // A rank that ends by an error takes one that still writes with it.
      options_.data_parallel.writer_first(device_of(optimizer_->parameters()), [] {});
      throw Error(ErrorCode::non_finite, "training",
                  std::to_string(kMostSkippedInARow) +
                      " steps in a row had no finite loss or gradient; " + "in step " +
                      std::to_string(result.step) + " " + result.problem,
                  "lower `learning_rate` or use `precision=fp32`" +
                      (saved.empty() ? "" : "; the last good state is " + saved.string()));
    }
    if (!proceed && !last) return false;
    if (afterwards) afterwards(step_);
  }
  return true;
}

}  // namespace ringlet::train
