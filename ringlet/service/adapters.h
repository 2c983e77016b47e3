// Adapters that a model is opened with: read, at their strengths, and with the control encoder that
// one of them may bring.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/adapt/set/targets.h"
#include "ringlet/pipeline/control.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::service {

struct LoadedAdapters {
  std::vector<adapt::AdapterSet> sets;
  std::vector<adapt::AdapterFileInfo> infos;  ///< of the files, in the same order
};

/// Loads adapters of any program for a model and sets their strengths; they are not attached.
/// `model_hash` and `model_kind`, for messages, may be empty. Logs how each was understood. Throws
/// as formats::read_adapter, with file and kind in the message.
LoadedAdapters load_adapters(const adapt::Components& components,
                             const std::vector<pipeline::AdapterChoice>& choices,
                             const std::string& model_hash, const std::string& model_kind = {});
LoadedAdapters load_adapters(const pipeline::TextToImageModel& model,
                             const std::vector<pipeline::AdapterChoice>& choices,
                             const std::string& model_hash);

/// The one file among them that holds a control encoder, or null. Throws Error(invalid_argument)
/// when there are several.
const adapt::AdapterFileInfo* with_control(const LoadedAdapters& adapters);

/// Puts the control encoder that one of the adapters holds into what is written of them. Throws as
/// with_control.
void keep_control(const LoadedAdapters& adapters, adapt::AdapterFileInfo& info);

/// The signal that the encoder of an adapter's file learnt to follow, such as "canny", or "" where
/// the file does not say it.
std::string learnt_signal(const adapt::AdapterFileInfo& info);

/// Warns when an encoder that learnt to follow `learnt` is shown another signal; "" is not known.
void check_signal(const std::string& learnt, const std::string& signal);

/// The ControlNet of this folder, or where that is empty the encoder in an adapter's file, or
/// nothing. Throws as with_control,
/// TextToImageModel::open_control and control_from_tensors.
std::unique_ptr<pipeline::ControlNetwork> control_network(const pipeline::TextToImageModel& model,
                                                          const LoadedAdapters& adapters,
                                                          const std::filesystem::path& controlnet);

std::vector<const adapt::AdapterSet*> pointers_to(const std::vector<adapt::AdapterSet>& sets);

/// "name:1, other:0.5".
std::string describe_adapters(const std::vector<pipeline::AdapterChoice>& choices);

}  // namespace ringlet::service
