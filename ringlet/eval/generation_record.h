// What the generated pictures of a folder were made with, so that none is measured under the name
// of another model, adapter or setting.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace ringlet::eval {

/// The record's name in the folder of pictures.
inline constexpr const char* kGenerationFile = "generation.json";

/// What pictures depend on beside their seeds, which are in their names.
struct GenerationRecord {
  using Entries = std::vector<std::pair<std::string, std::string>>;
  Entries settings;  ///< model, adapters, steps, …: networks by name and hash of their weights
  Entries prompts;   ///< by the name of what is shown

  /// The settings, and one entry for all prompts: their number and a hash.
  Entries summary() const;
};

/// Takes a folder, which is made, for pictures of this record, and writes the record into it. A
/// folder that holds pictures must hold the same record, and an interrupted generation then
/// continues. Throws Error(mismatch) that names the first setting that differs, with both values,
/// or says that there are pictures without a record, and Error(bad_format | io).
void claim_folder(const std::filesystem::path& folder, const GenerationRecord& record);

}  // namespace ringlet::eval
