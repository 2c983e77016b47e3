// What an adapter is for a model, and the tokenizer of a model or folder.
#pragma once

#include <filesystem>
#include <memory>

#include "ringlet/core/json.h"
#include "ringlet/pipeline/model_files.h"
#include "ringlet/tokenizers/tokenizer.h"

namespace ringlet::service {

/// How an adapter of any program is read for a model (see open_adaptable): {"path", "dialect",
/// "methods": {method: layers}, "decisions": [axis, side, scale, in words], "layers",
/// "parameters"}. Throws as open_adaptable and formats::read_adapter.
Json describe_adapter(const std::filesystem::path& adapter, const std::filesystem::path& model,
                      const pipeline::ModelFileOptions& files);

/// The tokenizer of a model folder, of a tokenizer folder itself, or of a single file: `given`, or
/// the folder beside it. Throws Error(invalid_argument) for a given one beside a folder, and as
/// single_file_tokenizer and tokenizers::open_tokenizer.
std::shared_ptr<const tokenizers::Tokenizer> open_tokenizer(const std::filesystem::path& path,
                                                            const std::filesystem::path& given);

}  // namespace ringlet::service
