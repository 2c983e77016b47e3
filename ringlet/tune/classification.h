// What classifying pictures and classifying texts have in common.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/tensor.h>

#include "ringlet/tune/examples.h"
#include "ringlet/tune/labels.h"
#include "ringlet/tune/task.h"

namespace ringlet::tune {

/// What every example has, whatever is classified.
struct Labelled {
  std::string label;
  std::string where;        ///< for messages: a file, or a file and a line
  std::int64_t number = 0;  ///< the label's
};

/// `Example` is a Labelled.
template <class Example>
class Classification : public ExampleTask {
 public:
  std::size_t examples() const final { return examples_.train.size(); }
  std::size_t held_out() const final { return examples_.held_out.size(); }

  std::map<std::string, std::string> model_files() const final { return files_; }

  /// Mean cross entropy.
  at::Tensor loss_of(std::span<const std::size_t> rows) const final {
    const Batch batch = batch_of(examples_.train, rows);
    return at::cross_entropy_loss(scores(batch.examples).to(at::kFloat), batch.classes);
  }

  /// Accuracy and mean cross entropy.
  std::vector<Score> evaluate() const final {
    constexpr std::size_t kBatch = 64;
    double right = 0.0, loss = 0.0;
    in_batches(held_out(), at_a_time(kBatch), [&](const std::vector<std::size_t>& rows) {
      const Batch batch = batch_of(examples_.held_out, rows);
      const at::Tensor said = scores(batch.examples).to(at::kFloat);
      right += said.argmax(1).eq(batch.classes).sum().template item<double>();
      loss += at::cross_entropy_loss(said, batch.classes).template item<double>() *
              static_cast<double>(rows.size());
    });
    const auto count = static_cast<double>(held_out());
    return {{"accuracy", true, right / count}, {"loss", false, loss / count}};
  }

 protected:
  /// A folder of this network is of transformers' class `architecture`.
  void set_class(const std::string& kind, const char* architecture) {
    files_["config.json"] =
        with_class(labels_.written_into(config_), kind, architecture).dump(2) + "\n";
  }

  /// `known` is of read_config, `read` gives a path's examples, `kept` are files of the folder that
  /// belong to the network. The classes are the config's or those of the examples to learn from.
  /// Throws Error(invalid_argument) for a held-out example of another class.
  template <class Read>
  Classification(const TaskOptions& options, const train::RunOptions& run, const char* known,
                 const Read& read, std::span<const char* const> kept)
      : ExampleTask(options, run),
        where_((options.model / "config.json").string()),
        config_(read_config(options, known)),
        examples_(read_split<Example>(options, read)),
        labels_(config_, names_of(examples_.train), where_),
        device_(options.weights.device),
        files_(folder_files(options.model, kept)) {
    for (auto* part : {&examples_.train, &examples_.held_out})
      for (Example& one : *part) one.number = labels_.index(one.label, one.where);
    files_["config.json"] = labels_.written_into(config_).dump(2) + "\n";
  }

  /// Scores of all classes, [examples, classes].
  virtual at::Tensor scores(const std::vector<const Example*>& examples) const = 0;

  std::string where_;  ///< of the config
  Json config_;
  Split<Example> examples_;
  Labels labels_;
  at::Device device_;

 private:
  struct Batch {
    std::vector<const Example*> examples;
    at::Tensor classes;
  };

  Batch batch_of(const std::vector<Example>& all, std::span<const std::size_t> rows) const {
    Batch batch;
    std::vector<std::int64_t> numbers;
    for (const std::size_t row : rows) {
      batch.examples.push_back(&all[row]);
      numbers.push_back(all[row].number);
    }
    batch.classes = at::tensor(numbers, at::kLong).to(device_);
    return batch;
  }

  static std::set<std::string> names_of(const std::vector<Example>& examples) {
    std::set<std::string> names;
    for (const Example& one : examples) names.insert(one.label);
    return names;
  }

  std::map<std::string, std::string> files_;
};

}  // namespace ringlet::tune
