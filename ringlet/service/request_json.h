// Requests as JSON objects, from the descriptions of their options.
#pragma once

#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/nn/device.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/service/json_fields.h"

namespace ringlet::service {

/// Reads the options' values from the fields of their names, and checks them. A list of texts may
/// also be a single one. Throws Error(invalid_argument) that names the field for one that is needed
/// and not there, for a value of another type and as OptionList::check; Error(internal) for a
/// written value that may be given several times or is not a string in JSON.
void read_options(JsonFields& fields, const OptionList& list);

/// All values but those that are not set: null, "" and empty lists.
Json set_values(const OptionList& list);

/// "device" and "precision", the device first: it says which precision is usual. Throws as
/// nn::select_device and nn::select_precision.
void read_device(JsonFields& fields, pipeline::LoadOptions& load, nn::Work work);
void write_device(Json& json, const pipeline::LoadOptions& load);

/// "adapters": [{"file", "strength", "blocks": {PATTERN: FACTOR}}], of which "file" is needed.
void read_adapters(JsonFields& fields, std::vector<pipeline::AdapterChoice>& adapters);
void write_adapters(Json& json, const std::vector<pipeline::AdapterChoice>& adapters);

}  // namespace ringlet::service
