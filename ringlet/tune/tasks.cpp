#include "ringlet/tune/tasks.h"

#include <array>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::tune {
namespace {

struct TaskEntry {
  const char* name;
  std::unique_ptr<Task> (*open)(const TaskOptions& options);
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

}  // namespace

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const TaskEntry& task : kTasks) names.emplace_back(task.name);
  return names;
}

std::unique_ptr<Task> open_task(const std::string& name, const TaskOptions& options) {
  if (!options.loss.empty() && name != kSentences)
    throw Error(ErrorCode::invalid_argument, Field("loss"), "chooses nothing for " + name,
                std::string("only ") + kSentences + " has several losses");
  for (const TaskEntry& task : kTasks)
    if (name == task.name)
      return nn::with_ringlet_errors(options.model.string(), [&] { return task.open(options); });
  throw Error(ErrorCode::invalid_argument, Field("task"), "\"" + name + "\" is not known",
              "use one of " + join(task_names()));
}

}  // namespace ringlet::tune
