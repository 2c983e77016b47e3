// Files that describe several data sets of a run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "ringlet/data/dataset.h"

namespace ringlet::data {

/// The tables [[dataset]] of a TOML file, each with the values of `usual` for what it leaves out.
/// Keys are the options of describe(OptionList&, Dataset&) as the command line spells them, without
/// the dashes in front: "instance-images". Other parts of the file are not looked at. Throws
/// Error(invalid_argument) with file and line for an unknown key, which names the nearest one, a
/// value of another type, and values that contradict each other; Error(not_found | io | bad_format)
/// as read_located_toml.
std::vector<Dataset> read_dataset_tables(const std::filesystem::path& file, const Dataset& usual);

struct DatasetConfig {
  std::vector<Dataset> datasets;
  std::optional<std::int64_t> batch_size;  ///< the one that all data sets have; none = not said
};

/// kohya's dataset_config in TOML: [general], [[datasets]] and [[datasets.subsets]], of which the
/// lowest level wins, with the defaults that sd-scripts give: no aspect buckets, captions in
/// .caption, no subfolders. `usual` says the resolution, and whether a conditioning_data_dir holds
/// masks. Each subset is a data set. Every key has its effect or is refused by name with the way
/// out. Throws as read_dataset_tables.
DatasetConfig read_kohya_datasets(const std::filesystem::path& file, const Dataset& usual);

}  // namespace ringlet::data
