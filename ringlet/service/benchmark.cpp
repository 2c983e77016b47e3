#include "ringlet/service/benchmark.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/error.h"
#include "ringlet/core/random.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/kernels.h"
#include "ringlet/nn/random_tensor.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/service/benchmark_report.h"
#include "ringlet/service/request_json.h"
#include "ringlet/service/split_list.h"
#include "ringlet/train/text_to_image/diffusion_loss.h"
#include "ringlet/train/trainer.h"

namespace ringlet::service {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// The shortest time of a call in a quarter of a second, the first one left out.
double shortest(c10::Device device, const std::function<void()>& call) {
  constexpr double kLong = 0.25;
  constexpr int kLeast = 2;
  const auto timed = [&] {
    const Clock::time_point begin = Clock::now();
    call();
    wait_for(device);
    return seconds_since(begin);
  };
  const double first = timed();  // threads and code paths start here
  if (first > kLong) return first;
  const Clock::time_point begin = Clock::now();
  double best = timed();
  for (int done = 1; done < kLeast || seconds_since(begin) < kLong; ++done)
    best = std::min(best, timed());
  return best;
}

double product_speed(c10::Device device, at::ScalarType type) {
  const std::int64_t rows = device.is_cpu() ? 2048 : 8192, width = device.is_cpu() ? 1280 : 4096;
  const auto options = at::TensorOptions(type).device(device);
  const at::Tensor x = at::ones({rows, width}, options), w = at::ones({width, width}, options);
  const nn::KernelSet& kernels = nn::kernels_for(x);
  const double operations = 2.0 * static_cast<double>(rows * width * width);
  return operations / shortest(device, [&] { kernels.linear(x, w, {}); });
}

double copy_speed(c10::Device device) {
  constexpr std::int64_t kNumbers = 32 << 20;  // more than any cache holds
  const auto options = at::TensorOptions(at::kFloat).device(device);
  const at::Tensor from = at::ones({kNumbers}, options), to = at::ones({kNumbers}, options);
  return 2.0 * static_cast<double>(from.nbytes()) / shortest(device, [&] { to.copy_(from); });
}

MachineSpeed measure_speed(c10::Device device) {
  const at::NoGradGuard no_grad;
  return {product_speed(device, at::kFloat), product_speed(device, at::kBFloat16),
          copy_speed(device)};
}

/// Counts what has been done, and stops where the program says so.
class Turns {
 public:
  Turns(const BenchmarkProgress& progress, std::size_t total)
      : progress_(progress), total_(total) {}
  void begin(const std::string& what) const {
    if (progress_ && !progress_(what, total_))
      throw Error(ErrorCode::cancelled, "bench", "interrupted");
  }

 private:
  const BenchmarkProgress& progress_;
  std::size_t total_;
};

/// What a model sees in every pass: random latents at one level of noise, and a prompt.
struct Input {
  train::NoisyBatch batch;

  Input(const pipeline::TextToImageModel& model, PictureSize size, std::int64_t rows) {
    const at::NoGradGuard no_grad;
    const std::vector<std::string> prompts(static_cast<std::size_t>(rows), "a robot");
    const std::vector<pipeline::PictureFrame> frames(prompts.size(), {size, 0, 0, size});
    batch.conditions = model.conditions(prompts, frames, 1);
    model.add_guidance(batch.conditions, model.defaults().guidance);
    std::vector<std::int64_t> shape = model.latent_shape(size);
    shape.insert(shape.begin(), rows);
    batch.latents = normal(shape, 0, model.options().device);
    batch.levels.assign(prompts.size(), model.noise_process()->level_at(0.5));
  }

