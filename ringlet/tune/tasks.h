// One function per task; tasks.cpp has the table.
#pragma once

#include <memory>

#include "ringlet/tune/task.h"

namespace ringlet::tune {

std::unique_ptr<train::Task> causal_lm(const TaskOptions& options, const train::RunOptions& run);
std::unique_ptr<train::Task> contrastive(const TaskOptions& options, const train::RunOptions& run);
std::unique_ptr<train::Task> ctc(const TaskOptions& options, const train::RunOptions& run);
std::unique_ptr<train::Task> image_classification(const TaskOptions& options,
                                                  const train::RunOptions& run);
std::unique_ptr<train::Task> question_answering(const TaskOptions& options,
                                                const train::RunOptions& run);
std::unique_ptr<train::Task> recommendation(const TaskOptions& options,
                                            const train::RunOptions& run);
std::unique_ptr<train::Task> sentence_similarity(const TaskOptions& options,
                                                 const train::RunOptions& run);
std::unique_ptr<train::Task> text_classification(const TaskOptions& options,
                                                 const train::RunOptions& run);

}  // namespace ringlet::tune
