// What `ringlet inspect` tells of Stable Diffusion's folders and files.
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/io/safetensors.h"
#include "ringlet/pipeline/describe.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion_files.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

/// The part of a single-file checkpoint that a tensor belongs to.
std::string checkpoint_part(const std::string& name) {
  static const std::vector<std::pair<std::string, std::string>> kParts = {
      {"model.diffusion_model.", "unet"},
      {"first_stage_model.", "vae"},
      {"cond_stage_model.", "text_encoder"},
      {"conditioner.embedders.0.", "text_encoder"},
      {"conditioner.embedders.1.", "text_encoder_2"}};
  for (const auto& [prefix, part] : kParts)
    if (name.starts_with(prefix)) return part;
  return "other";
}

Json describe_checkpoint(const fs::path& path) {
  const auto file = io::SafetensorsFile::open(path);
  const formats::SingleFileModel model = read_single_file(file);
  Json out = {{"path", path.string()},
              {"kind", model.kind + " checkpoint"},
              {"components", components_of(*file, checkpoint_part)},
              {"metadata", file->metadata()},
              {"notes", model.prediction.notes}};
  add_schedule(out, model.scheduler, path.string(), model.prediction.source);
  if (out.contains("schedule"))
    out["schedule"]["source"] = model.prediction.snr_source.empty()
                                    ? "assumed: that of all Stable Diffusion models"
                                    : model.prediction.snr_source;
  if (!model.ignored.empty())
    out["notes"].push_back(std::to_string(model.ignored.size()) +
                           " tensors outside the model are ignored");
  return out;
}

Json describe_folder(const fs::path& root, const std::string& variant) {
  ModelFileOptions options;
  options.variant = variant;
  const StableDiffusionFiles files = find_stable_diffusion(root, options);
  return describe_model_folder(files, {"unet", "vae", "text_encoder", "text_encoder_2"}, variant);
}

}  // namespace

Json describe_stable_diffusion(const fs::path& path, const std::string& variant) {
  return fs::is_directory(path) ? describe_folder(path, variant) : describe_checkpoint(path);
}

}  // namespace ringlet::pipeline
