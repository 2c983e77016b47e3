#include "ringlet/tune/sentences.h"

#include <algorithm>
#include <array>

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"
#include "ringlet/tune/examples.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

TaskOptions inside(TaskOptions options, const fs::path& network) {
  options.model = network;
  return options;
}

std::int64_t checked(std::int64_t length, const models::BertConfig& config) {
  constexpr std::int64_t kShortest = 4;
  if (length < kShortest)
    throw Error(ErrorCode::invalid_argument, Field("length"), "must be at least 4");
  return std::min(length, config.longest());
}

}  // namespace

SentenceNetwork::SentenceNetwork(const TaskOptions& options)
    : root_(options.model),
      folder_(models::SentenceFolder::read(options.model)),
      json_(read_config(inside(options, folder_.network), "bert, roberta")),
      config_(models::BertConfig::from_json(json_, (folder_.network / "config.json").string())),
      length_(checked(options.length, config_)),
      tokenizer_(encoder_tokenizer(folder_.network, config_)),
      device_(options.weights.device) {
  FolderWeights weights(inside(options, folder_.network), config_.name(), json_);
  const nn::WeightSource source(weights.store(), options.weights);
  encoder_.emplace(source, config_, folder_.pooling);
  index_ = weights.layout().in_class(source.finish(), /*bare=*/true);
}

at::Tensor SentenceNetwork::vectors(
    const std::vector<const tokenizers::EncodedText*>& texts) const {
  return encoder_->forward(text_batch(texts, config_.pad_id, device_));
}

std::map<std::string, std::string> SentenceNetwork::files() const {
  std::map<std::string, std::string> files = folder_files(folder_.network, kTokenizerFiles);
  const bool is_bert = config_.kind == models::BertConfig::Kind::bert;
  files["config.json"] =
      with_class(json_, config_.name(), is_bert ? "BertModel" : "RobertaModel").dump(2) + "\n";
  for (const auto& [name, content] :
       folder_files(folder_.network, std::array{"sentence_bert_config.json"}))
    files[name] = content;
  if (folder_.network != root_) return files;  // its modules lie elsewhere
  for (const auto& [name, content] :
       folder_files(root_, std::array{"modules.json", "config_sentence_transformers.json"}))
    files[name] = content;
  if (!files.contains("modules.json")) return files;
  for (const Json& module : read_json_file(root_ / "modules.json")) {
    const auto path = json_value<std::string>(module, "path", "", "modules.json");
    const fs::path config = root_ / path / "config.json";
    if (!path.empty() && fs::exists(config)) files[path + "/config.json"] = read_file(config);
  }
  return files;
}

std::int64_t usual_length(const fs::path& folder) {
  return models::SentenceFolder::read(folder).length.value_or(TaskOptions().length);
}

}  // namespace ringlet::tune
