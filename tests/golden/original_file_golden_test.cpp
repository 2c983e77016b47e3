// Single files of Stable Diffusion 3 and FLUX.1 in their authors' layout, against diffusers:
// pipelines as in make_flow_pipelines.py, the layout as its converters read it
// (make_original_layout.py).
#include <memory>
#include <set>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "ringlet/formats/original_transformer.h"
#include "ringlet/models/diffusion/flux_transformer.h"
#include "ringlet/models/diffusion/sd3_transformer.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/model_families.h"
#include "tests/golden/tiny_original_file.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

using golden::flow_pipelines;
using golden::OriginalFile;
namespace fs = std::filesystem;

/// Every original name, its rows and its place, as diffusers' converter has them.
class OriginalLayoutGolden : public testing::TestWithParam<std::string> {};

TEST_P(OriginalLayoutGolden, EveryTensorIsWhereDiffusersPutsIt) {
  const golden::Tensors original = golden::original_transformer(GetParam());
  const auto store =
      std::make_shared<nn::MapStore>(golden::with_prefix("diffusion_model.", original));
  const auto found = formats::find_original_transformer(*store);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->prefix, "diffusion_model.");
  const formats::SingleFileComponent part = formats::open_original_transformer(store, *found);
  const Json& pieces = golden::original_layout(GetParam()).at("pieces");
  EXPECT_EQ(part.weights->names().size(), pieces.size());
  const Json& model = flow_pipelines().at("models").at(GetParam());
  for (const auto& [name, tensor] : golden::component_tensors(model, "transformer")) {
    const auto mapped = part.weights->find(name, {}, {});
    ASSERT_TRUE(mapped) << name;
    EXPECT_TRUE(mapped->equal(tensor)) << name;
    const Json& piece = pieces.at(name);
    // One range of rows is a view of the file.
    const at::Tensor& whole = original.at(piece.at(0));
    EXPECT_EQ(mapped->is_alias_of(whole), piece.at(1).size() == 1) << name;
  }
  for (const auto& [field, value] : model.at("transformer").items()) {
    if (field == "sample_size") continue;  // of pictures, which no tensor says
    EXPECT_EQ(part.config.at(field), value) << field;
  }
}

// The heads of Stable Diffusion 3 without norms are 64 wide, and those of "sd3" here are not.
INSTANTIATE_TEST_SUITE_P(Models, OriginalLayoutGolden,
                         testing::Values("sd35", "flux_dev", "flux_schnell"),
                         [](const auto& entry) { return entry.param; });

class OriginalFileGolden : public testing::TestWithParam<std::string> {
 protected:
  using Model = std::unique_ptr<pipeline::TextToImageModel>;

  static bool flux() { return golden::is_flux(GetParam()); }
  static std::string t5() { return flux() ? "text_encoder_2" : "text_encoder_3"; }
  fs::path folder() const { return folder_ / "model"; }
  static pipeline::LoadOptions load() {
    pipeline::LoadOptions options;
    options.files.text_tokens = flow_pipelines().at("text_tokens");
    return options;
  }
  fs::path save(const OriginalFile& parts) const {
    const fs::path path = folder_ / "single.safetensors";
    io::save_tensors(path, golden::original_file_tensors(GetParam(), parts));
    return path;
  }
  static pipeline::GenerateRequest request() { return golden::flow_request(GetParam()); }
  static void edit(const fs::path& file, const Json& fields) {
    Json json = read_json_file(file);
    json.update(fields);
    golden::write_json(file, json);
  }

  TemporaryFolder folder_;
};

// The scheduler's defaults, the transformer and CLIP are the file's; T5 and the autoencoder, whose
// small configurations differ from the published ones, come from folders.
TEST_P(OriginalFileGolden, LatentsAndPicturesEqualDiffusers) {
  const at::NoGradGuard no_grad;
  golden::write_flow_folder(folder(), GetParam());
  golden::write_tokenizer(folder_ / "tokenizer", "<|endoftext|>");
  pipeline::LoadOptions options = load();
  options.files.text_encoders = {(folder() / t5()).string()};
  options.files.vae = folder() / "vae";
  const Model model =
      pipeline::open_text_to_image_model(save({.t5 = false, .vae = false}), options);
  const at::Tensor latents = pipeline::sample(*model, request());
  static const auto expected =
      io::load_tensors(golden::data_folder() / "flow_pipelines.safetensors");
  const auto near = [](const at::Tensor& actual, const at::Tensor& want) {
    return (actual - want).abs().max().item<double>() <= 1e-4 * want.abs().max().item<double>();
  };
  EXPECT_TRUE(near(latents, expected.at(GetParam() + ".latents")));
  EXPECT_TRUE(near(model->decode(latents.narrow(0, 0, 1)), expected.at(GetParam() + ".pixels")));
}

TEST_P(OriginalFileGolden, AFileWithAllPartsEqualsTheFolder) {
  const at::NoGradGuard no_grad;
  golden::write_flow_folder(folder(), GetParam());
  golden::write_tokenizers_beside(folder_.path());
  edit(folder() / t5() / "config.json", {{"relative_attention_max_distance", 128}});
  Json vae = {{"norm_num_groups", 8}};
  if (flux()) vae.update({{"scaling_factor", 0.3611}, {"shift_factor", 0.1159}});
  edit(folder() / "vae/config.json", vae);
  const Model whole = pipeline::open_text_to_image_model(folder(), load());
  const at::Tensor latents = pipeline::sample(*whole, request());
  for (const char* prefix : {"model.diffusion_model.", ""}) {
    const Model model = pipeline::open_text_to_image_model(save({.prefix = prefix}), load());
    EXPECT_EQ(model->description().kind, whole->description().kind);
    EXPECT_TRUE(pipeline::sample(*model, request()).equal(latents)) << prefix;
    EXPECT_TRUE(model->decode(latents).equal(whole->decode(latents))) << prefix;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, OriginalFileGolden,
                         testing::Values("sd35", "flux_dev", "flux_schnell"),
                         [](const auto& entry) { return entry.param; });

}  // namespace
}  // namespace ringlet
