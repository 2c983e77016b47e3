// Pictures that `ringlet eval` makes before it measures them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "adapter_options.h"
#include "options.h"
#include "ringlet/eval/generation_record.h"
#include "ringlet/pipeline/stable_diffusion.h"

namespace ringlet::app {

/// The title in --help of the options that say how pictures are made.
inline constexpr const char* kMaking = "Making the pictures that --generated lacks";

/// Without --model its options would be passed over: Error(invalid_argument).
void check_making(const CLI::App& app, const std::string& model);

/// What a model is opened with to make pictures to measure.
pipeline::LoadOptions load_options(const CommonOptions& common, const ModelOptions& files);

/// "adapter.safetensors (0123456789abcdef)": what a file or folder is called, and a hash of it.
std::string file_identity(const std::filesystem::path& path);

/// The settings that pictures of a checked request depend on, whatever they show: the model and the
/// adapters by name and hash (pipeline::model_hash), steps, guidance, sampler, size and precision.
eval::GenerationRecord generation_record(const pipeline::StableDiffusion& model,
                                         const std::string& model_hash,
                                         const std::vector<pipeline::AdapterChoice>& adapters,
                                         const pipeline::GenerateRequest& request);

/// Those of the seeds first, first + 1, … whose picture is not there yet.
std::vector<std::uint64_t> missing_seeds(
    std::uint64_t first, std::int64_t count,
    const std::function<std::filesystem::path(std::uint64_t seed)>& file_of);

/// The pictures of a request. Throws Error(cancelled) after an interrupt.
std::vector<io::Image> make_pictures(const pipeline::StableDiffusion& model,
                                     const pipeline::GenerateRequest& request);

}  // namespace ringlet::app
