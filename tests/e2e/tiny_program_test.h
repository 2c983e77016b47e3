// The program on the tiny models.
#pragma once

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ringlet/io/image.h"
#include "tests/e2e/run_program.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::e2e {

namespace fs = std::filesystem;

inline std::string read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.insert(entry.path().filename().string());
  return names;
}

/// A folder with models and the program's output.
class TinyProgram : public testing::Test {
 protected:
  /// Writes a model folder ("sd1", "sd2", "sdxl"), or with "-file" a checkpoint and a tokenizer.
  fs::path write_model(const std::string& which) const {
    if (!which.ends_with("-file")) {
      golden::write_folder(folder_ / "model", which);
      return folder_ / "model";
    }
    golden::write_tokenizer(folder_ / "tokenizer", "<|endoftext|>");
    io::save_tensors(folder_ / "model.safetensors",
                     golden::single_file_tensors(which.substr(0, which.find('-'))));
    return folder_ / "model.safetensors";
  }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  /// `train` on the folder's model and pictures, at 16 pixels with seed 5, into the folder `out`.
  Arguments training(const std::string& method, const std::string& steps, const std::string& out,
                     const Arguments& more) const {
    Arguments all = {"train",
                     "--model",
                     path("model"),
                     "--instance-images",
                     path("pictures"),
                     "--instance-prompt",
                     "a dog",
                     "--out",
                     path(out),
                     "--method",
                     method,
                     "--steps",
                     steps,
                     "--resolution",
                     "16",
                     "--seed",
                     "5"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  /// Runs the program, which must succeed.
  static ProgramResult expect_success(const Arguments& arguments,
                                      const ProgramOptions& options = {}) {
    ProgramResult result = run_program(arguments, options);
    EXPECT_EQ(result.status, 0) << result.out << result.err;
    return result;
  }

  TemporaryFolder folder_;
};

}  // namespace ringlet::e2e
