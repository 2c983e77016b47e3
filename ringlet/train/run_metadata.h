// What of a training is told in the file of its adapter.
#pragma once

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/metadata_level.h"

namespace ringlet::train {

/// Takes out of a description what its level does not tell. "minimum" keeps of `training` numbers
/// and words that are ringlet's own, and of `extra` the keys that programs recognise the base by:
/// modelspec.* but the title, and ss_base_model_version, ss_v2 and ss_network_*. "none" keeps
/// neither, nor what the base is. What loading needs is never taken out.
void keep_metadata(adapt::AdapterFileInfo& info, adapt::MetadataLevel level);

}  // namespace ringlet::train
