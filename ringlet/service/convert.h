// Adapters turned into other programs' files, or into another form.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include <c10/core/ScalarType.h>

#include "ringlet/adapt/set/arithmetic.h"
#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/formats/adapter_writer.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::service {

/// How the adapters are written: as they are (several, or one at another strength than 1, are
/// combined), the nearest low ranks, or whole differences.
enum class AdapterForm { stored, low_rank, difference };

struct ConvertRequest {
  std::filesystem::path model;  ///< what the adapters are for; see open_adaptable
  pipeline::ModelFileOptions files;
  std::vector<pipeline::AdapterChoice> adapters;
  std::filesystem::path out;  ///< a file, or a folder for PEFT
  formats::AdapterFormat format = formats::AdapterFormat::ringlet;
  formats::MetadataLevel metadata = formats::MetadataLevel::minimum;
  AdapterForm form = AdapterForm::stored;
  adapt::LowRankGoal low_rank;            ///< of AdapterForm::low_rank: one of the two
  std::optional<at::ScalarType> storage;  ///< none = as read
};

/// All but the adapters, which are written otherwise on command lines.
void describe(OptionList& list, ConvertRequest& request);

/// The options' values by field, with "adapters" as a ModelRequest has them. Throws
/// Error(invalid_argument) for unknown fields, with the nearest name, and for values of another
/// type, and as check.
ConvertRequest convert_request_from_json(const Json& json);
Json to_json(const ConvertRequest& request);

/// Throws Error(invalid_argument) for values out of range, and for what cannot be asked for
/// together.
void check(const ConvertRequest& request);

/// Does the request. Returns how much the layers lose as low ranks, worst first, where that was
/// asked for. Throws as check, open_adaptable, load_adapters, adapt/set/arithmetic.h and
/// write_adapter.
std::optional<adapt::Approximation> convert(const ConvertRequest& request);

}  // namespace ringlet::service
