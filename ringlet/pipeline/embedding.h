// Textual inversion (Gal et al. 2023, "An Image is Worth One Word"): a word with its own vectors in
// the text encoder's input.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::pipeline {

struct TextEmbedding {
  std::string word;              ///< as the file says, else its name
  std::vector<at::Tensor> rows;  ///< [n, width] for each text encoder
};

/// Reads a safetensors file of diffusers ({"<word>": [n, width]}), of SD web UIs (emb_params), of
/// SDXL (clip_l and clip_g), of cloneofsimo ("<s1>", "<s2>" beside its layers), or with embeddings
/// bundled with an adapter's layers ("bundle_emb.WORD.clip_l", "….string_to_param.*"). Throws
/// Error(bad_format | unsupported | non_finite), and as SafetensorsFile::open.
std::vector<TextEmbedding> read_embeddings(const std::filesystem::path& file);

}  // namespace ringlet::pipeline
