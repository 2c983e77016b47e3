// Where generated pictures go: a file, a folder, a grid, or a file of latents.
#pragma once

#include <cstddef>
#include <filesystem>
#include <future>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "ringlet/pipeline/stable_diffusion.h"

namespace ringlet::app {

class PictureOutput {
 public:
  /// `out` names a file when it ends in .png (or .safetensors for latents), else a folder, which is
  /// made. Nothing in a folder is overwritten. Throws Error(invalid_argument | io) when it cannot
  /// be written to, before any work is done.
  PictureOutput(const std::filesystem::path& out, const std::string& type, bool grid,
                std::size_t count);

  /// Decodes and writes the pictures of one batch, or keeps its latents.
  void add(const pipeline::StableDiffusion& model, const pipeline::GenerateRequest& request,
           const at::Tensor& latents, const std::shared_future<std::string>& hash);

  /// Writes what needs all pictures: the grid, or the file of latents.
  void finish();

  /// Prints what was made.
  void report(const pipeline::StableDiffusion& model, const pipeline::LoadOptions& options,
              double seconds, bool json) const;

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
  std::string hash_;
  std::vector<at::Tensor> latents_;
  std::vector<io::Image> images_;
  std::string grid_text_;  ///< parameters of the first picture
  std::map<std::string, std::string> latent_metadata_;
  nlohmann::json made_ = nlohmann::json::array();
};

}  // namespace ringlet::app
