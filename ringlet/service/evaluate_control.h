// Do pictures follow their control signals? They are made where a model is named, and measured.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ringlet/core/child_process.h"
#include "ringlet/core/option.h"
#include "ringlet/eval/control_evaluation.h"
#include "ringlet/service/evaluation_pictures.h"

namespace ringlet::service {

/// Folders and files by name; "" = none.
struct ControlRequest {
  data::ControlSignal kind = data::ControlSignal::canny;  ///< canny, segmentation or landmark
  std::string reference;  ///< the pictures that the signals were made from
  std::string generated;  ///< the generated ones, by the same names
  std::int64_t size = 0;  ///< of squares that both are brought to; 0 = the model's own
  data::CannyThresholds canny;
  std::string labels, found_labels;  ///< label maps: the true ones, another program's
  std::string segmenter;             ///< the folder of a network that finds labels
  bool labels_from_one = false;
  int classes = 0;                         ///< of label maps
  std::string landmarks, found_landmarks;  ///< the true ones, another program's
  std::string find_with;  ///< a command that finds labels or landmarks in the pictures
  /// Without a model the pictures are there already. Its folder is `generated`; its device is that
  /// of all networks.
  EvaluationPictures making{.samples = 3};
  std::string controlnet, control_images, prompt;
  double strength = 1.0;  ///< of the signal
};

/// All but the adapters, the device and the precision; those of the making under kMaking.
void describe(OptionList& list, ControlRequest& request);

/// What can be refused before anything is read: values out of range, what is missing, and
/// `find_with` where can_find() is false. Throws Error(invalid_argument).
void check(const ControlRequest& request);

/// Whether there is anything for `find_with` to find.
bool can_find(const ControlRequest& request);

/// How a program follows it. Either may be empty.
struct ControlObserver {
  MakingObserver making;
  StopChild stop;  ///< ends `find_with`
};

struct ControlResult {
  eval::Evaluation evaluation;
  std::vector<eval::ControlPair> pictures;  ///< with their references, where these are known
};

/// Throws as check, ControlGeneration and the functions of eval/control_evaluation.h, Error(io)
/// where `find_with` fails, and Error(cancelled).
ControlResult evaluate_control(const ControlRequest& request, const ControlObserver& observer = {});

}  // namespace ringlet::service
