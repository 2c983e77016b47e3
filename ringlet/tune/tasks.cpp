#include "ringlet/tune/tasks.h"

#include <array>

#include "ringlet/core/error.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::tune {
namespace {

struct TaskEntry {
  const char* name;
  std::unique_ptr<train::Task> (*open)(const TaskOptions& options, const train::RunOptions& run);
};

constexpr const char* kSentences = "sentence-similarity";

constexpr std::array kTasks = {
    TaskEntry{"causal-lm", causal_lm},
    TaskEntry{"contrastive", contrastive},
    TaskEntry{"ctc", ctc},
    TaskEntry{"image-classification", image_classification},
    TaskEntry{"question-answering", question_answering},
    TaskEntry{"recommendation", recommendation},
    TaskEntry{kSentences, sentence_similarity},
    TaskEntry{"text-classification", text_classification},
};

const TaskEntry& entry_of(const TaskOptions& options) {
  if (!options.loss.empty() && options.task != kSentences)
    throw Error(ErrorCode::invalid_argument, Field("loss"), "chooses nothing for " + options.task,
                std::string("only ") + kSentences + " has several losses");
  for (const TaskEntry& entry : kTasks)
    if (options.task == entry.name) return entry;
  refuse_choice("task", options.task, task_names());
}

void check(const train::RunOptions& run) {
  if (run.observe_every < 0)
    throw Error(ErrorCode::invalid_argument, Field("evaluate_every"), "must not be negative");
  if (!run.full() && !run.adapts())
    throw Error(ErrorCode::invalid_argument, Field("method"), "none leaves nothing to train",
                "name a method, or full");
}

}  // namespace

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const TaskEntry& task : kTasks) names.emplace_back(task.name);
  return names;
}

void describe(OptionList& list, TaskOptions& o) {
  list.add("task", word_choice("task", o.task, task_names()), "What the network learns to do")
      .required()
      .repeated();
  list.add("data", o.data, "Training examples").required().repeated();
  list.add("eval_data", o.eval_data, "Evaluation examples")
      .or_else("every tenth of `data`, which is then held out")
      .repeated();
  list.add("length", o.length, "Maximum number of tokens in a text")
      .within(Range::at_least(1))
      .or_else("128, or the max_seq_length of a folder of sentences")
      .repeated();
  nn::describe(list, o.weights.storage).repeated();
  list.add("loss", word_choice("loss", o.loss, {"contrastive", "regression"}),
           "Of sentence-similarity: contrastive for pairs that belong together, regression for "
           "pairs with scores")
      .or_else("regression where the pairs have scores")
      .repeated();
}

train::OpenTask task(const TaskOptions& options) {
  return [options](const train::RunOptions& run) {
    TaskOptions resolved = options;
    OptionList list;
    describe(list, resolved);
    list.check();
    if (run.savings.storage != nn::WeightStorage::as_stored)
      resolved.weights.storage = run.savings.storage;
    const TaskEntry& entry = entry_of(options);
    check(run);
    train::check_base_storage(options.weights.storage, run);
    resolved.weights.trainable = run.full();
    return nn::with_ringlet_errors(options.model.string(),
                                   [&] { return entry.open(resolved, run); });
  };
}

}  // namespace ringlet::tune