  /// Numbers of pass `step`.
  static at::Tensor normal(at::IntArrayRef shape, std::uint64_t step, c10::Device device) {
    const std::vector<RandomStream> streams = {Random(1).stream("benchmark noise", step)};
    const std::int64_t count =
        std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    return nn::normal_numbers(streams, count, device).view(shape);
  }
};

constexpr int kLooks = 2;

/// Looks at passes from inside; the fastest is kept, which other programs have disturbed least.
void look_at(c10::Device device, BenchmarkRow& row, const std::function<void(StepProfile&)>& pass) {
  for (int look = 0; look < kLooks; ++look) {
    StepProfile profile(device);
    pass(profile);
    const bool faster =
        row.memory.empty() || profile.memory().back().seconds < row.memory.back().seconds;
    if (!faster) continue;
    row.kinds = profile.kinds();
    row.memory = profile.memory();
    row.kept_bytes = profile.kept_bytes();
  }
}

BenchmarkRow forward_pass(const BenchmarkRequest& request, PictureSize size,
                          const pipeline::TextToImageModel& model, const Turns& turns) {
  const at::NoGradGuard no_grad;
  const c10::Device device = model.options().device;
  BenchmarkRow row;
  row.name = "forward pass";
  row.rows = 2 * request.batch_size;
  const Input input(model, size, row.rows);
  const at::Tensor timesteps =
      at::full({row.rows}, input.batch.levels.front().timestep, at::kFloat).to(device);
  const auto pass = [&] { model.predict(input.batch.latents, timesteps, input.batch.conditions); };
  turns.begin(row.name);
  nn::reset_peak_memory(device);
  pass();
  look_at(device, row, [&](StepProfile&) {
    pass();
    wait_for(device);
  });
  for (std::int64_t i = 0; i < request.rounds * request.steps; ++i) {
    const Clock::time_point begin = Clock::now();
    pass();
    wait_for(device);
    row.seconds.push_back(seconds_since(begin));
  }
  row.peak_bytes = nn::peak_memory(device);
  return row;
}

/// A method's training, a few steps at a time.
class TrainedMethod {
 public:
  TrainedMethod(const BenchmarkRequest& request, const pipeline::TextToImageModel& model,
                const Input& input, const std::string& method)
      : model_(model),
        input_(input),
        checkpointing_(request.gradient_checkpointing),
        adapters_(adapt::AdapterSet::create(
            adapt::parse_method(method),
            adapt::select_targets(pipeline::adaptable(model), request.targets),
            adapt::FactorTable(), Random(1))),
        trainer_(
            train::trainables(adapters_), [this](std::int64_t step) { return loss(step); },
            trainer_options(request, model)) {
    row_.name = method;
    row_.rows = request.batch_size;
    row_.parameters = adapters_.parameter_count();
  }

  /// The pass that warms up, and those that are looked at.
  void look() {
    adapters_.attach();
    run(1, nullptr);
    look_at(model_.options().device, row_, [&](StepProfile& profile) { run(1, &profile); });
    adapters_.detach();
  }

  void time(std::int64_t steps) {
    adapters_.attach();
    nn::reset_peak_memory(model_.options().device);
    for (const double seconds : run(steps, nullptr)) row_.seconds.push_back(seconds);
    row_.peak_bytes = std::max(row_.peak_bytes, nn::peak_memory(model_.options().device));
    adapters_.detach();
  }

  const BenchmarkRow& row() const { return row_; }

 private:
  static train::TrainerOptions trainer_options(const BenchmarkRequest& request,
                                               const pipeline::TextToImageModel& model) {
    train::TrainerOptions options;
    options.steps = 1 + kLooks + request.rounds * request.steps;
    options.learning_rate.peak = 1e-4;
    options.loss_scaling = model.options().precision == at::kHalf;
    return options;
  }

  at::Tensor loss(std::int64_t step) {
    at::Tensor loss = adapters_.pass([&] {
      const nn::GradientCheckpointing guard(checkpointing_);
      train::NoisyBatch batch = input_.batch;
      batch.noise = Input::normal(batch.latents.sizes(), static_cast<std::uint64_t>(step) + 1,
                                  batch.latents.device());
      return train::combine_errors(train::denoising_errors(model_, batch), row_.rows, 0.0);
    });
    if (profile_ != nullptr) profile_->forward_ends();
    return loss;
  }

  std::vector<double> run(std::int64_t steps, StepProfile* profile) {
    profile_ = profile;
    std::vector<double> seconds;
    trainer_.run([&](const train::StepResult& step) {
      seconds.push_back(step.seconds);
      return static_cast<std::int64_t>(seconds.size()) < steps;
    });
    profile_ = nullptr;
    return seconds;
  }

