// Checkpoints of earlier versions: kinds as numbers, and no word on the optimiser.
#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

class OldCheckpoint : public FineTuning {
 protected:
  /// Rewrites the settings of the run's only checkpoint.
  template <class Change>
  static void change(const FineTuneOptions& o, const Change& how) {
    const CheckpointFolder folder(o.out / "checkpoints", 1);
    const TrainState loaded = CheckpointFolder::load(*folder.latest());
    TrainState state = loaded;
    for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();  // off the mapped file
    how(state.settings);
    folder.save(state);
  }
  static void as_of_old(Json& settings) {
    settings["learning rate decay"] = 2;
    settings["prediction"] = 0;
    settings.erase("optimizer");
    settings.erase("base storage");
  }
  FineTuneOptions cosine(const std::string& out) const {
    FineTuneOptions o = options(out);
    o.trainer.learning_rate.decay = Decay::cosine;
    return o;
  }
};

TEST_F(OldCheckpoint, Resumes) {
  const FineTuneOptions whole = cosine("whole/run");
  EXPECT_TRUE(run(whole));
  FineTuneOptions o = cosine("parts/run");
  EXPECT_FALSE(run(o, 1));
  change(o, as_of_old);
  o.resume = true;
  const LogCapture log;
  EXPECT_TRUE(run(o));
  EXPECT_EQ(log.warnings().find("does not record"), std::string::npos) << log.warnings();
  EXPECT_EQ(file_content(o.out / "adapter.safetensors"),
            file_content(whole.out / "adapter.safetensors"));
}

TEST_F(OldCheckpoint, IsComparedByName) {
  FineTuneOptions o = cosine("run");
  run(o, 1);
  change(o, as_of_old);
  o.resume = true;
  FineTuneOptions linear = o;
  linear.trainer.learning_rate.decay = Decay::linear;
  expect_error(ErrorCode::mismatch, "learning rate decay was \"cosine\", now \"linear\"",
               [&] { FineTune{linear}; });
  FineTuneOptions v = o;
  v.load.files.prediction = diffusion::Prediction::v;
  expect_error(ErrorCode::mismatch, "prediction was \"epsilon\", now \"v_prediction\"",
               [&] { FineTune{v}; });
  FineTuneOptions lion = o;
  lion.trainer.optimizer = train::lion();
  expect_error(ErrorCode::mismatch, "optimizer was \"adamw\", now \"lion\"",
               [&] { FineTune{lion}; });
  change(o, [](Json& settings) { settings["learning rate decay"] = 7; });
  expect_error(ErrorCode::mismatch, "learning rate decay was 7", [&] { FineTune{o}; });
}

// Both thresholds were one setting.
TEST_F(OldCheckpoint, OfASignalResumes) {
  write_pictures(folder_ / "pictures", 4);
  FineTuneOptions o = options("run");
  o.control.signal = data::ControlSignal::canny;
  o.control.validation_pictures = 2;
  EXPECT_FALSE(run(o, 1));
  const auto latest = CheckpointFolder(o.out / "checkpoints", 1).latest();
  const Json settings = CheckpointFolder::load(*latest).settings;
  const auto value = [&](const char* key) { return settings.value(key, Json()); };
  EXPECT_EQ(value("control"), "canny");
  EXPECT_EQ(value("control network"), "encoder");
  EXPECT_EQ(value("canny low"), 100.0);
  EXPECT_EQ(value("crop"), "centre");
  EXPECT_EQ(value("class count"), 0);  // there is no class
  EXPECT_EQ(value("clip skip"), 1);
  EXPECT_EQ(value("resolution"), 16);
  EXPECT_EQ(value("samples").value("guidance", 0.0), 7.5);  // the model's own
  change(o, [](Json& old) {
    old.erase("canny low");
    old.erase("canny high");
    old["control thresholds"] = {100.0, 200.0};
  });
  o.resume = true;
  FineTuneOptions other = o;
  other.control.canny.high = 150.0;
  expect_error(ErrorCode::mismatch, "canny high was 200.0, now 150.0", [&] { FineTune{other}; });
  const LogCapture log;
  EXPECT_TRUE(run(o));
  EXPECT_EQ(log.warnings().find("does not record"), std::string::npos) << log.warnings();
}

TEST_F(OldCheckpoint, OfNoSignalSaysNothingOfOne) {
  const FineTuneOptions o = options("run");
  run(o, 1);
  const Json settings =
      CheckpointFolder::load(*CheckpointFolder(o.out / "checkpoints", 1).latest()).settings;
  for (const char* key : {"control", "control network", "canny low", "canny high", "samples"})
    EXPECT_FALSE(settings.contains(key)) << key;
}

}  // namespace
}  // namespace ringlet::train
