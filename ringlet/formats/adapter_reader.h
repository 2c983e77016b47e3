// Adapter files of all programs into one AdapterSet.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "ringlet/adapt/set/adapter_file.h"

namespace ringlet::formats {

/// How a file was understood.
struct AdapterSummary {
  std::string dialect;                 ///< "ringlet", "PEFT", "diffusers", "kohya", …
  std::vector<std::string> decisions;  ///< axis, side, scale, in words
  std::map<std::string, int> methods;  ///< how many layers have which method
};

struct ReadAdapter {
  adapt::AdapterSet set;  ///< fp32, not attached, not trainable
  adapt::AdapterFileInfo info;
  AdapterSummary summary;
  /// Names that the file has for parameters that were taken as they are, by ringlet's full names.
  std::map<std::string, std::string> names;
};

/// Reads an adapter of any program for these networks: ringlet's own files, PEFT's folders (also
/// one with a folder per component), diffusers, kohya, LyCORIS, cloneofsimo. Nothing of a file is
/// trusted, and nothing is guessed: what is not understood is an error before any weight changes.
/// Throws as adapt::load_adapter, and Error(mismatch) that names tensors for layers that the
/// networks do not have.
ReadAdapter read_adapter(const std::filesystem::path& path, const adapt::Components& components,
                         const std::string& expected_base_hash = {});

}  // namespace ringlet::formats