  const pipeline::TextToImageModel& model_;
  const Input& input_;
  bool checkpointing_;
  adapt::AdapterSet adapters_;
  StepProfile* profile_ = nullptr;
  BenchmarkRow row_;
  train::Trainer trainer_;
};

PictureSize size_for(const BenchmarkRequest& request, const pipeline::TextToImageModel& model) {
  const PictureSize size =
      request.resolution == 0 ? model.defaults().size : PictureSize::square(request.resolution);
  const std::int64_t unit = model.size_unit();
  for (const std::int64_t side : {size.width, size.height})
    if (side % unit != 0)
      throw Error(ErrorCode::invalid_argument, Field("resolution"),
                  std::to_string(side) + " is not a multiple of " + std::to_string(unit));
  return size;
}

std::unique_ptr<pipeline::TextToImageModel> open(const BenchmarkRequest& request, bool training) {
  pipeline::LoadOptions load = request.load;
  load.for_training = training;
  return pipeline::open_text_to_image_model(request.model, load);
}

std::vector<BenchmarkRow> training_steps(const BenchmarkRequest& request,
                                         const pipeline::TextToImageModel& model, PictureSize size,
                                         const Turns& turns) {
  const Input input(model, size, request.batch_size);
  std::vector<std::unique_ptr<TrainedMethod>> methods;
  for (const std::string& text : split_list(request.methods, Field("methods")))
    methods.push_back(std::make_unique<TrainedMethod>(request, model, input, text));
  for (const auto& method : methods) {
    turns.begin(method->row().name);
    method->look();
  }
  for (std::int64_t round = 0; round < request.rounds; ++round)
    for (const auto& method : methods) {
      turns.begin(method->row().name);
      method->time(request.steps);
    }
  std::vector<BenchmarkRow> rows;
  for (const auto& method : methods) rows.push_back(method->row());
  return rows;
}

}  // namespace

void describe(OptionList& list, BenchmarkRequest& r) {
  list.add("model", r.model, "Model folder (diffusers) or single .safetensors checkpoint");
  pipeline::describe(list, r.load.files);
  list.add("methods", r.methods, "Methods of training, separated by commas, which take turns");
  list.add(
          "targets", r.targets.presets,
          "Layers to adapt: attention, attention+ff, all-linear, all, text-encoder, double-blocks, "
          "single-blocks; may be given several times")
      .or_else("attention");
  list.add("resolution", r.resolution, "Side of the pictures in pixels; 0 = the model's own")
      .within(Range::at_least(0));
  list.add("batch_size", r.batch_size, "Pictures at a time; twice as many in the forward pass")
      .within(Range::at_least(1));
  list.add("rounds", r.rounds, "How often the methods take turns").within(Range::at_least(1));
  list.add("steps", r.steps, "Timed steps of each method in a round").within(Range::at_least(1));
  list.add("gradient_checkpointing", r.gradient_checkpointing,
           "Compute activations twice instead of keeping them");
  list.add("out", r.out, "Folder for bench.json, bench.html and plots");
}

void check(const BenchmarkRequest& request) {
  BenchmarkRequest described = request;
  OptionList list;
  describe(list, described);
  list.check();
  for (const std::string& text : split_list(request.methods, Field("methods")))
    adapt::parse_method(text);
}

BenchmarkRequest benchmark_request_from_json(const Json& json) {
  BenchmarkRequest request;
  OptionList list;
  describe(list, request);
  JsonFields fields(json);
  read_options(fields, list);
  read_device(fields, request.load, nn::Work::training);
  fields.finish();
  check(request);
  return request;
}

Json to_json(const BenchmarkRequest& request) {
  BenchmarkRequest described = request;
  OptionList list;
  describe(list, described);
  Json json = set_values(list);
  write_device(json, request.load);
  return json;
}

double BenchmarkRow::median_seconds() const {
  std::vector<double> sorted = seconds;
  std::ranges::sort(sorted);
  const std::size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2.0;
}

double BenchmarkRow::operations() const {
  double sum = 0.0;
  for (const KindProfile& kind : kinds) sum += kind.operations;
  return sum;
}

double BenchmarkResult::product_speed(c10::ScalarType type) const {
  return type == at::kFloat ? speed.fp32 : speed.bf16;
}

BenchmarkResult benchmark(const BenchmarkRequest& request, const BenchmarkProgress& progress) {
  return nn::with_ringlet_errors("bench", [&] {
    check(request);
    const std::size_t methods = split_list(request.methods, Field("methods")).size();
    const Turns turns(progress, 2 + methods * (1 + static_cast<std::size_t>(request.rounds)));
    BenchmarkResult result;
    {
      const auto model = open(request, /*training=*/false);
      result.size = size_for(request, *model);
      result.model = model->description().name + " (" + model->description().kind + ")";
      turns.begin("the machine");
      result.speed = measure_speed(request.load.device);
      result.rows.push_back(forward_pass(request, result.size, *model, turns));
    }
    const auto model = open(request, /*training=*/true);
    for (BenchmarkRow& row : training_steps(request, *model, result.size, turns))
      result.rows.push_back(std::move(row));
    if (!request.out.empty()) write_benchmark(request, result);
    return result;
  });
}

}  // namespace ringlet::service
