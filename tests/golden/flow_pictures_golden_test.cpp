// Stable Diffusion 3 and FLUX.1 from pictures, with masks, with control pictures and with every
// flow sampler, step by step against diffusers' pipelines (make_flow_pictures.py).
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include "ringlet/pipeline/control_features.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/model_families.h"
#include "tests/golden/tiny_flow_model.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;

constexpr double kPictureTolerance = 1e-4;  // relative, fp32, after guided steps

const Json& flow_pictures() {
  static const Json json = read_json_file(golden::data_folder() / "flow_pictures.json");
  return json;
}

io::Image drawn(std::uint8_t (*pixel)(int row, int column, int colour)) {
  io::Image image{flow_pictures().at("size")[0], flow_pictures().at("size")[1], {}};
  for (int row = 0; row < image.height; ++row)
    for (int column = 0; column < image.width; ++column)
      for (int colour = 0; colour < 3; ++colour) image.pixels.push_back(pixel(row, column, colour));
  return image;
}

io::Image picture() {
  return drawn([](int row, int column, int colour) {
    return static_cast<std::uint8_t>((row * 7 + column * 13 + colour * 50) % 256);
  });
}

io::Image mask() {
  return drawn([](int row, int column, int) {
    const int place = column + row / 2;
    return static_cast<std::uint8_t>(place >= 6 && place < 20 ? 255 : 0);
  });
}

/// A part's weights, changed.
template <class Change>
void edit(const fs::path& file, const Change& change) {
  golden::Tensors tensors = io::load_tensors(file);
  for (auto& [name, tensor] : tensors) tensor = tensor.clone();
  change(tensors);
  io::save_tensors(file, tensors);
}

class FlowPicturesGolden : public testing::TestWithParam<std::string> {
 protected:
  FlowPicturesGolden() : case_(flow_pictures().at("cases").at(GetParam())) {
    const std::string key = GetParam().substr(0, GetParam().find('.'));
    Json model = flow_pictures().at("models").at(key);
    const bool control = case_.at("control");
    if (control) model["transformer"]["in_channels"] = model["transformer"]["out_channels"];
    golden::write_flow_folder(root_, key, model);
    golden::write_json(root_ / "scheduler/scheduler_config.json", case_.at("scheduler"));
    const std::int64_t channels = flow_pictures().at("channels");
    edit(root_ / "vae/diffusion_pytorch_model.safetensors", [&](golden::Tensors& tensors) {
      tensors.at("encoder.conv_out.weight").narrow(0, channels, channels).zero_();
      tensors.at("encoder.conv_out.bias").narrow(0, channels, channels).fill_(-30.0);
    });
    if (control)
      edit(root_ / "transformer/diffusion_pytorch_model.safetensors",
           [&](golden::Tensors& tensors) {
             const std::vector<at::Tensor> halves = tensors.at("x_embedder.weight").chunk(2, 1);
             tensors["x_embedder.weight"] = halves[0].contiguous();
             wide_ = halves[1].reshape({-1, channels, 2, 2});
           });
    pipeline::LoadOptions options;
    options.files.text_tokens = golden::flow_pipelines().at("text_tokens");
    model_ = pipeline::open_text_to_image_model(root_, options);
  }

  pipeline::GenerateRequest request() const {
    pipeline::GenerateRequest request;
    request.prompt = golden::flow_pipelines().at("prompt");
    if (!model_->embeds_guidance())
      request.negative_prompt = golden::flow_pipelines().at("negative").get<std::string>();
    request.latents = 1.7 * golden::uniform("noise", {1, flow_pictures().at("channels"), 16, 12});
    request.steps = flow_pictures().at("steps");
    request.strength = case_.at("strength");
    if (case_.at("picture")) request.init_image = picture();
    if (case_.at("mask")) request.mask_image = mask();
    return request;
  }

  void expect_near(const at::Tensor& latents) const {
    static const golden::Tensors all =
        io::load_tensors(golden::data_folder() / "flow_pictures.safetensors");
    const at::Tensor& want = all.at(GetParam());
    const at::Tensor actual = latents.slice(1, 0, std::nullopt, 5);
    ASSERT_EQ(actual.sizes(), want.sizes());
    EXPECT_LE((actual - want).abs().max().item<double>(),
              kPictureTolerance * want.abs().max().item<double>());
  }

  const Json& case_;
  TemporaryFolder folder_;
  const fs::path root_ = folder_ / "model";
  std::unique_ptr<pipeline::TextToImageModel> model_;
  at::Tensor wide_;  // the columns of a control picture
};

TEST_P(FlowPicturesGolden, EveryStepEqualsDiffusers) {
  const at::NoGradGuard no_grad;
  pipeline::GenerateRequest asked = request();
  std::unique_ptr<pipeline::ControlNetwork> control;
  if (wide_.defined()) {
    control = model_->control_from_tensors({{"channels.weight", wide_}}, "the file");
    asked.control = control.get();
    asked.control_image = picture();
  }
  std::vector<at::Tensor> steps;
  const at::Tensor last = pipeline::sample(*model_, asked, [&](const auto& step) {
    steps.push_back(step.latents);
    return true;
  });
  EXPECT_TRUE(last.equal(steps.back()));
  expect_near(at::cat(steps));
}

INSTANTIATE_TEST_SUITE_P(Cases, FlowPicturesGolden, testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const auto& [name, _] : flow_pictures().at("cases").items())
                             names.push_back(name);
                           return names;
                         }()),
                         [](const auto& entry) {
                           std::string name = entry.param;
                           std::ranges::replace(name, '.', '_');
                           return name;
                         });

}  // namespace
}  // namespace ringlet
