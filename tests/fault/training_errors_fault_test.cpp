// Whatever goes wrong inside a run, in LibTorch, in memory or in the file system: an Error leaves.
#include <cerrno>
#include <fstream>
#include <new>

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "ringlet/core/failpoint.h"
#include "ringlet/eval/generation_record.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/expect_error.h"
#include "tests/tiny_fine_tune_test.h"
#include "tests/tiny_tune.h"
#include "tests/tiny_vision.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

struct Foreign {
  const char* name;
  void (*raise)();
  ErrorCode code;
};

const Foreign kForeign[] = {
    {"memory", [] { throw std::bad_alloc(); }, ErrorCode::out_of_memory},
    {"torch", [] { TORCH_CHECK(false, "a kernel failed"); }, ErrorCode::internal},
    {"files",
     [] {
       throw fs::filesystem_error("status", "gone",
                                  std::make_error_code(std::errc::no_such_file_or_directory));
     },
     ErrorCode::io},
};

class TrainingErrors : public FineTuning {
 protected:
  ~TrainingErrors() override { arm_failpoint("", 0); }
};

TEST_F(TrainingErrors, LeaveTheTrainerAsErrors) {
  for (const Foreign& foreign : kForeign) {
    SCOPED_TRACE(foreign.name);
    const std::vector<Trainable> parameters = {trainable("w", {3})};
    Trainer loss_fails(parameters,
                       [&](std::int64_t) {
                         foreign.raise();
                         return parameters[0].value.sum();
                       },
                       {.steps = 2});
    expect_error(foreign.code, "", [&] { loss_fails.run(); });
    Trainer observer_fails(parameters, [&](std::int64_t) { return parameters[0].value.sum(); },
                           {.steps = 2});
    expect_error(foreign.code, "", [&] {
      observer_fails.run([&](const StepResult&) {
        foreign.raise();
        return true;
      });
    });
    expect_error(foreign.code, "", [&] { observer_fails.run({}, [&](auto) { foreign.raise(); }); });
  }
}

/// Takes the place of a layer's adapter.
class FailingAdapter final : public nn::Adapter {
 public:
  explicit FailingAdapter(const Foreign& foreign) : foreign_(foreign) {}
  at::Tensor forward(const nn::Layer&, const at::Tensor& x) const override {
    foreign_.raise();
    return x;
  }
  at::Tensor weight(const at::Tensor& w0) const override { return w0; }
  std::vector<std::pair<std::string, at::Tensor>> parameters() const override { return {}; }
  std::string spec() const override { return "failing"; }

 private:
  const Foreign& foreign_;
};

TEST_F(TrainingErrors, LeaveTheLossAndTheEncodingAsErrors) {
  pipeline::LoadOptions load;
  load.for_training = true;
  const auto model = pipeline::StableDiffusion::open(folder_ / "model", load);
  const auto pictures = data::read_picture_folder(folder_ / "pictures").pictures;
  for (const Foreign& foreign : kForeign) {
    SCOPED_TRACE(foreign.name);
    expect_error(foreign.code, "", [&] {
      encode_pictures(model, pictures, {.size = {16, 16}}, {}, [&] {
        foreign.raise();
        return true;
      });
    });
    const DiffusionLoss loss(model, encode_pictures(model, pictures, {.size = {16, 16}}, {}), {},
                             {});
    const auto& layer = model.networks().at("unet").index.layers.begin()->second;
    layer->adapter = std::make_shared<FailingAdapter>(foreign);
    expect_error(foreign.code, "", [&] { loss(0); });
    layer->adapter.reset();
  }
}

TEST_F(TrainingErrors, LeaveAFineTuningAsErrors) {
  int number = 0;
  for (const Foreign& foreign : kForeign) {
    SCOPED_TRACE(foreign.name);
    const FineTuneOptions o = options("run" + std::to_string(++number));
    const auto fails = [&](const std::string&, std::size_t, std::size_t) {
      foreign.raise();
      return true;
    };
    expect_error(foreign.code, "", [&] { FineTune(o, {.progress = fails, .step = {}}); });
    FineTune tuning(o);
    expect_error(foreign.code, "", [&] { tuning.run({.progress = fails, .step = {}}); });
    FineTune stepping(o);
    expect_error(foreign.code, "", [&] {
      stepping.run({.progress = {}, .step = [&](const StepResult&) {
                      foreign.raise();
                      return true;
                    }});
    });
  }
}

tune::TuneOptions tiny_tuning(const fs::path& folder, const std::string& out) {
  fs::create_directories(folder / "net");
  std::ofstream(folder / "net/config.json") << golden::tiny_vit_config().dump();
  for (int i = 0; i < 20; ++i) {
    const fs::path label = folder / "labelled" / (i % 2 == 0 ? "even" : "odd");
    fs::create_directories(label);
    io::write_png(label / (std::to_string(i) + ".png"), waves(i, 16, 16));
  }
  tune::TuneOptions o;
  o.examples.task = "image-classification";
  o.examples.model = folder / "net";
  o.examples.random_seed = 1;
  o.examples.data = folder / "labelled";
  o.out = folder / out;
  o.learning = train::AllWeights{};
  o.batch_size = 2;
  o.trainer.steps = 1;
  return o;
}

TEST_F(TrainingErrors, LeaveATuningAsErrors) {
  int number = 0;
  for (const Foreign& foreign : kForeign) {
    SCOPED_TRACE(foreign.name);
    tune::Tune tuning(tiny_tuning(folder_.path(), "tuned" + std::to_string(++number)));
    expect_error(foreign.code, "", [&] {
      tuning.run([&](const StepResult&) {
        foreign.raise();
        return true;
      });
    });
  }
}

TEST_F(TrainingErrors, AFolderThatCannotBeMadeIsAnError) {
  FineTuneOptions o = options("one/run");
  o.class_prompt = "a photo of a pet";
  o.class_count = 1;
  FineTune tuning(o);
  arm_failpoint("make_folder", EACCES);
  expect_error(ErrorCode::io, "run: the folder cannot be created", [&] { tuning.run({}); });
  arm_failpoint("make_folder", EACCES, 2);
  expect_error(ErrorCode::io, "class_images: the folder cannot be created",
               [&] { tuning.run({}); });
  arm_failpoint("make_folder", ENOSPC, 3);
  expect_error(ErrorCode::no_space, "the folder cannot be created", [&] { tuning.run({}); });

  // The run's, the log's, the checkpoints', then that of the tuned model.
  tune::Tune whole(tiny_tuning(folder_.path(), "tuned"));
  arm_failpoint("make_folder", EACCES, 4);
  expect_error(ErrorCode::io, "model: the folder cannot be created", [&] { whole.run(); });
  arm_failpoint("make_folder", EACCES);
  expect_error(ErrorCode::io, "made: the folder cannot be created",
               [&] { eval::claim_folder(folder_ / "made", {}); });
}

}  // namespace
}  // namespace ringlet::train
