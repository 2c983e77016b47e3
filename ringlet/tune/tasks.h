// One function per task; tasks.cpp has the table.
#pragma once

#include <memory>

#include "ringlet/tune/task.h"

namespace ringlet::tune {

std::unique_ptr<Task> contrastive(const TaskOptions& options);
std::unique_ptr<Task> image_classification(const TaskOptions& options);

}  // namespace ringlet::tune
