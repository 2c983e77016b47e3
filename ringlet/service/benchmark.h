// How fast a model trains and denoises on this machine, and where its time and memory go.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ringlet/adapt/set/targets.h"
#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/service/step_profile.h"

namespace ringlet::service {

struct BenchmarkRequest {
  std::filesystem::path model = "starter";
  pipeline::LoadOptions load;
  std::string methods = "lora(rank=4),trm(rank=2)+lora(rank=4),trm(rank=2)+tr(rank=6)";
  adapt::TargetOptions targets = {.presets = {"attention"}};
  std::int64_t resolution = 0;  ///< pixels of a side; 0 = the model's own
  std::int64_t batch_size = 1;
  std::int64_t rounds = 3;
  std::int64_t steps = 3;  ///< of each method in a round
  bool gradient_checkpointing = false;
  std::filesystem::path out;  ///< folder for tables and plots; "" = none are written
};

/// The options but device and precision, which are written otherwise on command lines.
void describe(OptionList& list, BenchmarkRequest& request);

/// Throws Error(invalid_argument) for values out of range and for methods that cannot be read.
void check(const BenchmarkRequest& request);

/// The options' values by field, with "device" and "precision". Throws Error(invalid_argument) for
/// unknown fields, with the nearest name, for values of another type, and as check.
BenchmarkRequest benchmark_request_from_json(const Json& json);
Json to_json(const BenchmarkRequest& request);

/// What the device can do: bounds of what a network can reach.
struct MachineSpeed {
  double fp32 = 0.0;    ///< operations per second in the products of linear layers: a 2048 x 1280
  double bf16 = 0.0;    ///< matrix and a 1280 x 1280 one (8192 and 4096 on CUDA), the best of some
  double memory = 0.0;  ///< bytes per second read and written while memory is copied
};

/// A forward pass, or a training step of one method.
struct BenchmarkRow {
  std::string name;              ///< "forward pass", or the method
  std::int64_t rows = 1;         ///< pictures at a time
  std::int64_t parameters = 0;   ///< that learn
  std::vector<double> seconds;   ///< of all timed passes, in order
  std::uint64_t peak_bytes = 0;  ///< of the process, or reserved on the device
  std::int64_t kept_bytes = 0;   ///< by the forward pass for the backward pass

  // Of one more pass, which was looked at from inside.
  std::array<KindProfile, nn::kLayerKinds> kinds;
  std::vector<MemoryMoment> memory;

  double median_seconds() const;
  /// Of the model by its layers' shapes: neither what adapters compute besides, nor what gradient
  /// checkpointing computes again.
  double operations() const;
};

struct BenchmarkResult {
  MachineSpeed speed;
  std::string model;  ///< its name and kind
  PictureSize size;
  std::vector<BenchmarkRow> rows;  ///< the forward pass first
  /// Speed of the products in the type that was computed in.
  double product_speed(c10::ScalarType type) const;
};

/// Before each measurement: what it is of, and how many there are. Returning false ends it.
using BenchmarkProgress = std::function<bool(const std::string& what, std::size_t total)>;

/// Measures the device, then a forward pass with guidance (twice the pictures), then the methods,
/// whose training steps take turns round by round: drift of a shared machine hits all of them. A
/// training step is that of `ringlet train`: noise, forward and backward pass, clipping, AdamW. The
/// first of each warms up and the next two are looked at from inside, of which the faster is kept;
/// none of them is timed. Writes the
/// files of benchmark_report.h into the folder `out`. Throws as check,
/// pipeline::open_text_to_image_model and adapt::select_targets, Error(invalid_argument) for a
/// resolution that the model does not take, and Error(cancelled).
BenchmarkResult benchmark(const BenchmarkRequest& request, const BenchmarkProgress& progress = {});

}  // namespace ringlet::service
