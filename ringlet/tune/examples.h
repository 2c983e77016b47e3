// Pieces that several tasks share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/eval/feature_network.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/tune/task.h"

namespace ringlet::tune {

/// Examples to learn from and examples to measure on.
template <class Example>
struct Split {
  std::vector<Example> train, held_out;
};

/// `data`, and `eval_data` or every tenth of `data`. Throws Error(invalid_argument) when nothing is
/// left to learn from or to measure on.
template <class Example, class Read>
Split<Example> read_split(const TaskOptions& options, const Read& read) {
  Split<Example> split{read(options.data), {}};
  if (!options.eval_data.empty()) {
    split.held_out = read(options.eval_data);
  } else {
    constexpr std::size_t kEvery = 10;
    std::vector<Example> kept;
    for (std::size_t i = 0; i < split.train.size(); ++i)
      (i % kEvery == kEvery - 1 ? split.held_out : kept).push_back(std::move(split.train[i]));
    split.train = std::move(kept);
  }
  if (split.train.empty() || split.held_out.empty())
    throw Error(ErrorCode::invalid_argument, options.data.string(),
                "there are too few examples to train and to evaluate on",
                "give at least ten, or `eval_data`");
  return split;
}

/// A folder's weights in whichever layout they were published; with TaskOptions::random_seed random
/// ones, where the folder has none.
class FolderWeights {
 public:
  /// `kind` is the network's (models::network_type). Throws Error(not_found) that says what is
  /// missing.
  FolderWeights(const TaskOptions& options, const std::string& kind, const Json& config);

  const models::PublishedLayout& layout() const { return layout_; }

  bool at_random() const { return random_ != nullptr; }

  /// Whether there is a tensor of exactly this network name and shape, so that no new head is
  /// needed. True for all where the network begins at random.
  bool has(const std::string& name, const nn::Shape& shape) const;

  /// The network's tensors, with heads that are replaced or dropped as CompletedStore has them.
  std::shared_ptr<const nn::TensorStore> store(std::vector<std::string> heads = {},
                                               std::vector<std::string> dropped = {});

  /// The layers that the last store has made so far (Task::made_layers).
  std::map<std::string, std::string> made_layers() const;

 private:
  models::PublishedLayout layout_;
  std::shared_ptr<const nn::TensorStore> published_;  ///< null where there are no weights
  std::shared_ptr<const nn::TensorStore> random_;
  std::shared_ptr<const nn::CompletedStore> completed_;
};

/// The config for a folder of transformers' class `architecture`, which older ones do not name.
Json with_class(Json config, const std::string& kind, const char* architecture);

/// The folder's config.json. Throws Error(not_found) that names what the task takes.
Json read_config(const TaskOptions& options, const char* known);

/// The contents of those of these files that the folder has.
std::map<std::string, std::string> folder_files(const std::filesystem::path& folder,
                                                std::span<const char* const> names);

/// What a resumed run must find unchanged of its data: a file's content, or of a
/// folder the names and contents of what tasks read in it. Of pictures names and sizes: their
/// contents are hashed where they are decoded anyway (data::check_pictures). "" for no path.
std::string fingerprint(const std::filesystem::path& data);

/// Pictures as the network wants them, [1, 3, h, w], decoded once while they fit into memory.
class PreparedPictures {
 public:
  explicit PreparedPictures(eval::Preprocessing how) : how_(how) {}
  at::Tensor batch(const std::vector<std::filesystem::path>& files, at::Device device) const;

 private:
  eval::Preprocessing how_;
  mutable std::map<std::filesystem::path, at::Tensor> kept_;
  mutable std::size_t bytes_ = 0;
};

/// Calls `act` with the numbers of every `size` examples.
template <class Act>
void in_batches(std::size_t count, std::size_t size, const Act& act) {
  for (std::size_t begin = 0; begin < count; begin += size) {
    std::vector<std::size_t> rows;
    for (std::size_t i = begin; i < std::min(count, begin + size); ++i) rows.push_back(i);
    act(rows);
  }
}

}  // namespace ringlet::tune
