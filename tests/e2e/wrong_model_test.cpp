// Models that are damaged, of another kind or put together wrongly.
#include "ringlet/core/json.h"
#include "tests/e2e/wrong_input.h"

namespace ringlet::e2e {
namespace {

const std::string kUNetFile = "model/unet/diffusion_pytorch_model.safetensors";

void edit_json(const fs::path& path, const char* key, const Json& value) {
  Json json = read_json_file(path);
  json[key] = value;
  golden::write_json(path, json);
}

void save_adapter(const fs::path& path) {
  const std::string layer = "lora_unet_down_blocks_0_attentions_0_proj_in.";
  io::save_tensors(path, {{layer + "lora_down.weight", at::zeros({4, 32})},
                          {layer + "lora_up.weight", at::zeros({32, 4})}});
}

class WrongModels : public WrongInputTest {};

TEST_P(WrongModels, AreExplained) { expect_explained(); }

const std::vector<WrongInput> kPaths = {
    {"FolderMissing", picture_of("@/nope"), 3, {"nope", "does not exist"}},
    {"NameFromTheHub", picture_of("somebody/some-model"), 3, {"does not download", "local"}},
    {"FileMissing", picture_of("@/nope.safetensors"), 3, {"nope.safetensors", "not exist"}},
    {"FolderEmpty",
     picture_of("@/empty"),
     3,
     {"no model_index.json", "top folder of a diffusers model"},
     [](const fs::path& folder) { fs::create_directory(folder / "empty"); }},
    {"ComponentFolder", picture_of("@/model/unet"), 3, {"no model_index.json", "top folder"}},
    {"PickledCheckpoint",
     picture_of("@/m.ckpt"),
     5,
     {"m.ckpt", "safetensors only", "save_pretrained"},
     [](const fs::path& folder) { write_text(folder / "m.ckpt", "PK\x03\x04"); }},
    {"PickledWeightsInTheFolder",
     picture({}),
     5,
     {"diffusion_pytorch_model.bin", "safetensors only", "safe_serialization=True"},
     [](const fs::path& folder) {
       fs::rename(folder / kUNetFile, folder / "model/unet/diffusion_pytorch_model.bin");
     }},
    {"AdapterFile",
     picture_of("@/lora.safetensors"),
     5,
     {"lora.safetensors", "LoRA adapter, not a Stable Diffusion"},
     [](const fs::path& folder) { save_adapter(folder / "lora.safetensors"); }},
    {"TextFile",
     picture_of("@/m.txt"),
     4,
     {"m.txt"},
     [](const fs::path& folder) { write_text(folder / "m.txt", "just some words\n"); }},
    {"SingleFileWithoutTokenizer",
     picture_of("@/single/m.safetensors"),
     3,
     {"does not carry its tokenizer", "--tokenizer FOLDER"},
     [](const fs::path& folder) {
       fs::create_directory(folder / "single");
       io::save_tensors(folder / "single/m.safetensors", golden::single_file_tensors("sd1"));
     }},
    {"SingleFileWithWrongTokenizer",
     picture_of("@/m.safetensors", {"--tokenizer", "@/model/unet"}),
     3,
     {"model/unet", "no CLIP tokenizer", "vocab.json and merges.txt"},
     [](const fs::path& folder) {
       io::save_tensors(folder / "m.safetensors", golden::single_file_tensors("sd1"));
     }},
};

const std::vector<WrongInput> kFolders = {
    {"NoIndex",
     picture({}),
     3,
     {"no model_index.json"},
     [](const fs::path& folder) { fs::remove(folder / "model/model_index.json"); }},
    {"IndexOfAnotherPipeline",
     picture({}),
     5,
     {"PixArtSigmaPipeline", "Stable Diffusion 1, 2 and XL"},
     [](const fs::path& folder) {
       edit_json(folder / "model/model_index.json", "_class_name", "PixArtSigmaPipeline");
     }},
    {"IndexBroken",
     picture({}),
     4,
     {"model_index.json"},
     [](const fs::path& folder) { write_text(folder / "model/model_index.json", "{\"unet\": ["); }},
    {"ConfigBroken",
     picture({}),
     4,
     {"unet/config.json"},
     [](const fs::path& folder) {
       write_text(folder / "model/unet/config.json", "{sample_size}");
     }},
    {"ConfigWithWrongType",
     picture({}),
     4,
     {"unet/config.json", "sample_size", "wrong type"},
     [](const fs::path& folder) {
       edit_json(folder / "model/unet/config.json", "sample_size", "large");
     }},
    {"ConfigMissing",
     picture({}),
     3,
     {"vae/config.json"},
     [](const fs::path& folder) { fs::remove(folder / "model/vae/config.json"); }},
    {"UNetFolderMissing",
     picture({}),
     3,
     {"model/unet", "folder is missing", "download the model again"},
     [](const fs::path& folder) { fs::remove_all(folder / "model/unet"); }},
    {"WeightsMissing",
     picture({}),
     3,
     {"text_encoder/model.safetensors", "weights are missing", "download the model again"},
     [](const fs::path& folder) { fs::remove(folder / "model/text_encoder/model.safetensors"); }},
    {"TokenizerMissing",
     picture({}),
     3,
     {"model/tokenizer", "missing", "download the model again"},
     [](const fs::path& folder) { fs::remove_all(folder / "model/tokenizer"); }},
    {"VocabularyMissing",
     picture({}),
     3,
     {"model/tokenizer", "vocab.json and merges.txt"},
     [](const fs::path& folder) { fs::remove(folder / "model/tokenizer/vocab.json"); }},
    {"SchedulerMissing",
     picture({}),
     3,
     {"scheduler_config.json"},
     [](const fs::path& folder) { fs::remove_all(folder / "model/scheduler"); }},
};

const std::vector<WrongInput> kWeights = {
    {"LfsPointer",
     picture({}),
     5,
     {"diffusion_pytorch_model.safetensors", "Git LFS pointer", "git lfs pull"},
     [](const fs::path& folder) {
       write_text(folder / kUNetFile, "version https://git-lfs.github.com/spec/v1\noid sha256:" +
                                          std::string(64, 'a') + "\nsize 3438167540\n");
     }},
    {"HtmlPage",
     picture({}),
     5,
     {"diffusion_pytorch_model.safetensors", "web page", "fetch the file again"},
     [](const fs::path& folder) {
       write_text(folder / kUNetFile, "<!DOCTYPE html><html><body>Sign in</body></html>\n");
     }},
    {"Empty",
     picture({}),
     4,
     {"diffusion_pytorch_model.safetensors", "empty"},
     [](const fs::path& folder) { write_text(folder / kUNetFile, ""); }},
    {"Truncated",
     picture({}),
     4,
     {"diffusion_pytorch_model.safetensors", "download"},
     [](const fs::path& folder) {
       fs::resize_file(folder / kUNetFile, fs::file_size(folder / kUNetFile) / 2);
     }},
    {"ATensorIsMissing",
     picture({}),
     6,
     {"conv_in.weight"},
     [](const fs::path& folder) {
       auto tensors = io::load_tensors(folder / kUNetFile);
       for (auto& [name, tensor] : tensors) tensor = tensor.clone();
       tensors.erase("conv_in.weight");
       io::save_tensors(folder / kUNetFile, tensors);
     }},
    {"UNetConfigOfXlWithWeightsOf1",
     picture({}),
     6,
     {"unet"},
     [](const fs::path& folder) {
       golden::write_json(folder / "model/unet/config.json",
                          golden::pipelines().at("models").at("sdxl").at("unet"));
     }},
    {"UNetOf1InAFolderOfXl",
     picture_of("@/xl"),
     6,
     {"xl/unet", "the parts come from different models"},
     [](const fs::path& folder) {
       golden::write_folder(folder / "xl", "sdxl");
       fs::remove_all(folder / "xl/unet");
       fs::copy(folder / "model/unet", folder / "xl/unet", fs::copy_options::recursive);
     }},
    {"InspectLfsPointer",
     {"inspect", "@/m.safetensors"},
     5,
     {"m.safetensors", "Git LFS pointer"},
     [](const fs::path& folder) {
       write_text(folder / "m.safetensors", "version https://git-lfs.github.com/spec/v1\n");
     }},
    {"InspectTextFile",
     {"inspect", "@/m.txt"},
     4,
     {"m.txt"},
     [](const fs::path& folder) { write_text(folder / "m.txt", "just some words\n"); }},
    {"InspectPickle",
     {"inspect", "@/m.ckpt"},
     5,
     {"m.ckpt", "pickle", "convert it"},
     [](const fs::path& folder) { write_text(folder / "m.ckpt", "PK\x03\x04"); }},
    {"InspectEmptyFolder",
     {"inspect", "@/empty"},
     3,
     {"nothing here", "name a model folder"},
     [](const fs::path& folder) { fs::create_directory(folder / "empty"); }},
    {"TokensOfAFolderWithoutTokenizer",
     {"inspect", "@/model/unet", "--tokens", "x"},
     3,
     {"model/unet", "tokenizer"}},
    {"TokensFileMissing",
     {"inspect", "@/model", "--tokens-file", "@/nope.txt"},
     3,
     {"nope.txt", "cannot be read"}},
    {"TokensNotUtf8", {"inspect", "@/model", "--tokens", "\xff"}, 2, {"UTF-8"}},
};

INSTANTIATE_TEST_SUITE_P(Paths, WrongModels, testing::ValuesIn(kPaths), name_of);
INSTANTIATE_TEST_SUITE_P(Folders, WrongModels, testing::ValuesIn(kFolders), name_of);
INSTANTIATE_TEST_SUITE_P(Weights, WrongModels, testing::ValuesIn(kWeights), name_of);

}  // namespace
}  // namespace ringlet::e2e
