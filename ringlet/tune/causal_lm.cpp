// Texts that are to be continued: .txt files, read from left to right.
#include <algorithm>
#include <cmath>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"
#include "ringlet/models/text/gpt2.h"
#include "ringlet/nn/device.h"
#include "ringlet/tokenizers/byte_bpe_tokenizer.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/tasks.h"
#include "ringlet/tune/text_examples.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> read_texts(const fs::path& path) {
  std::vector<fs::path> files;
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file() && entry.path().extension() == ".txt")
        files.push_back(entry.path());
    std::ranges::sort(files);
  } else {
    files = {path};
  }
  std::vector<std::string> texts;
  for (const fs::path& file : files) texts.push_back(read_text_file(file));
  if (texts.empty())
    throw Error(ErrorCode::not_found, path.string(), "there are no .txt files in it");
  return texts;
}

using Block = std::vector<std::int64_t>;

class CausalLanguageModel final : public ExampleTask {
 public:
  CausalLanguageModel(const TaskOptions& options, const train::RunOptions& run)
      : ExampleTask(options, run),
        json_(read_config(options, "gpt2")),
        config_(models::Gpt2Config::from_json(json_, (options.model / "config.json").string())),
        tokenizer_(tokenizers::ByteBpeTokenizer::open(options.model)),
        examples_(read_split<Block>(
            options, [&](const fs::path& path) { return blocks_of(path, options.length); })),
        device_(options.weights.device),
        files_(folder_files(options.model, kTokenizerFiles)) {
    if (options.length < 2 || options.length > config_.positions)
      throw Error(ErrorCode::invalid_argument, Field("length"),
                  "must lie between 2 and " + std::to_string(config_.positions) +
                      ", which the network takes");
    if (tokenizer_.vocabulary_size() > config_.vocabulary)
      throw Error(ErrorCode::mismatch, options.model.string(),
                  "the tokenizer has more tokens than the network");
    FolderWeights weights(options, "gpt2", json_);
    const auto store = weights.store();
    if (!weights.at_random()) check_head(*store);
    const nn::WeightSource source(store, options.weights);
    gpt2_.emplace(source, config_);
    network_ = weights.layout().in_class(source.finish());
    files_["config.json"] = with_class(json_, "gpt2", "GPT2LMHeadModel").dump(2) + "\n";
  }

  std::string description() const override { return "gpt2"; }
  std::vector<std::string> usual_targets() const override {
    return {"model.*h.*.attn.*", "model.*h.*.mlp.*"};
  }
  std::size_t examples() const override { return examples_.train.size(); }
  std::size_t held_out() const override { return examples_.held_out.size(); }

  at::Tensor loss_of(std::span<const std::size_t> rows) const override {
    return mean_loss(examples_.train, rows);
  }

  std::vector<Score> evaluate() const override {
    constexpr std::size_t kBatch = 16;
    double sum = 0.0;
    in_batches(
        examples_.held_out.size(), at_a_time(kBatch), [&](const std::vector<std::size_t>& rows) {
          sum +=
              mean_loss(examples_.held_out, rows).item<double>() * static_cast<double>(rows.size());
        });
    return {{"perplexity", false, std::exp(sum / static_cast<double>(examples_.held_out.size()))}};
  }

  std::map<std::string, std::string> model_files() const override { return files_; }

 private:
  /// GPT-2's head is its table of words. Files that hold it a second time hold the same.
  static void check_head(const nn::TensorStore& store) {
    const auto head = store.find("lm_head.weight", {}, {});
    const auto words = store.find("transformer.wte.weight", {}, {});
    if (head && words && !head->equal(*words))
      throw Error(ErrorCode::unsupported, store.description(),
                  "its head (lm_head.weight) is not tied to its token embeddings",
                  "ringlet reads GPT-2 with tied weights, as it was published");
  }

  /// Texts after each other with the end token between them, in blocks of `length` tokens; what is
  /// left at the end is left out.
  std::vector<Block> blocks_of(const fs::path& path, std::int64_t length) const {
    std::vector<Block> blocks;
    Block all;
    for (const std::string& text : read_texts(path)) {
      const Block ids = tokenizer_.tokenize(text).ids;
      all.insert(all.end(), ids.begin(), ids.end());
      if (tokenizer_.end_id() >= 0) all.push_back(tokenizer_.end_id());
    }
    const auto size = static_cast<std::size_t>(std::max<std::int64_t>(length, 2));
    for (std::size_t at = 0; at + size <= all.size(); at += size)
      blocks.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(at),
                          all.begin() + static_cast<std::ptrdiff_t>(at + size));
    return blocks;
  }

  /// Mean cross entropy of every next token.
  at::Tensor mean_loss(const std::vector<Block>& all, std::span<const std::size_t> rows) const {
    std::vector<std::int64_t> ids;
    for (const std::size_t row : rows) ids.insert(ids.end(), all[row].begin(), all[row].end());
    const at::Tensor text = nn::to_device(
        at::tensor(ids, at::kLong).view({static_cast<std::int64_t>(rows.size()), -1}), device_);
    const at::Tensor scores = gpt2_->forward(text.slice(1, 0, -1));
    return at::cross_entropy_loss(scores.flatten(0, 1).to(at::kFloat), text.slice(1, 1).flatten());
  }

  Json json_;
  models::Gpt2Config config_;
  tokenizers::ByteBpeTokenizer tokenizer_;
  Split<Block> examples_;
  at::Device device_;
  std::map<std::string, std::string> files_;
  std::optional<models::Gpt2> gpt2_;
};

}  // namespace

std::unique_ptr<train::Task> causal_lm(const TaskOptions& options, const train::RunOptions& run) {
  return std::make_unique<CausalLanguageModel>(options, run);
}

}  // namespace ringlet::tune
