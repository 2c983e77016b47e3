// Names and shapes of the published single-file checkpoints (make_pipeline.py, real_shapes).
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include "ringlet/formats/ldm/single_file.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/models/diffusion/vae.h"
#include "ringlet/models/text/clip_text.h"
#include "ringlet/nn/weight_store.h"
#include "tests/golden/tiny_model.h"

namespace ringlet {
namespace {

Json read_gzip_json(const std::filesystem::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  std::string text;
  std::vector<char> buffer(1 << 16);
  for (int count; (count = gzread(file, buffer.data(), static_cast<unsigned>(buffer.size()))) > 0;)
    text.append(buffer.data(), static_cast<std::size_t>(count));
  gzclose(file);
  return parse_json(text, path.string());
}

const Json& listing() {
  static const Json json = read_gzip_json(golden::data_folder() / "single_file_shapes.json.gz");
  return json;
}

std::shared_ptr<nn::MapStore> meta_store(const Json& shapes) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, shape] : shapes.items())
    tensors[name] = at::empty(shape.get<nn::Shape>(), at::TensorOptions(at::kMeta));
  return std::make_shared<nn::MapStore>(std::move(tensors), "checkpoint");
}

void expect_shapes(const nn::ModuleIndex& index, const Json& want, const std::string& part) {
  EXPECT_EQ(index.tensors.size(), want.size()) << part;
  for (const auto& [name, shape] : want.items()) {
    const auto found = index.tensors.find(name);
    ASSERT_NE(found, index.tensors.end()) << part << ": " << name;
    EXPECT_EQ(found->second.sizes().vec(), shape.get<nn::Shape>()) << part << ": " << name;
  }
}

nn::WeightSource meta_source(const formats::SingleFileComponent& component) {
  return nn::WeightSource(component.weights, {.device = at::kMeta});
}

class SingleFileGolden : public testing::TestWithParam<std::string> {};

TEST_P(SingleFileGolden, EveryTensorOfTheRealModelIsFound) {
  const Json& real = listing().at(GetParam());
  const auto model = formats::open_single_file(meta_store(real.at("ldm")));

  const auto unet_source = meta_source(model.unet);
  const models::UNet unet(unet_source, models::UNetConfig::from_json(model.unet.config, "unet"));
  expect_shapes(unet_source.finish(), real.at("unet"), "unet");

  const auto vae_source = meta_source(model.vae);
  const models::AutoencoderKL vae(vae_source,
                                  models::VaeConfig::from_json(model.vae.config, "vae"));
  expect_shapes(vae_source.finish(), real.at("vae"), "vae");

  for (const auto& [part, component] : {std::pair{"text_encoder", model.text_encoder},
                                        std::pair{"text_encoder_2", model.text_encoder_2}}) {
    EXPECT_EQ(component.weights == nullptr, real.at(part).is_null()) << part;
    if (component.weights == nullptr) continue;
    const auto source = meta_source(component);
    const models::ClipTextModel text(source,
                                     models::ClipTextConfig::from_json(component.config, part));
    expect_shapes(source.finish(), real.at(part), part);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SingleFileGolden,
                         testing::Values("sd1", "sd1_inpainting", "sd2", "sdxl"));

TEST(SingleFile, KindIsSaid) {
  const auto kind = [](const char* key) {
    return formats::open_single_file(meta_store(listing().at(key).at("ldm"))).kind;
  };
  EXPECT_EQ(kind("sd1"), "Stable Diffusion 1");
  EXPECT_EQ(kind("sd1_inpainting"), "Stable Diffusion 1 inpainting");
  EXPECT_EQ(kind("sd2"), "Stable Diffusion 2 (v-prediction)");
  EXPECT_EQ(kind("sdxl"), "Stable Diffusion XL");
}

}  // namespace
}  // namespace ringlet
