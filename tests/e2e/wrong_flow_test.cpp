// Wrong inputs for Stable Diffusion 3 and FLUX.1: parts and adapters of other models, and options
// that a family does not take.
#include <algorithm>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/core/json.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/layer.h"
#include "tests/e2e/wrong_input.h"
#include "tests/golden/tiny_flow_model.h"

namespace ringlet::e2e {
namespace {

/// What `generate` takes with a tiny model; 32 x 32 pixels.
Arguments small(const std::string& model, const Arguments& more = {}) {
  Arguments all = picture_of("@/" + model, {"--text-tokens", "16", "--steps", "1"});
  for (const char* side : {"--width", "--height"})
    if (std::ranges::find(more, side) == more.end()) all.insert(all.end(), {side, "32"});
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

Arguments with_adapter(const std::string& model, const Arguments& more = {}) {
  Arguments all = {"--adapter", "@/a.safetensors"};
  all.insert(all.end(), more.begin(), more.end());
  return small(model, all);
}

Arguments training(const std::string& model, const Arguments& more) {
  Arguments all = {"train",      "--model",
                   "@/" + model, "--instance-images",
                   "@/pictures", "--instance-prompt",
                   "a dog",      "--steps",
                   "1",          "--out",
                   "@/out"};
  if (std::ranges::find(more, "--resolution") == more.end())
    all.insert(all.end(), {"--resolution", "16"});
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

Json model_json(const std::string& key) { return golden::flow_pipelines().at("models").at(key); }

void flux(const fs::path& folder) { golden::write_flow_folder(folder / "flux", "flux_dev"); }
void schnell(const fs::path& folder) { golden::write_flow_folder(folder / "flux", "flux_schnell"); }
void sd3(const fs::path& folder) { golden::write_flow_folder(folder / "sd3", "sd3"); }

void grey_picture(const fs::path& folder) {
  fs::create_directories(folder / "pictures");
  io::write_png(folder / "pictures/a.png", {32, 32, std::vector<std::uint8_t>(32 * 32 * 3, 128)});
}

void set_field(const fs::path& path, const char* key, const Json& value) {
  Json json = read_json_file(path);
  json[key] = value;
  golden::write_json(path, json);
}

void exchange(const fs::path& one, const fs::path& other) {
  const fs::path between = one.parent_path() / "between";
  fs::rename(one, between);
  fs::rename(other, one);
  fs::rename(between, other);
}

/// A tiny model whose T5 has another width.
void write_with_narrow_t5(const fs::path& root, const std::string& key, const std::string& part) {
  constexpr int kUsual = 144, kNarrow = 96;
  Json model = model_json(key);
  model[part]["d_model"] = kNarrow;
  for (auto& [name, shape] : model["shapes"][part].items())
    for (Json& side : shape)
      if (side == kUsual) side = kNarrow;
  golden::write_flow_folder(root, key, model);
}

/// A model with 16 channels of latents, and an autoencoder with 4.
void write_with_small_vae(const fs::path& root, const std::string& key) {
  const Json all = read_json_file(golden::data_folder() / "flow_pictures.json");
  Json model = all.at("models").at(key);
  const Json other = model_json(key == "flux" ? "flux_dev" : key);
  model["vae"] = other.at("vae");
  model["shapes"]["vae"] = other.at("shapes").at("vae");
  golden::write_flow_folder(root, key, model);
}

/// LoRA's tensors of kohya's names.
void kohya(const fs::path& folder, const std::string& layer, std::int64_t out) {
  io::save_tensors(folder / "a.safetensors", {{layer + ".lora_down.weight", at::zeros({2, 32})},
                                              {layer + ".lora_up.weight", at::zeros({out, 2})}});
}

/// ringlet's own file with one layer of a transformer, trained on a model of this kind.
void own_adapter(const fs::path& folder, const std::string& layer,
                 const adapt::AdapterFileInfo& info) {
  nn::ModuleIndex index;
  index.layers[layer] = std::make_shared<nn::LinearLayer>(at::zeros({32, 32}), at::Tensor());
  adapt::save_adapter(folder / "a.safetensors",
                      adapt::AdapterSet::create(
                          adapt::parse_method("lora(rank=2)"),
                          adapt::select_targets({{"transformer", &index}}, {.include = {"*"}}),
                          adapt::FactorTable(), Random(0)),
                      info);
}

/// With a control network that was trained on Stable Diffusion 1.
void own_control(const fs::path& folder, const std::map<std::string, at::Tensor>& tensors,
                 const char* network) {
  flux(folder);
  grey_picture(folder);
  adapt::AdapterFileInfo info;
  info.control =
      Json{{"network", network}, {"signal", "canny"}, {"model", "Stable Diffusion 1"}}.dump();
  info.control_tensors = tensors;
  own_adapter(folder, "transformer_blocks.0.attn.to_q", info);
}

class WrongFlow : public WrongInputTest {};

TEST_P(WrongFlow, IsExplained) { expect_explained(); }

const std::vector<WrongInput> kFlowAdapters = {
    {"OwnOfStableDiffusion3OnFlux",
     with_adapter("flux"),
     6,
     {"a.safetensors", "transformer_blocks.7.attn.to_q", "was made for Stable Diffusion 3",
      "this model is FLUX.1 dev"},
     [](const fs::path& folder) {
       flux(folder);
       adapt::AdapterFileInfo info;
       info.base_kind = "Stable Diffusion 3";
       own_adapter(folder, "transformer_blocks.7.attn.to_q", info);
     }},
    {"OwnOfFluxOnStableDiffusion1",
     picture({"--adapter", "@/a.safetensors"}),
     6,
     {"the model has no \"transformer\"", "was made for FLUX.1 dev",
      "this model is Stable Diffusion 1"},
     [](const fs::path& folder) {
       adapt::AdapterFileInfo info;
       info.base_kind = "FLUX.1 dev";
       own_adapter(folder, "transformer_blocks.0.attn.to_q", info);
     }},
    {"KohyaOfFluxOnStableDiffusion3",
     with_adapter("sd3"),
     6,
     {"a.safetensors", "is an adapter of FLUX", "the model is Stable Diffusion 3"},
     [](const fs::path& folder) {
       sd3(folder);
       kohya(folder, "lora_unet_double_blocks_0_img_attn_proj", 32);
     }},
    {"KohyaOfFluxOnStableDiffusion1",
     picture({"--adapter", "@/a.safetensors"}),
     6,
     {"is an adapter of FLUX", "this model is Stable Diffusion 1"},
     [](const fs::path& folder) { kohya(folder, "lora_unet_double_blocks_0_img_attn_proj", 32); }},
    {"KohyaOfTheUNetOnFlux",
     with_adapter("flux"),
     6,
     {"is an adapter of a U-Net", "the model is FLUX"},
     [](const fs::path& folder) {
       flux(folder);
       kohya(folder, "lora_unet_down_blocks_0_attentions_0_proj_in", 32);
     }},
    {"DiffusersOfStableDiffusion3OnFlux",
     with_adapter("flux"),
     6,
     {"1 of its 2 layers", "Stable Diffusion 3 and FLUX call their blocks so", "FLUX.1 dev"},
     [](const fs::path& folder) {
       flux(folder);
       std::map<std::string, at::Tensor> tensors;
       for (const char* block : {"0", "1"}) {
         const std::string layer =
             std::string("transformer.transformer_blocks.") + block + ".attn.to_q.lora_";
         tensors[layer + "A.weight"] = at::zeros({2, 32});
         tensors[layer + "B.weight"] = at::zeros({32, 2});
       }
       io::save_tensors(folder / "a.safetensors", tensors);
     }},
    {"FusedNamesPartlyMissing",
     with_adapter("flux"),
     4,
     {"a.safetensors", "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", "is missing",
      "download it again"},
     [](const fs::path& folder) {
       flux(folder);
       io::save_tensors(
           folder / "a.safetensors",
           {{"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", at::zeros({2, 32})}});
     }},
    {"FusedRowsOfTwoLayersOfThree",
     with_adapter("flux"),
     6,
     {"a.safetensors", "img_attn_qkv.lora_up.weight", "64 outputs", "96 together"},
     [](const fs::path& folder) {
       flux(folder);
       kohya(folder, "lora_unet_double_blocks_0_img_attn_qkv", 64);
     }},
    {"EncoderOfAnotherFamily",
     with_adapter("flux", {"--control-image", "@/pictures/a.png", "--control", "canny"}),
     6,
     {"trained on Stable Diffusion 1", "halves pictures 1 times", "this model is FLUX.1 dev"},
     [](const fs::path& folder) {
       own_control(folder,
                   {{"conv_in.weight", at::zeros({16, 3, 3, 3})},
                    {"blocks.1.weight", at::zeros({32, 16, 3, 3})}},
                   "encoder");
     }},
    {"ChannelsOfAnotherFamily",
     with_adapter("flux", {"--control-image", "@/pictures/a.png", "--control", "canny"}),
     6,
     {"trained on Stable Diffusion 1", "another first layer", "this model is FLUX.1 dev"},
     [](const fs::path& folder) {
       own_control(folder, {{"channels.weight", at::zeros({32, 4, 3, 3})}}, "channels");
     }},
    {"ControlNetOnFlux",
     small("flux", {"--controlnet", "@/flux", "--control-image", "@/pictures/a.png"}),
     5,
     {"FLUX.1 dev does not support ControlNets", "trained with --control"},
     [](const fs::path& folder) {
       flux(folder);
       grey_picture(folder);
     }},
};

const std::vector<WrongInput> kFlowParts = {
    {"FluxWithT5OfAnotherSize",
     small("flux"),
     6,
     {"text_encoder_2/config.json", "width 96", "takes 144", "different models"},
     [](const fs::path& folder) {
       write_with_narrow_t5(folder / "flux", "flux_dev", "text_encoder_2");
     }},
    {"StableDiffusion3WithT5OfAnotherSize",
     small("sd3"),
     6,
     {"text_encoder_3/config.json", "width 96", "takes 144", "different models"},
     [](const fs::path& folder) { write_with_narrow_t5(folder / "sd3", "sd3", "text_encoder_3"); }},
    {"FluxWithAnAutoencoderOf4Channels",
     small("flux"),
     6,
     {"vae/config.json", "4 channels", "takes 16"},
     [](const fs::path& folder) { write_with_small_vae(folder / "flux", "flux"); }},
    {"StableDiffusion3WithAnAutoencoderOf4Channels",
     small("sd3"),
     6,
     {"vae/config.json", "4 channels", "takes 16"},
     [](const fs::path& folder) { write_with_small_vae(folder / "sd3", "sd3"); }},
    {"ExchangedClips",
     small("sd3"),
     6,
     {"text_encoder/config.json", "wrong order", "exchange text_encoder and text_encoder_2"},
     [](const fs::path& folder) {
       sd3(folder);
       exchange(folder / "sd3/text_encoder", folder / "sd3/text_encoder_2");
     }},
    {"ExchangedClipAndT5",
     small("sd3"),
     6,
     {"text_encoder_2/config.json", "this is T5", "exchanged"},
     [](const fs::path& folder) {
       sd3(folder);
       exchange(folder / "sd3/text_encoder_2", folder / "sd3/text_encoder_3");
     }},
    {"ClipInThePlaceOfT5",
     small("flux"),
     6,
     {"text_encoder_2/config.json", "T5 is expected here"},
     [](const fs::path& folder) {
       flux(folder);
       fs::remove_all(folder / "flux/text_encoder_2");
       fs::copy(folder / "flux/text_encoder", folder / "flux/text_encoder_2");
     }},
    {"ShardMissing",
     small("flux"),
     3,
     {"diffusion_pytorch_model-00002-of-00002.safetensors", "does not exist", "download"},
     [](const fs::path& folder) {
       flux(folder);
       const fs::path part = folder / "flux/transformer";
       const std::string base = "diffusion_pytorch_model";
       Json map;
       for (const auto& [name, tensor] : io::load_tensors(part / (base + ".safetensors")))
         map[name] =
             base + (name < "t" ? "-00001-of-00002.safetensors" : "-00002-of-00002.safetensors");
       fs::rename(part / (base + ".safetensors"), part / (base + "-00001-of-00002.safetensors"));
       golden::write_json(part / (base + ".safetensors.index.json"),
                          {{"metadata", Json::object()}, {"weight_map", map}});
     }},
    {"SchnellWithTheConfigurationOfDev",
     small("flux"),
     6,
     {"transformer/diffusion_pytorch_model.safetensors", "guidance_embedder", "is missing"},
     [](const fs::path& folder) {
       schnell(folder);
       set_field(folder / "flux/transformer/config.json", "guidance_embeds", true);
     }},
    {"SchedulerOfAnotherProcess",
     small("sd3"),
     5,
     {"scheduler_config.json", "not one of rectified flow", "FlowMatchEulerDiscreteScheduler"},
     [](const fs::path& folder) {
       sd3(folder);
       set_field(folder / "sd3/scheduler/scheduler_config.json", "_class_name", "DDIMScheduler");
     }},
};

const std::vector<WrongInput> kFlowOptions = {
    {"WidthOfFlux", small("flux", {"--width", "34"}), 2, {"--width", "multiple of 4", "36"}, flux},
    {"HeightOfSd3", small("sd3", {"--height", "30"}), 2, {"--height", "multiple of 4", "32"}, sd3},
    {"LargerThanItsPositions",
     small("sd3", {"--width", "64"}),
     2,
     {"--width", "64 pixels are too many", "the largest side is 48"},
     sd3},
    {"ResolutionOfTraining",
     training("flux", {"--resolution", "18"}),
     2,
     {"--resolution", "multiple of 4", "try 20"},
     [](const fs::path& folder) {
       flux(folder);
       grey_picture(folder);
     }},
    {"GuidanceOfSchnell",
     small("flux", {"--guidance", "3.5"}),
     2,
     {"--guidance", "FLUX.1 schnell was distilled without guidance", "--true-guidance"},
     schnell},
    {"TrueGuidanceOfSd3", small("sd3", {"--true-guidance", "4"}), 2, {"give --guidance"}, sd3},
    {"ClipSkipOfFlux", small("flux", {"--clip-skip", "2"}), 2, {"--clip-skip", "leave it"}, flux},
    {"TooManyTokens",
     picture_of("@/flux", {"--text-tokens", "600"}),
     2,
     {"--text-tokens", "between 0 and 512"},
     flux},
    {"MaskWithoutAPicture",
     small("flux", {"--mask-image", "@/pictures/a.png"}),
     2,
     {"--mask-image", "give --init-image"},
     [](const fs::path& folder) {
       flux(folder);
       grey_picture(folder);
     }},
    {"SamplerOfWholeTimesteps",
     small("sd3", {"--sampler", "pndm"}),
     5,
     {"--sampler", "euler"},
     sd3},
    {"TextualInversion",
     small("flux", {"--embedding", "@/a.safetensors"}),
     5,
     {"FLUX.1 dev does not support textual inversion"},
     [](const fs::path& folder) {
       flux(folder);
       kohya(folder, "x", 32);
     }},
};

INSTANTIATE_TEST_SUITE_P(Adapters, WrongFlow, testing::ValuesIn(kFlowAdapters), name_of);
INSTANTIATE_TEST_SUITE_P(Parts, WrongFlow, testing::ValuesIn(kFlowParts), name_of);
INSTANTIATE_TEST_SUITE_P(Options, WrongFlow, testing::ValuesIn(kFlowOptions), name_of);

/// What training refuses after it has read the pictures' folder.
class WrongFlowTraining : public WrongInputTest {};

TEST_P(WrongFlowTraining, IsExplained) {
  const ProgramResult result = run();
  EXPECT_EQ(result.status, GetParam().status) << result.err;
  expect_message(result.err);
  EXPECT_FALSE(fs::exists(folder_ / "out/adapter.safetensors"));
}

void schnell_and_picture(const fs::path& folder) {
  schnell(folder);
  grey_picture(folder);
}
void sd3_and_picture(const fs::path& folder) {
  sd3(folder);
  grey_picture(folder);
}

const std::vector<WrongInput> kFlowTraining = {
    {"TrainingGuidanceOfSchnell",
     training("flux", {"--training-guidance", "2"}),
     2,
     {"--training-guidance", "not told a guidance scale", "leave it out"},
     schnell_and_picture},
    {"ClipSkipOfFlux",
     training("flux", {"--clip-skip", "2"}),
     2,
     {"--clip-skip", "no layer of its text encoders", "leave it out"},
     schnell_and_picture},
    {"FlowShiftOfTheUNet",
     training("model", {"--flow-shift", "3"}),
     2,
     {"--flow-shift", "rectified flow", "DDPM"},
     grey_picture},
    {"SingleBlocksOfSd3",
     training("sd3", {"--targets", "single-blocks"}),
     2,
     {"--targets", "matches no layer", "Stable Diffusion 3 double blocks"},
     sd3_and_picture},
    {"ControlNetOfSd3",
     training("sd3", {"--control", "canny", "--control-network", "controlnet"}),
     5,
     {"--control-network", "this model is Stable Diffusion 3", "--control-network channels"},
     sd3_and_picture},
};

INSTANTIATE_TEST_SUITE_P(Training, WrongFlowTraining, testing::ValuesIn(kFlowTraining), name_of);

/// What is not wrong enough to be refused, and is said.
class FlowWarnings : public testing::Test {
 protected:
  ProgramResult made(const Arguments& arguments) const {
    Arguments all = arguments;
    for (std::string& word : all)
      if (word.starts_with("@")) word = folder_.path().string() + word.substr(1);
    ProgramResult result = run_program(all);
    EXPECT_EQ(result.status, 0) << result.err;
    return result;
  }
  static std::size_t count(const std::string& text, const std::string& words) {
    std::size_t found = 0;
    for (std::size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1))
      ++found;
    return found;
  }

  TemporaryFolder folder_;
};

TEST_F(FlowWarnings, APromptThatIsTooLongIsNamedOnce) {
  flux(folder_.path());
  std::string prompt = "a photo";
  for (int i = 0; i < 30; ++i) prompt += " of a dog";
  const ProgramResult result =
      made(small("flux", {"--prompt", prompt, "--prompt", prompt, "--images", "2"}));
  EXPECT_EQ(count(result.err, "too long for the model's 16 tokens"), 1u) << result.err;
}

TEST_F(FlowWarnings, ANegativePromptThatNothingUsesIsNamed) {
  flux(folder_.path());
  const ProgramResult off = made(small("flux", {"--negative-prompt", "blurry"}));
  EXPECT_EQ(count(off.err, "the negative prompt has no effect"), 1u) << off.err;
  EXPECT_EQ(count(off.err, "--true-guidance 4"), 1u) << off.err;
  const ProgramResult on =
      made(small("flux", {"--negative-prompt", "blurry", "--true-guidance", "4"}));
  EXPECT_EQ(count(on.err, "no effect"), 0u) << on.err;
}

TEST_F(FlowWarnings, DevIsToldAScaleThatNobodyGave) {
  flux(folder_.path());
  const auto pixels = [&](const Arguments& more) {
    fs::remove_all(folder_ / "out");
    made(small("flux", more));
    return io::read_image(folder_ / "out/00001-3.png").pixels;
  };
  const auto usual = pixels({"--seed", "3"});
  EXPECT_EQ(pixels({"--seed", "3", "--guidance", "3.5"}), usual);
  EXPECT_NE(pixels({"--seed", "3", "--guidance", "30"}), usual);
}

}  // namespace
}  // namespace ringlet::e2e
