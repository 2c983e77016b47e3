// A text-to-image model that is open for requests, with its adapters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/core/log.h"
#include "ringlet/io/image.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/service/adapters.h"
#include "ringlet/service/picture_request.h"

namespace ringlet::service {

/// A textual-inversion file, and the word that it is to be called by; "" = the file's own.
struct EmbeddingChoice {
  std::filesystem::path file;
  std::string word = {};
};

/// What a Generator opens.
struct ModelRequest {
  std::filesystem::path model;
  pipeline::LoadOptions load;
  std::vector<pipeline::AdapterChoice> adapters;
  std::vector<EmbeddingChoice> embeddings;
  std::filesystem::path controlnet;  ///< "" = the encoder of an adapter, where one has it
};

/// The model, how its files are read, and the ControlNet, as options. Adapters, embeddings, device
/// and precision are written otherwise on command lines.
void describe(OptionList& list, ModelRequest& request);

/// Reads {"model", "variant", "tokenizer", "prediction", "device", "precision", "low_memory",
/// "base_storage", "offload_layers", "adapters": [{"file", "strength", "blocks": {PATTERN:
/// FACTOR}}], "embeddings": [{"file", "word"}], "controlnet"}, of which "model" alone is needed.
/// Throws Error(invalid_argument) for unknown fields, with the nearest name, and for values of
/// another type, and as nn::select_device and nn::select_precision.
ModelRequest model_request_from_json(const Json& json);
Json to_json(const ModelRequest& request);

/// A step of the sampler is done.
struct SamplingStep {
  std::size_t batch = 0;  ///< from 0
  std::size_t done = 0;   ///< steps of this batch
  std::size_t total = 0;
};

/// How a program follows one request. Either may be empty.
struct PictureObserver {
  std::function<bool(const SamplingStep&)> step;  ///< false cancels the request
  LogSink log;  ///< of this request, in place of the program's (core/log.h)
};

/// Gets every batch when its sampling has ended: the request with the prompt and the seeds of its
/// pictures, and their clean latents [B, C, h, w].
using BatchSink = std::function<void(const pipeline::GenerateRequest&, const at::Tensor&)>;

struct MadePicture {
  io::Image image;
  std::string prompt;
  std::uint64_t seed = 0;
  std::string parameters;  ///< pipeline::generation_parameters, as PNG text
};

/// Adapters are attached to the model's layers, not to a call: every picture of a Generator is made
/// with all of its adapters at their strengths. Other adapters or strengths are another Generator
/// over the same files, whose pages the two share as far as weights stay in the files.
///
/// Several threads may call it. Requests are computed one after the other, in the order in which
/// the lock lets them in, since a batch uses all cores and its memory once; whoever serves many
/// keeps a queue. Observers and sinks are called on the calling thread while the model is locked.
class Generator {
 public:
  /// Opens the model, teaches it the words of embeddings, loads and attaches adapters. Throws as
  /// pipeline::open_text_to_image_model, add_embeddings, load_adapters and with_control.
  explicit Generator(ModelRequest request);
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  /// Makes the pictures of a request batch by batch, prompt by prompt. Throws as check(),
  /// pipeline::checked and the readers of its files before the first step, and
  /// Error(cancelled) when the observer says so.
  void generate(const PictureRequest& request, const BatchSink& sink,
                const PictureObserver& observer = {}) const;

  /// The same, all pictures in memory.
  std::vector<MadePicture> pictures(const PictureRequest& request,
                                    const PictureObserver& observer = {}) const;

  /// The pictures of a batch that a sink has got.
  std::vector<MadePicture> decode(const pipeline::GenerateRequest& request,
                                  const at::Tensor& latents) const;

  const pipeline::TextToImageModel& model() const { return *model_; }

  /// pipeline::model_hash, which is computed beside the first pictures. Throws Error(io).
  const std::string& hash() const { return hash_.get(); }

 private:
  void generate_now(const PictureRequest& request, const BatchSink& sink,
                    const PictureObserver& observer) const;
  pipeline::GenerateRequest first_request(const PictureRequest& request) const;
  const pipeline::ControlNetwork* control_for(const PictureRequest& request) const;
  at::Tensor sample(const pipeline::GenerateRequest& request, std::size_t batch,
                    const PictureObserver& observer) const;

  ModelRequest options_;
  std::unique_ptr<pipeline::TextToImageModel> model_;
  std::shared_future<std::string> hash_;
  LoadedAdapters adapters_;
  const adapt::AdapterFileInfo* encoder_ = nullptr;  ///< the adapter with a control encoder
  mutable std::mutex lock_;
  /// Made for the first request with one.
  mutable std::unique_ptr<pipeline::ControlNetwork> control_;
};

/// Reads every file that a request names, so that what is damaged or missing is known before a
/// model is opened. Throws as io::load_tensors and io::read_image, and Error(bad_format) for
/// latents of another name.
void check_files(const PictureRequest& request);

}  // namespace ringlet::service
