// Damage in every file of a model folder: a typed Error that names it, or a model that works.
#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "ringlet/core/random.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;
using pipeline::GenerateRequest;
using pipeline::StableDiffusion;

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

GenerateRequest small_request() {
  GenerateRequest request;
  request.prompt = "a cat";
  request.size = {8, 8};
  request.steps = 1;
  request.sampler = diffusion::find_sampler("ddim");
  return request;
}

class CheckpointFault : public testing::TestWithParam<std::string> {
 protected:
  CheckpointFault() { golden::write_folder(root(), "sd1"); }
  fs::path root() const { return folder_ / "model"; }
  fs::path file() const { return root() / GetParam(); }
  bool is_weights() const { return file().extension() == ".safetensors"; }

  /// Opens and uses the model. Anything but an Error about the input is a failure. True when an
  /// error came.
  bool refused(const std::string& trace) const {
    try {
      const StableDiffusion model = StableDiffusion::open(root());
      // Flipped configurations may describe another model that can be loaded: it must also run.
      if (!is_weights()) pipeline::decode_images(model, pipeline::sample(model, small_request()));
      return false;
    } catch (const Error& error) {
      EXPECT_NE(error.code(), ErrorCode::internal) << trace << ": " << error.what();
      EXPECT_NE(error.code(), ErrorCode::out_of_memory) << trace << ": " << error.what();
      EXPECT_FALSE(error.where().empty()) << trace;
      return true;
    } catch (const std::exception& problem) {
      ADD_FAILURE() << trace << ": not an Error: " << problem.what();
      return true;
    }
  }

  TemporaryFolder folder_;
};

TEST_P(CheckpointFault, FlippedBits) {
  const std::string good = content(file());
  RandomStream random = Random(21).stream(GetParam());
  const std::size_t header = 4096;  // of a weight file: where a flip is not just another number
  for (int i = 0; i < 64; ++i) {
    std::string damaged = good;
    const std::size_t at =
        random.uniform_int(i % 2 == 0 ? std::min(header, good.size()) : good.size());
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random.uniform_int(8)));
    write_file_atomically(file(), damaged);
    refused("flip at " + std::to_string(at));
  }
}

TEST_P(CheckpointFault, CutFiles) {
  const std::string good = content(file());
  RandomStream random = Random(22).stream(GetParam());
  std::vector<std::size_t> lengths = {0, 1, 7, 8, 9, good.size() / 2, good.size() - 1};
  for (int i = 0; i < 16; ++i) lengths.push_back(random.uniform_int(good.size()));
  for (const std::size_t length : lengths) {
    write_file_atomically(file(), good.substr(0, length));
    const bool error = refused("cut to " + std::to_string(length));
    // Fewer merges are still a tokenizer; everything else carries its own end before the new line.
    const bool complete = good.find_first_not_of('\n', length) == std::string::npos;
    if (file().extension() != ".txt" && !complete) {
      EXPECT_TRUE(error) << length;
    }
  }
}

TEST_P(CheckpointFault, TheCutFileIsNamed) {
  if (file().extension() == ".txt") return;  // fewer merges are still a tokenizer
  const std::string good = content(file());
  write_file_atomically(file(), good.substr(0, good.size() / 2));
  expect_error(ErrorCode::bad_format, file().string(), [&] { StableDiffusion::open(root()); });
}

TEST_P(CheckpointFault, AFolderInPlaceOfTheFile) {
  fs::remove(file());
  fs::create_directory(file());
  EXPECT_TRUE(refused("folder"));
}

TEST_P(CheckpointFault, AnotherFilesContent) {
  for (const char* other : {"model_index.json", "tokenizer/merges.txt", "tokenizer/vocab.json",
                            "vae/config.json", "vae/diffusion_pytorch_model.safetensors"}) {
    if (GetParam() == other) continue;
    const std::string good = content(file());
    write_file_atomically(file(), content(root() / other));
    refused(other);
    write_file_atomically(file(), good);
  }
  EXPECT_FALSE(refused("restored"));
}

INSTANTIATE_TEST_SUITE_P(Files, CheckpointFault,
                         testing::Values("model_index.json", "scheduler/scheduler_config.json",
                                         "unet/config.json", "vae/config.json",
                                         "text_encoder/config.json",
                                         "unet/diffusion_pytorch_model.safetensors",
                                         "vae/diffusion_pytorch_model.safetensors",
                                         "text_encoder/model.safetensors", "tokenizer/vocab.json",
                                         "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"),
                         [](const auto& entry) {
                           std::string name = entry.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

class WrongParts : public testing::Test {
 protected:
  WrongParts() {
    golden::write_folder(root(), "sd1");
    golden::write_folder(folder_ / "other", "sd2");
  }
  fs::path root() const { return folder_ / "model"; }
  void swap(const std::string& name) const {
    fs::copy(folder_ / "other" / name, root() / name,
             fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  }
  TemporaryFolder folder_;
};

TEST_F(WrongParts, AnotherModelsWeightsAreAMismatch) {
  const std::string weights = "unet/diffusion_pytorch_model.safetensors";
  swap(weights);
  expect_error(ErrorCode::mismatch, (root() / weights).string(),
               [&] { StableDiffusion::open(root()); });
}

// Each part fits its own configuration; only together they make no model.
TEST_F(WrongParts, AnotherModelsWholePartIsAMismatch) {
  golden::write_folder(folder_ / "xl", "sdxl");
  fs::remove_all(root() / "unet");
  fs::copy(folder_ / "xl/unet", root() / "unet", fs::copy_options::recursive);
  expect_error(ErrorCode::mismatch, "the U-Net needs a second text encoder",
               [&] { StableDiffusion::open(root()); });

  const fs::path config = folder_ / "xl/text_encoder_2/config.json";
  fs::remove_all(folder_ / "xl/text_encoder_2");
  fs::copy(root() / "text_encoder", folder_ / "xl/text_encoder_2", fs::copy_options::recursive);
  Json other = read_json_file(config);
  other["projection_dim"] = 32;  // without a projection no tensor contradicts
  golden::write_json(config, other);
  expect_error(ErrorCode::mismatch, "pooled text of width 32",
               [&] { StableDiffusion::open(folder_ / "xl"); });
}

class BadNumbers : public testing::TestWithParam<float> {};

// A black picture without a word is what other programs give.
TEST_P(BadNumbers, AreReportedWhenThePictureIsMade) {
  const TemporaryFolder folder;
  golden::write_folder(folder / "model", "sd1");
  const fs::path path = folder / "model/unet/diffusion_pytorch_model.safetensors";
  auto tensors = io::load_tensors(path);
  tensors.at("conv_in.bias") = tensors.at("conv_in.bias").clone().fill_(GetParam());
  io::save_tensors(path, tensors);
  const StableDiffusion model = StableDiffusion::open(folder / "model");
  expect_error(ErrorCode::non_finite, "NaN",
               [&] { pipeline::decode_images(model, pipeline::sample(model, small_request())); });
}

INSTANTIATE_TEST_SUITE_P(Values, BadNumbers,
                         testing::Values(std::numeric_limits<float>::quiet_NaN(),
                                         std::numeric_limits<float>::infinity()),
                         [](const auto& entry) { return entry.index == 0 ? "NaN" : "Infinity"; });

}  // namespace
}  // namespace ringlet
