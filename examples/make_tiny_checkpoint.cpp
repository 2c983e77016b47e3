// Makes a complete diffusers model folder with random weights: small, quick, and its pictures are
// noise. For trying the commands where no model is at hand.
//
//     ringlet_make_tiny_checkpoint FOLDER [SEED]

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/models/clip_text.h"
#include "ringlet/models/unet.h"
#include "ringlet/models/vae.h"
#include "ringlet/nn/weight_store.h"

namespace {

namespace fs = std::filesystem;
using ringlet::Json;

void write_json(const fs::path& path, const Json& json) {
  fs::create_directories(path.parent_path());
  ringlet::write_file_atomically(path, json.dump(2) + "\n");
}

/// Builds a network from invented weights and writes its folder.
template <class Model, class Config>
void write_part(const fs::path& folder, const std::string& weights, const Json& config,
                std::uint64_t seed) {
  write_json(folder / "config.json", config);
  const ringlet::nn::WeightSource source(std::make_shared<ringlet::nn::RandomStore>(seed));
  const Model model(source, Config::from_json(config, folder.string()));
  ringlet::io::save_tensors(folder / weights, source.finish().tensors);
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

Json text_config() {
  return {{"architectures", {"CLIPTextModel"}},
          {"vocab_size", 514},
          {"hidden_size", 64},
          {"intermediate_size", 128},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"max_position_embeddings", 77},
          {"hidden_act", "quick_gelu"},
          {"eos_token_id", 513}};
}

Json unet_config() {
  return {{"_class_name", "UNet2DConditionModel"},
          {"sample_size", 16},
          {"in_channels", 4},
          {"out_channels", 4},
          {"block_out_channels", {32, 64}},
          {"layers_per_block", 1},
          {"down_block_types", {"CrossAttnDownBlock2D", "DownBlock2D"}},
          {"up_block_types", {"UpBlock2D", "CrossAttnUpBlock2D"}},
          {"cross_attention_dim", 64},
          {"attention_head_dim", 8}};
}

Json vae_config() {
  const std::vector<std::string> down(4, "DownEncoderBlock2D"), up(4, "UpDecoderBlock2D");
  return {{"_class_name", "AutoencoderKL"},
          {"block_out_channels", {32, 32, 32, 32}},
          {"layers_per_block", 1},
          {"latent_channels", 4},
          {"sample_size", 128},
          {"down_block_types", down},
          {"up_block_types", up},
          {"scaling_factor", 0.18215}};
}

void write_model(const fs::path& root, std::uint64_t seed) {
  using namespace ringlet::models;
  write_part<UNet, UNetConfig>(root / "unet", "diffusion_pytorch_model.safetensors", unet_config(),
                               seed);
  write_part<AutoencoderKL, VaeConfig>(root / "vae", "diffusion_pytorch_model.safetensors",
                                       vae_config(), seed + 1);
  write_part<ClipTextModel, ClipTextConfig>(root / "text_encoder", "model.safetensors",
                                            text_config(), seed + 2);
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
  if (argc < 2 || argc > 3 || argv[1][0] == '-') {
    std::fprintf(stderr, "usage: %s FOLDER [SEED]\n", argv[0]);
    return 2;
  }
  try {
    write_model(argv[1], argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::printf("%s: a model with random weights; its pictures are noise\n", argv[1]);
  return 0;
}
