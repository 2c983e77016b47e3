// Where generated pictures go: a file, a folder, a grid, or a file of latents.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/io/image.h"
#include "ringlet/service/generator.h"

namespace ringlet::service {

struct PictureFiles {
  std::filesystem::path out;  ///< a file when it ends in .png (or .safetensors for latents), else a
                              ///< folder, which is made
  bool latents = false;       ///< clean latents in one file, in place of pictures
  bool grid = false;          ///< also all pictures in one
};

/// Writes what a Generator makes and says what was written. Nothing in a folder is overwritten.
class PictureOutput {
 public:
  /// For `count` pictures. Throws Error(invalid_argument | io) when `files.out` cannot be written
  /// to, before any work is done.
  PictureOutput(const PictureFiles& files, std::size_t count);

  /// Decodes and writes the pictures of one batch, or keeps its latents.
  void add(const Generator& generator, const pipeline::GenerateRequest& request,
           const at::Tensor& latents);

  /// Writes what needs all pictures: the grid, or the file of latents.
  void finish();

  /// What was written, [{"file", "prompt", "seed", "width", "height", "steps", "sampler"}].
  const Json& records() const { return records_; }

  /// The files of the pictures, or the one of the latents, in the order of their making.
  std::vector<std::filesystem::path> files() const;

 private:
  std::filesystem::path next_file(std::uint64_t seed);
  void note(const std::filesystem::path& file, const pipeline::GenerateRequest& request,
            std::uint64_t seed);

  std::filesystem::path file_;    ///< the one file, or empty
  std::filesystem::path folder_;  ///< where pictures go when there are several
  bool latent_;
  bool grid_;
  std::size_t count_;
  std::size_t index_ = 0;  ///< number of the next picture in its folder
  std::vector<at::Tensor> latents_;
  std::vector<io::Image> images_;
  std::string grid_text_;  ///< parameters of the first picture
  std::map<std::string, std::string> latent_metadata_;
  Json records_ = Json::array();
};

/// {"images": what was written, "model": {"path", "kind", "sha256"}, "device", "precision",
/// "seconds"}: the answer to a request.
Json generation_json(const Generator& generator, const PictureOutput& output, double seconds);

}  // namespace ringlet::service
