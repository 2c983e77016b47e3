// Answers that stand in a text: lines {"question": …, "context": …, "answer": …}.
#include <algorithm>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/eval/text_metrics.h"
#include "ringlet/nn/device.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/tasks.h"
#include "ringlet/tune/text_examples.h"

namespace ringlet::tune {
namespace {

struct Question {
  std::string question, context, answer;
  std::size_t begin = 0;  ///< of the answer, in bytes of the context
  tokenizers::EncodedText encoded = {};
  std::int64_t first = -1, last = -1;  ///< the answer's tokens; -1 = cut off with the context
};

std::vector<Question> read_questions(const std::filesystem::path& file) {
  std::vector<Question> examples;
  for (const JsonLine& line : read_json_lines(file)) {
    Question one{json_require<std::string>(line.json, "question", line.where),
                 json_require<std::string>(line.json, "context", line.where),
                 json_require<std::string>(line.json, "answer", line.where)};
    one.begin = one.context.find(one.answer);
    if (one.answer.empty() || one.begin == std::string::npos)
      throw Error(ErrorCode::bad_format, line.where, "the answer is not in the context");
    examples.push_back(std::move(one));
  }
  return examples;
}

void encode(Question& one, const tokenizers::Tokenizer& tokenizer, std::int64_t length) {
  one.encoded = tokenizer.encode(one.question, one.context, length);
  const std::size_t end = one.begin + one.answer.size();
  for (std::size_t i = one.encoded.second; i + 1 < one.encoded.ids.size(); ++i) {
    const tokenizers::TextPart& part = one.encoded.parts[i];
    if (part.begin <= one.begin && one.begin < part.end) one.first = static_cast<std::int64_t>(i);
    if (part.begin < end && end <= part.end) one.last = static_cast<std::int64_t>(i);
  }
  if (one.first < 0 || one.last < one.first) one.first = one.last = -1;
}

class QuestionAnswering final : public ExampleTask {
 public:
  QuestionAnswering(const TaskOptions& options, const train::RunOptions& run)
      : ExampleTask(options, run),
        config_(read_config(options, "bert, roberta")),
        where_((options.model / "config.json").string()),
        bert_(checked_length(models::BertConfig::from_json(config_, where_), options.length)),
        examples_(read_split<Question>(options, read_questions)),
        device_(options.weights.device),
        files_(folder_files(options.model, kTokenizerFiles)) {
    const auto tokenizer = encoder_tokenizer(options.model, bert_);
    for (auto* part : {&examples_.train, &examples_.held_out})
      for (Question& one : *part) encode(one, *tokenizer, options.length);
    // Nothing can be learnt from an answer that the network does not see.
    std::erase_if(examples_.train, [](const Question& one) { return one.first < 0; });
    if (examples_.train.empty())
      throw Error(ErrorCode::invalid_argument, Field("length"), "cuts off every answer",
                  "give a larger one");
    FolderWeights weights(options, bert_.name(), config_);
    has_head_ = weights.has("qa_outputs.weight", {2, bert_.width});
    const nn::WeightSource source(weights.store({"qa_outputs."}), options.weights);
    network_of_texts_.emplace(source, bert_);
    network_ = weights.layout().in_class(source.finish());
    made_layers_ = weights.made_layers();
    const bool is_bert = bert_.kind == models::BertConfig::Kind::bert;
    files_["config.json"] =
        with_class(config_, bert_.name(),
                   is_bert ? "BertForQuestionAnswering" : "RobertaForQuestionAnswering")
            .dump(2) +
        "\n";
  }

  std::string description() const override { return std::string(bert_.name()) + ", spans"; }
  std::size_t size_of(std::size_t row) const override {
    return examples_.train[row].encoded.ids.size();
  }
  std::vector<std::string> usual_targets() const override { return {"model.*encoder.layer.*"}; }
  std::vector<std::string> heads() const override {
    return has_head_ ? std::vector<std::string>{} : std::vector<std::string>{"qa_outputs"};
  }
  std::size_t examples() const override { return examples_.train.size(); }
  std::size_t held_out() const override { return examples_.held_out.size(); }

  /// Mean cross entropy of the first and the last token (Devlin et al. 2019, 4.2).
  at::Tensor loss_of(std::span<const std::size_t> rows) const override {
    std::vector<const tokenizers::EncodedText*> texts;
    std::vector<std::int64_t> first, last;
    for (const std::size_t row : rows) {
      texts.push_back(&examples_.train[row].encoded);
      first.push_back(examples_.train[row].first);
      last.push_back(examples_.train[row].last);
    }
    const auto [begins, ends] =
        network_of_texts_->forward(text_batch(texts, bert_.pad_id, device_));
    const auto wanted = [&](const std::vector<std::int64_t>& places) {
      return nn::to_device(at::tensor(places, at::kLong), device_);
    };
    return (at::cross_entropy_loss(begins.to(at::kFloat), wanted(first)) +
            at::cross_entropy_loss(ends.to(at::kFloat), wanted(last))) /
           2.0;
  }

  std::vector<Score> evaluate() const override {
    double exact = 0.0, f1 = 0.0;
    for (const Question& one : examples_.held_out) {
      const eval::AnswerScore score = eval::answer_score(answer(one), one.answer);
      exact += score.exact;
      f1 += score.f1;
    }
    const auto count = static_cast<double>(examples_.held_out.size());
    return {{"F1", true, f1 / count}, {"exact match", true, exact / count}};
  }

  std::map<std::string, std::string> model_files() const override { return files_; }

 private:
  /// The span of the context with the largest sum of both scores, of at most thirty tokens.
  std::string answer(const Question& one) const {
    constexpr std::int64_t kLongest = 30;
    const auto [begins, ends] =
        network_of_texts_->forward(text_batch({&one.encoded}, bert_.pad_id, device_));
    const at::Tensor first = begins[0].to(at::kCPU).to(at::kFloat).contiguous();
    const at::Tensor last = ends[0].to(at::kCPU).to(at::kFloat).contiguous();
    const float* const a = first.const_data_ptr<float>();
    const float* const b = last.const_data_ptr<float>();
    const auto begin = static_cast<std::int64_t>(one.encoded.second);
    const auto end = static_cast<std::int64_t>(one.encoded.ids.size()) - 1;
    std::int64_t best_first = begin, best_last = begin;
    float best = -std::numeric_limits<float>::infinity();
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t k = i; k < std::min(end, i + kLongest); ++k)
        if (a[i] + b[k] > best) best = a[i] + b[k], best_first = i, best_last = k;
    if (begin >= end) return "";
    const auto& parts = one.encoded.parts;
    const std::size_t from = parts[static_cast<std::size_t>(best_first)].begin;
    return one.context.substr(from, parts[static_cast<std::size_t>(best_last)].end - from);
  }

  Json config_;
  std::string where_;
  models::BertConfig bert_;
  Split<Question> examples_;
  at::Device device_;
  std::map<std::string, std::string> files_;
  bool has_head_ = false;
  std::optional<models::SpanFinder> network_of_texts_;
};

}  // namespace

std::unique_ptr<train::Task> question_answering(const TaskOptions& options,
                                                const train::RunOptions& run) {
  return std::make_unique<QuestionAnswering>(options, run);
}

}  // namespace ringlet::tune
