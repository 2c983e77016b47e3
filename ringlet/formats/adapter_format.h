// The formats that adapters are written in.
#pragma once

#include <array>
#include <utility>

#include "ringlet/formats/adapter_names.h"

namespace ringlet::formats {

enum class AdapterFormat { ringlet, peft, diffusers, kohya, lycoris, comfyui };

inline constexpr std::array<std::pair<const char*, AdapterFormat>, 6> kAdapterFormatNames = {
    {{"ringlet", AdapterFormat::ringlet},
     {"peft", AdapterFormat::peft},
     {"diffusers", AdapterFormat::diffusers},
     {"kohya", AdapterFormat::kohya},
     {"lycoris", AdapterFormat::lycoris},
     {"comfyui", AdapterFormat::comfyui}}};

const char* name_of(AdapterFormat format);  ///< "peft"

/// Who names the layers in a format of another program. LyCORIS' methods live under kohya's names,
/// which is where programs look for them.
Naming naming_of(AdapterFormat format);

}  // namespace ringlet::formats
