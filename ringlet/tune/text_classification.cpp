// Texts with a class each: lines {"text": …, "label": …}.
#include <optional>

#include "ringlet/tune/classification.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/tasks.h"
#include "ringlet/tune/text_examples.h"

namespace ringlet::tune {
namespace {

struct LabelledText : Labelled {
  std::string text;
  tokenizers::EncodedText encoded = {};
};

std::vector<LabelledText> read_texts(const std::filesystem::path& file) {
  std::vector<LabelledText> examples;
  for (const JsonLine& line : read_json_lines(file)) {
    LabelledText& one = examples.emplace_back();
    one.text = json_require<std::string>(line.json, "text", line.where);
    one.label = json_require<std::string>(line.json, "label", line.where);
    one.where = line.where;
  }
  return examples;
}

class TextClassification final : public Classification<LabelledText> {
 public:
  TextClassification(const TaskOptions& options, const train::RunOptions& run)
      : Classification(options, run, "bert, roberta", read_texts, kTokenizerFiles),
        bert_(checked_length(models::BertConfig::from_json(config_, where_), options.length)) {
    const auto tokenizer = encoder_tokenizer(options.model, bert_);
    for (auto* part : {&examples_.train, &examples_.held_out})
      for (LabelledText& example : *part)
        example.encoded = tokenizer->encode(example.text, options.length);
    const std::vector<std::string> head = models::TextClassifier::head_layers(bert_);
    FolderWeights weights(options, bert_.name(), config_);
    // Both of its layers: that of BertForTokenClassification reads no pooler.
    has_head_ = labels_.from_config() &&
                weights.has(head.front() + ".weight", {bert_.width, bert_.width}) &&
                weights.has(head.back() + ".weight", {labels_.count(), bert_.width});
    const nn::WeightSource source(
        weights.store(
            {head.front() + ".", "classifier."},
            has_head_ ? std::vector<std::string>{} : std::vector<std::string>{"classifier."}),
        options.weights);
    network_of_texts_.emplace(source, bert_, labels_.count());
    network_ = weights.layout().in_class(source.finish());
    made_layers_ = weights.made_layers();
    set_class(bert_.name(), bert_.kind == models::BertConfig::Kind::bert
                                ? "BertForSequenceClassification"
                                : "RobertaForSequenceClassification");
  }

  std::string description() const override {
    return std::string(bert_.name()) + ", " + std::to_string(labels_.count()) + " classes";
  }
  std::size_t size_of(std::size_t row) const override {
    return examples_.train[row].encoded.ids.size();
  }
  std::vector<std::string> usual_targets() const override { return {"model.*encoder.layer.*"}; }
  std::vector<std::string> heads() const override {
    return has_head_ ? std::vector<std::string>{} : models::TextClassifier::head_layers(bert_);
  }

 private:
  at::Tensor scores(const std::vector<const LabelledText*>& examples) const override {
    std::vector<const tokenizers::EncodedText*> texts;
    for (const LabelledText* one : examples) texts.push_back(&one->encoded);
    return network_of_texts_->forward(text_batch(texts, bert_.pad_id, device_));
  }

  models::BertConfig bert_;
  bool has_head_ = false;
  std::optional<models::TextClassifier> network_of_texts_;
};

}  // namespace

std::unique_ptr<train::Task> text_classification(const TaskOptions& options,
                                                 const train::RunOptions& run) {
  return std::make_unique<TextClassification>(options, run);
}

}  // namespace ringlet::tune
