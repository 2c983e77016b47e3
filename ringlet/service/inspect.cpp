#include "ringlet/service/inspect.h"

#include "ringlet/core/error.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/adaptable_model.h"

namespace ringlet::service {

namespace fs = std::filesystem;

Json describe_adapter(const fs::path& adapter, const fs::path& model,
                      const pipeline::ModelFileOptions& files) {
  return nn::with_ringlet_errors(adapter.string(), [&]() -> Json {
    const AdaptableModel opened = open_adaptable(model, files, {{adapter, 1.0, {}}});
    const formats::ReadAdapter read =
        formats::read_adapter(adapter, opened.components(), opened.hash);
    return {{"path", adapter.string()},
            {"dialect", read.summary.dialect},
            {"methods", read.summary.methods},
            {"decisions", read.summary.decisions},
            {"layers", read.set.entries().size()},
            {"parameters", read.set.parameter_count()}};
  });
}

std::shared_ptr<const tokenizers::Tokenizer> open_tokenizer(const fs::path& path,
                                                            const fs::path& given) {
  if (fs::is_regular_file(path))
    return tokenizers::open_tokenizer(pipeline::single_file_tokenizer(path, given));
  if (!given.empty())
    throw Error(ErrorCode::invalid_argument, Field("tokenizer"),
                path.string() + " is a folder, which has its own tokenizer",
                "leave it out; it is for single-file checkpoints");
  const bool itself = fs::exists(path / "vocab.json") || fs::exists(path / "tokenizer.json") ||
                      fs::exists(path / "vocab.txt");
  return tokenizers::open_tokenizer(itself ? path : path / "tokenizer");
}

}  // namespace ringlet::service
