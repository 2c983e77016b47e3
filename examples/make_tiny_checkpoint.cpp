// Makes a complete diffusers model folder with random weights: small, quick, and its pictures are
// noise. For trying the commands where no model is at hand.
//
//     ringlet_make_tiny_checkpoint FOLDER [SEED [SIZE [TYPE]]]
//
// SIZE is tiny (the default), middle (140 M parameters) or sd1 (as large as Stable Diffusion 1.5:
// for measuring time and memory); TYPE is fp32 or fp16, of the files.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/models/diffusion/vae.h"
#include "ringlet/models/text/clip_text.h"
#include "ringlet/nn/weight_store.h"

namespace {

namespace fs = std::filesystem;
using ringlet::Json;

void write_json(const fs::path& path, const Json& json) {
  fs::create_directories(path.parent_path());
  ringlet::write_file_atomically(path, json.dump(2) + "\n");
}

struct Size {
  std::vector<std::int64_t> unet, vae;  ///< channels by level
  std::int64_t layers;                  ///< residual blocks a level
  std::int64_t heads;
  std::int64_t text, text_layers;  ///< width and layers of the text encoder
  std::int64_t tokens;             ///< in its table; 514 are in use
  std::int64_t latents;            ///< side
};

const std::map<std::string, Size> kSizes = {
    {"tiny", {{32, 64}, {32, 32, 32, 32}, 1, 8, 64, 2, 514, 16}},
    {"middle", {{128, 256, 512, 512}, {64, 128, 256, 256}, 2, 8, 512, 8, 49408, 32}},
    {"sd1", {{320, 640, 1280, 1280}, {128, 256, 512, 512}, 2, 8, 768, 12, 49408, 64}}};

/// Builds a network from invented weights and writes its folder.
template <class Model, class Config>
void write_part(const fs::path& folder, const std::string& weights, const Json& config,
                std::uint64_t seed, at::ScalarType type) {
  write_json(folder / "config.json", config);
  const ringlet::nn::WeightSource source(std::make_shared<ringlet::nn::RandomStore>(seed));
  const Model model(source, Config::from_json(config, folder.string()));
  std::map<std::string, at::Tensor> tensors = source.finish().tensors;
  for (auto& [name, tensor] : tensors) tensor = tensor.to(type);
  ringlet::io::save_tensors(folder / weights, tensors);
}

/// The 512 byte tokens of CLIP, without any merge: every prompt is spelt letter by letter.
void write_tokenizer(const fs::path& folder) {
  Json vocabulary = Json::object();
  int next_unprintable = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    const int code = printable ? byte : next_unprintable++;
    std::string symbol;
    if (code < 0x80)
      symbol = static_cast<char>(code);
    else
      symbol = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    vocabulary[symbol] = byte;
    vocabulary[symbol + "</w>"] = 256 + byte;
  }
  vocabulary["<|startoftext|>"] = 512;
  vocabulary["<|endoftext|>"] = 513;
  write_json(folder / "vocab.json", vocabulary);
  ringlet::write_file_atomically(folder / "merges.txt", "#version: 0.2\n");
  write_json(folder / "tokenizer_config.json",
             {{"model_max_length", 77}, {"pad_token", "<|endoftext|>"}});
}

Json text_config(const Size& size) {
  return {{"architectures", {"CLIPTextModel"}},
          {"vocab_size", size.tokens},
          {"hidden_size", size.text},
          {"intermediate_size", size.text == 64 ? 128 : 4 * size.text},
          {"num_hidden_layers", size.text_layers},
          {"num_attention_heads", size.text == 64 ? 2 : size.text / 64},
          {"max_position_embeddings", 77},
          {"hidden_act", "quick_gelu"},
          {"eos_token_id", 513}};
}

/// Attention everywhere but at the lowest resolution.
Json unet_config(const Size& size) {
  std::vector<std::string> down(size.unet.size(), "CrossAttnDownBlock2D");
  std::vector<std::string> up(size.unet.size(), "CrossAttnUpBlock2D");
  down.back() = "DownBlock2D";
  up.front() = "UpBlock2D";
  return {{"_class_name", "UNet2DConditionModel"},
          {"sample_size", size.latents},
          {"in_channels", 4},
          {"out_channels", 4},
          {"block_out_channels", size.unet},
          {"layers_per_block", size.layers},
          {"down_block_types", down},
          {"up_block_types", up},
          {"cross_attention_dim", size.text},
          {"attention_head_dim", size.heads}};
}

Json vae_config(const Size& size) {
  const std::vector<std::string> down(4, "DownEncoderBlock2D"), up(4, "UpDecoderBlock2D");
  return {{"_class_name", "AutoencoderKL"},
          {"block_out_channels", size.vae},
          {"layers_per_block", size.layers},
          {"latent_channels", 4},
          {"sample_size", 8 * size.latents},
          {"down_block_types", down},
          {"up_block_types", up},
          {"scaling_factor", 0.18215}};
}

void write_model(const fs::path& root, std::uint64_t seed, const Size& size, at::ScalarType type) {
  using namespace ringlet::models;
  const char* const network = "diffusion_pytorch_model.safetensors";
  write_part<UNet, UNetConfig>(root / "unet", network, unet_config(size), seed, type);
  write_part<AutoencoderKL, VaeConfig>(root / "vae", network, vae_config(size), seed + 1, type);
  write_part<ClipTextModel, ClipTextConfig>(root / "text_encoder", "model.safetensors",
                                            text_config(size), seed + 2, type);
  write_tokenizer(root / "tokenizer");
  write_json(root / "scheduler/scheduler_config.json", {{"_class_name", "DDIMScheduler"},
                                                        {"beta_schedule", "scaled_linear"},
                                                        {"beta_start", 0.00085},
                                                        {"beta_end", 0.012},
                                                        {"clip_sample", false},
                                                        {"set_alpha_to_one", false},
                                                        {"steps_offset", 1}});
  // Last: a folder without it is not taken for a model.
  write_json(root / "model_index.json", {{"_class_name", "StableDiffusionPipeline"},
                                         {"unet", {"diffusers", "UNet2DConditionModel"}},
                                         {"vae", {"diffusers", "AutoencoderKL"}},
                                         {"text_encoder", {"transformers", "CLIPTextModel"}},
                                         {"tokenizer", {"transformers", "CLIPTokenizer"}},
                                         {"scheduler", {"diffusers", "DDIMScheduler"}},
                                         {"safety_checker", {nullptr, nullptr}},
                                         {"feature_extractor", {nullptr, nullptr}}});
}

}  // namespace

int main(int argc, char** argv) {
  const std::string size = argc > 3 ? argv[3] : "tiny", type = argc > 4 ? argv[4] : "fp32";
  if (argc < 2 || argc > 5 || argv[1][0] == '-' || !kSizes.contains(size) ||
      (type != "fp32" && type != "fp16")) {
    std::fprintf(stderr, "usage: %s FOLDER [SEED [tiny|middle|sd1 [fp32|fp16]]]\n", argv[0]);
    return 2;
  }
  try {
    write_model(argv[1], argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1, kSizes.at(size),
                type == "fp16" ? at::kHalf : at::kFloat);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::printf("%s: a model with random weights; its pictures are noise\n", argv[1]);
  return 0;
}
