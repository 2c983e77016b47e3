#include "ringlet/pipeline/stable_diffusion_3/stable_diffusion_3_files.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "ringlet/models/diffusion/patch_embedding.h"
#include "ringlet/models/diffusion/sd3_config.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/describe.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

/// By what tells the published networks apart: the norms of 3.5, and the second attention of its
/// medium size.
std::string kind_of_sd3(const ModelComponent& transformer) {
  const auto config = models::Sd3Config::from_json(transformer.config, transformer.where);
  if (!config.rms_norm) return "Stable Diffusion 3";
  return config.dual_attention_layers.empty() ? "Stable Diffusion 3.5 large"
                                              : "Stable Diffusion 3.5 medium";
}

/// A transformer's tensors with the table of positions that its file lacks, and other programs
/// need.
class StoreWithPositions final : public nn::TensorStore {
 public:
  static constexpr const char* kTable = "pos_embed.pos_embed";

  StoreWithPositions(std::shared_ptr<const nn::TensorStore> store, const models::Sd3Config& c)
      : store_(std::move(store)),
        table_(models::position_table(c.width(), c.table_side, c.sample_size / c.patch_size)) {}
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init& init) const override {
    return name == kTable ? table_ : store_->find(name, shape, init);
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> all = store_->names();
    all.insert(std::ranges::lower_bound(all, kTable), kTable);
    return all;
  }
  void release() const override { store_->release(); }
  std::string description() const override { return store_->description(); }

 private:
  std::shared_ptr<const nn::TensorStore> store_;
  at::Tensor table_;
};

StableDiffusion3Files find_sd3_folder(const fs::path& root, const ModelFileOptions& options) {
  StableDiffusion3Files files;
  open_folder(files, root, read_json_file(root / "model_index.json"),
              {{"transformer", NetworkRole::denoiser},
               {"vae", NetworkRole::autoencoder},
               {"text_encoder", NetworkRole::text_encoder, "tokenizer"},
               {"text_encoder_2", NetworkRole::text_encoder, "tokenizer_2"},
               {"text_encoder_3", NetworkRole::text_encoder, "tokenizer_3", /*optional=*/true}},
              options);
  ModelComponent& transformer = files.parts.at("transformer");
  files.kind = kind_of_sd3(transformer);
  const std::vector<std::string> names = transformer.weights->names();
  if (!names.empty() && std::ranges::find(names, StoreWithPositions::kTable) == names.end())
    transformer.weights = std::make_shared<StoreWithPositions>(
        transformer.weights, models::Sd3Config::from_json(transformer.config, transformer.where));
  return files;
}

}  // namespace

bool is_stable_diffusion_3_folder(const fs::path& folder) {
  return has_pipeline_class(folder, {"StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline",
                                     "StableDiffusion3InpaintPipeline"});
}

StableDiffusion3Files find_stable_diffusion_3(const fs::path& path,
                                              const ModelFileOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] {
    check_model_path(path, options);
    return find_sd3_folder(path, options);
  });
}

Json describe_stable_diffusion_3(const fs::path& path, const std::string& variant) {
  ModelFileOptions options;
  options.variant = variant;
  return describe_model_folder(
      find_stable_diffusion_3(path, options),
      {"transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"}, variant);
}

}  // namespace ringlet::pipeline
