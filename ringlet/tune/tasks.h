// One function per task; tasks.cpp has the table.
#pragma once

#include <memory>

#include "ringlet/tune/task.h"

namespace ringlet::tune {

std::unique_ptr<Task> causal_lm(const TaskOptions& options);
std::unique_ptr<Task> contrastive(const TaskOptions& options);
std::unique_ptr<Task> ctc(const TaskOptions& options);
std::unique_ptr<Task> image_classification(const TaskOptions& options);
std::unique_ptr<Task> question_answering(const TaskOptions& options);
std::unique_ptr<Task> recommendation(const TaskOptions& options);
std::unique_ptr<Task> sentence_similarity(const TaskOptions& options);
std::unique_ptr<Task> text_classification(const TaskOptions& options);

}  // namespace ringlet::tune
