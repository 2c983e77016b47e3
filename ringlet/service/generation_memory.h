// How pictures are made within a memory limit.
#pragma once

#include <cstdint>
#include <string>

#include "ringlet/service/generator.h"
#include "ringlet/service/picture_request.h"

namespace ringlet::service {

/// The most memory that making the pictures is expected to take, in bytes: of this process on the
/// CPU, otherwise of the device. `model` is open and nothing has been made yet. Adapters, control
/// networks and the hash of the model's files are not counted.
std::uint64_t expected_peak_bytes(const pipeline::TextToImageModel& model,
                                  const PictureRequest& request);

/// What was chosen, in both requests.
struct GenerationPlan {
  ModelRequest model;          ///< its `load`
  PictureRequest pictures;     ///< its batch_size
  std::uint64_t expected = 0;  ///< bytes at the peak
};

/// Chooses so that the pictures are made within `limit` bytes at the least harm: whole pictures
/// before tiles of the autoencoder, as large as they can be, the batch that was asked for before
/// smaller ones, layouts in memory before `low_memory`, then narrower storage of the denoiser, and
/// last its blocks in host memory. What is given in the requests stays. Opens the model. Throws as
/// opening it, and Error(out_of_memory) with the smallest limit that is enough.
GenerationPlan plan_generation(const ModelRequest& model, const PictureRequest& pictures,
                               std::uint64_t limit);

/// "batches of 2, autoencoder in tiles of 256 pixels, low memory"; "" where nothing was changed.
std::string text_of(const GenerationPlan& plan, const ModelRequest& model,
                    const PictureRequest& pictures);

}  // namespace ringlet::service
