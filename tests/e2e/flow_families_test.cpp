// The program on tiny models of Stable Diffusion 3 and FLUX.1, from training to a merged model.
#include <gtest/gtest.h>

#include "tests/e2e/tiny_program_test.h"
#include "tests/golden/tiny_original_file.h"

namespace ringlet::e2e {
namespace {

class FlowFamilies : public TinyProgram {
 protected:
  void train_merge_and_extract(const std::string& key, const std::string& method) {
    golden::write_flow_folder(folder_ / "model", key);
    fs::create_directories(folder_ / "pictures");
    const io::Image grey{32, 32, std::vector<std::uint8_t>(32 * 32 * 3, 128)};
    for (const char* name : {"a.png", "b.png"}) io::write_png(folder_ / "pictures" / name, grey);
    const Arguments tokens = {"--text-tokens", "16"};
    Arguments more = {"--learning-rate", "0.01",  "--caption-dropout", "0.5",
                      "--time-density",  "mode",  "--sigma-weighting", "cosmap",
                      "--class-prompt",  "a dog", "--class-count",     "1",
                      "--sample-steps",  "2"};
    more.insert(more.end(), tokens.begin(), tokens.end());
    expect_success(training(method, "2", "run", more));
    const std::string adapter = path("run/adapter.safetensors");
    expect_success(
        {"merge", "--model", path("model"), "--adapter", adapter, "--out", path("merged")});
    expect_success({"extract", "--base", path("model"), "--tuned", path("merged"), "--method",
                    "lora(rank=2)", "--out", path("extracted.safetensors")});
    const auto generate = [&](const std::string& model, const std::string& out,
                              const Arguments& extra) {
      Arguments all = {"generate", "--model", path(model), "--prompt", "a dog", "--width", "32",
                       "--height", "32",      "--seed",    "3",        "--out", path(out)};
      all.insert(all.end(), tokens.begin(), tokens.end());
      all.insert(all.end(), extra.begin(), extra.end());
      expect_success(all);
      return io::read_image(folder_ / out / "00001-3.png").pixels;
    };
    const auto merged = generate("merged", "a", {});
    const auto unmerged = generate("model", "b", {"--adapter", adapter});
    EXPECT_NE(merged, generate("model", "c", {}));
    int most = 0;
    for (std::size_t i = 0; i < merged.size(); ++i)
      most = std::max(most, std::abs(int{merged[i]} - int{unmerged[i]}));
    EXPECT_LE(most, 1);
  }
};

TEST_F(FlowFamilies, StableDiffusion3TrainsMergesAndIsExtracted) {
  train_merge_and_extract("sd35", "trm+tr");
}

TEST_F(FlowFamilies, FluxTrainsMergesAndIsExtracted) {
  train_merge_and_extract("flux_dev", "lora(rank=2)");
}

// The transformer, T5, CLIP and the autoencoder as ComfyUI's users have them, T5 in fp8.
TEST_F(FlowFamilies, SingleFilesTrainAndMergeWithTheirPartsBeside) {
  const Json& model = golden::flow_pipelines().at("models").at("flux_schnell");
  const auto text = [&](const char* part) { return golden::component_tensors(model, part); };
  golden::Tensors t5 = text("text_encoder_2");
  for (auto& [name, tensor] : t5)
    if (tensor.dim() == 2) tensor = tensor.to(at::kFloat8_e4m3fn);
  io::save_tensors(folder_ / "t5xxl_fp8.safetensors", t5);
  io::save_tensors(folder_ / "clip_l.safetensors", text("text_encoder"));
  io::save_tensors(folder_ / "ae.safetensors", golden::original_vae("flux_schnell"));
  io::save_tensors(folder_ / "flux.safetensors", golden::original_transformer("flux_schnell"));
  golden::write_tokenizer(folder_ / "tokenizer", "<|endoftext|>");
  golden::copy_t5_tokenizer(folder_ / "t5");
  fs::create_directories(folder_ / "pictures");
  const io::Image grey{32, 32, std::vector<std::uint8_t>(32 * 32 * 3, 128)};
  io::write_png(folder_ / "pictures/a.png", grey);

  const Arguments parts = {
      "--text-encoder", path("t5xxl_fp8.safetensors"), "--text-encoder", path("clip_l.safetensors"),
      "--vae",          path("ae.safetensors"),        "--t5-tokenizer", path("t5")};
  const auto with_parts = [&](Arguments arguments) {
    arguments.insert(arguments.end(), parts.begin(), parts.end());
    return arguments;
  };
  Arguments train = with_parts(training("lora(rank=2)", "2", "run", {"--text-tokens", "16"}));
  train[2] = path("flux.safetensors");
  const ProgramResult trained = expect_success(train);
  EXPECT_NE((trained.out + trained.err).find("FLUX.1 schnell"), std::string::npos);
  const std::string adapter = path("run/adapter.safetensors");
  // With its parts the result is compared in pictures, without them only written.
  const Arguments merge = {"merge",     "--model", path("flux.safetensors"),
                           "--adapter", adapter,   "--out"};
  Arguments compared = merge, alone = merge;
  compared.push_back(path("compared.safetensors"));
  alone.push_back(path("alone.safetensors"));
  EXPECT_NE(expect_success(with_parts(compared)).err.find("pictures differ by"), std::string::npos);
  expect_success(alone);
  EXPECT_EQ(read_bytes(folder_ / "compared.safetensors"),
            read_bytes(folder_ / "alone.safetensors"));
  expect_success(with_parts({"generate", "--model", path("alone.safetensors"), "--prompt", "a dog",
                             "--width", "32", "--height", "32", "--out", path("pictures_out")}));
  const ProgramResult told = expect_success(
      {"inspect", path("flux.safetensors"), "--text-encoder", path("t5xxl_fp8.safetensors"),
       "--text-encoder", path("clip_l.safetensors"), "--vae", path("ae.safetensors")});
  for (const char* words :
       {"FLUX.1 schnell checkpoint", "T5 (given)", "CLIP-L (given)", "vae (given)", "--vae FILE"})
    EXPECT_NE(told.out.find(words), std::string::npos) << words << "\n" << told.out;
}

TEST_F(FlowFamilies, ThePlanSaysWhichLayersAndHowManyParameters) {
  golden::write_flow_folder(folder_ / "model", "flux_dev");
  fs::create_directories(folder_ / "pictures");
  io::write_png(folder_ / "pictures/a.png", {32, 32, std::vector<std::uint8_t>(32 * 32 * 3, 128)});
  Arguments asked = {"--targets", "double-blocks", "--targets", "attention", "--dry-run"};
  const ProgramResult shown = expect_success(training("lora(rank=2)", "1", "run", asked));
  EXPECT_NE(shown.err.find("3 of transformer, single blocks, attention: 384 parameters"),
            std::string::npos)
      << shown.err;
  asked.emplace_back("--json");
  const ProgramResult result = expect_success(training("lora(rank=2)", "1", "run", asked));
  const auto group = [](const char* name, int layers, int parameters) {
    return Json{{"name", name}, {"layers", layers}, {"parameters", parameters}};
  };
  EXPECT_EQ(parse_json(result.out, "stdout").at("plan").at("layer_groups"),
            (Json{group("transformer, double blocks, attention", 8, 8 * 128),
                  group("transformer, double blocks, feed-forward", 4, 4 * 320),
                  group("transformer, double blocks, modulation", 2, 2 * 448),
                  group("transformer, single blocks, attention", 3, 3 * 128)}));
}

}  // namespace
}  // namespace ringlet::e2e
