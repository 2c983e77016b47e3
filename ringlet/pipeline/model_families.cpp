#include "ringlet/pipeline/model_families.h"

#include <algorithm>
#include <array>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/flux/flux.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "ringlet/pipeline/stable_diffusion_3/stable_diffusion_3.h"

namespace ringlet::pipeline {
std::span<const ModelFamily> model_families() {
  static const std::array kFamilies = {
      ModelFamily{"Stable Diffusion 1, 2 and XL", is_stable_diffusion_folder,
                  is_stable_diffusion_file,
                  [](const std::filesystem::path& path,
                     const LoadOptions& options) -> std::unique_ptr<TextToImageModel> {
                    return std::make_unique<StableDiffusion>(StableDiffusion::open(path, options));
                  },
                  describe_stable_diffusion},
      ModelFamily{
          "Stable Diffusion 3 and 3.5", is_stable_diffusion_3_folder, is_stable_diffusion_3_file,
          [](const std::filesystem::path& path,
             const LoadOptions& options) -> std::unique_ptr<TextToImageModel> {
            return std::make_unique<StableDiffusion3>(StableDiffusion3::open(path, options));
          },
          describe_stable_diffusion_3},
      ModelFamily{"FLUX.1", is_flux_folder, is_flux_file,
                  [](const std::filesystem::path& path,
                     const LoadOptions& options) -> std::unique_ptr<TextToImageModel> {
                    return std::make_unique<Flux>(Flux::open(path, options));
                  },
                  describe_flux},
  };
  return kFamilies;
}

const ModelFamily* find_family(const std::filesystem::path& path,
                               std::span<const ModelFamily> families) {
  if (!std::filesystem::is_directory(path))
    return find_family(io::SafetensorsFile::open(path), families);
  const auto found = std::ranges::find_if(
      families, [&](const ModelFamily& family) { return family.is_folder(path); });
  return found == families.end() ? nullptr : &*found;
}

const ModelFamily* find_family(const std::shared_ptr<const io::SafetensorsFile>& file,
                               std::span<const ModelFamily> families) {
  const auto found = std::ranges::find_if(
      families, [&](const ModelFamily& family) { return family.is_file(file); });
  return found == families.end() ? nullptr : &*found;
}

const ModelFamily& family_of_folder(const std::filesystem::path& folder,
                                    std::span<const ModelFamily> families) {
  if (const ModelFamily* family = find_family(folder, families)) return *family;
  const std::string pipeline = pipeline_class(folder);
  std::vector<std::string> names;
  for (const ModelFamily& family : families) names.push_back(family.name);
  throw Error(ErrorCode::unsupported, (folder / "model_index.json").string(),
              "the model is a " + pipeline, "ringlet supports " + join(names));
}

namespace {

std::unique_ptr<TextToImageModel> open_any(const std::filesystem::path& path,
                                           const LoadOptions& options,
                                           std::span<const ModelFamily> families) {
  check_model_path(path, options.files);
  if (std::filesystem::is_directory(path))
    return family_of_folder(path, families).open(path, options);
  LoadOptions opened = options;
  if (!opened.files.single_file) opened.files.single_file = io::SafetensorsFile::open(path);
  const ModelFamily* family = find_family(opened.files.single_file, families);
  // What a file lacks, only the reader of a family can say.
  return (family != nullptr ? *family : families.front()).open(path, opened);
}

}  // namespace

std::unique_ptr<TextToImageModel> open_text_to_image_model(const std::filesystem::path& path,
                                                           const LoadOptions& options,
                                                           std::span<const ModelFamily> families) {
  return nn::with_ringlet_errors(path.string(), [&] {
    std::unique_ptr<TextToImageModel> model = open_any(path, options, families);
    if (options.files.zero_terminal_snr && model->noise_process()->name() != "DDPM")
      throw Error(ErrorCode::invalid_argument, Field("zero_terminal_snr"),
                  "it is for Stable Diffusion 1, 2 and XL: this model begins in pure noise",
                  "leave it out");
    return model;
  });
}

}  // namespace ringlet::pipeline
