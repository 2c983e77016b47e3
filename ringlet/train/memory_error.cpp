#include "ringlet/train/memory_error.h"

#include <string>
#include <vector>

#include "ringlet/core/text.h"

namespace ringlet::train {

Error memory_error(const Error& error, const RunOptions& options, const MemoryFigures& figures) {
  std::string message = error.message() + "; batches of " + std::to_string(options.batch_size);
  if (!figures.example_size.empty()) message += " at " + figures.example_size;
  if (figures.expected > 0) message += " need about " + human_bytes(figures.expected);
  if (figures.peak > 0) message += ", and " + human_bytes(figures.peak) + " were taken at the peak";
  std::vector<std::string> changes;
  if (figures.on_gpu)
    changes.emplace_back("close other programs that use the GPU (nvidia-smi lists them)");
  if (options.memory_limit == 0)
    changes.push_back("`memory_limit` with what is free, for example `memory_limit=" +
                      limit_text(figures.peak > 0 ? figures.peak : figures.expected) +
                      "`, chooses what saves memory");
  if (options.batch_size > 1) changes.emplace_back("use a smaller `batch_size`");
  if (!figures.example_size.empty()) changes.emplace_back("a smaller `resolution` needs less");
  changes.emplace_back("`gradient_checkpointing` takes time in place of memory");
  if (options.full()) changes.emplace_back("an adapter needs far less than `method=full`");
  return {error.code(), error.where(), message,
          join(changes, "; ") + "; a checkpoint that was written stays: `resume` continues it"};
}

}  // namespace ringlet::train
