// Texts with a class each: lines {"text": …, "label": …}.
#include <set>

#include "ringlet/tune/classification.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/labels.h"
#include "ringlet/tune/tasks.h"
#include "ringlet/tune/text_examples.h"

namespace ringlet::tune {
namespace {

struct LabelledText {
  std::string text, label, where;
  models::EncodedText encoded = {};
};

std::vector<LabelledText> read_texts(const std::filesystem::path& file) {
  std::vector<LabelledText> examples;
  for (const JsonLine& line : read_json_lines(file))
    examples.push_back({json_require<std::string>(line.json, "text", line.where),
                        json_require<std::string>(line.json, "label", line.where),
                        line.where,
                        {}});
  return examples;
}

class TextClassification final : public Classification {
 public:
  explicit TextClassification(const TaskOptions& options)
      : config_(read_config(options, "bert, roberta")),
        where_((options.model / "config.json").string()),
        bert_(checked_length(models::BertConfig::from_json(config_, where_), options.length)),
        examples_(read_split<LabelledText>(options, read_texts)),
        labels_(config_, names_of_classes(), where_),
        device_(options.weights.device),
        files_(folder_files(options.model, kTokenizerFiles)) {
    const EncoderTokenizer tokenizer(options.model, bert_);
    for (auto* part : {&examples_.train, &examples_.held_out})
      for (LabelledText& example : *part)
        example.encoded = tokenizer.encode(example.text, options.length);
    const std::vector<std::string> head = models::TextClassifier::head_layers(bert_);
    has_head_ = labels_.from_config() &&
                has_tensor(options, head.back() + ".weight", {labels_.count(), bert_.width});
    std::vector<std::string> other_heads = {"cls.", "lm_head.", "qa_outputs."};
    if (!has_head_) other_heads.emplace_back("classifier.");
    const nn::WeightSource source(
        open_weights(options, {head.front() + ".", "classifier."}, other_heads), options.weights);
    network_of_texts_.emplace(source, bert_, labels_.count());
    network_ = source.finish();
  }

  std::string description() const override {
    return std::string(bert_.name()) + ", " + std::to_string(labels_.count()) + " classes";
  }
  std::vector<std::string> usual_targets() const override { return {"model.*encoder.layer.*"}; }
  std::vector<std::string> new_layers() const override {
    return has_head_ ? std::vector<std::string>{} : models::TextClassifier::head_layers(bert_);
  }
  std::size_t examples() const override { return examples_.train.size(); }
  std::size_t held_out() const override { return examples_.held_out.size(); }

  std::map<std::string, std::string> model_files() const override {
    std::map<std::string, std::string> files = files_;
    files["config.json"] = labels_.written_into(config_).dump(2) + "\n";
    return files;
  }

 private:
  std::set<std::string> names_of_classes() const {
    std::set<std::string> names;
    for (const LabelledText& example : examples_.train) names.insert(example.label);
    return names;
  }
  at::Tensor scores(Part part, std::span<const std::size_t> rows) const override {
    const std::vector<LabelledText>& all = of(part);
    std::vector<const models::EncodedText*> texts;
    for (const std::size_t row : rows) texts.push_back(&all[row].encoded);
    return network_of_texts_->forward(text_batch(texts, bert_.pad_id, device_));
  }
  std::vector<std::int64_t> classes(Part part, std::span<const std::size_t> rows) const override {
    const std::vector<LabelledText>& all = of(part);
    std::vector<std::int64_t> numbers;
    for (const std::size_t row : rows)
      numbers.push_back(labels_.index(all[row].label, all[row].where));
    return numbers;
  }
  const std::vector<LabelledText>& of(Part part) const {
    return part == Part::train ? examples_.train : examples_.held_out;
  }

  Json config_;
  std::string where_;
  models::BertConfig bert_;
  Split<LabelledText> examples_;
  Labels labels_;
  at::Device device_;
  std::map<std::string, std::string> files_;
  bool has_head_ = false;
  std::optional<models::TextClassifier> network_of_texts_;
};

}  // namespace

std::unique_ptr<Task> text_classification(const TaskOptions& options) {
  return std::make_unique<TextClassification>(options);
}

}  // namespace ringlet::tune
