// Subject-driven generation: pictures are made where a model is named, and measured.
#pragma once

#include <string>
#include <vector>

#include "ringlet/core/option.h"
#include "ringlet/eval/subject_evaluation.h"
#include "ringlet/service/evaluation_pictures.h"

namespace ringlet::service {

/// Folders and files by name; "" = none.
struct SubjectRequest {
  std::string generated;          ///< folder of generated pictures, or of a folder per subject
  std::string reference;          ///< folder of real pictures, likewise
  std::string dino, clip, lpips;  ///< folders of networks; dino or clip is needed
  std::string captions;           ///< of caption accuracy, one a line
  std::string token;              ///< left out of prompts for CLIP-T
  std::string prior, drift_with, drift_without;  ///< folders of pictures
  /// Without a model the pictures are there already. Its folder is `generated`; its device is that
  /// of all networks.
  EvaluationPictures making{.samples = 4};
  std::string prompts;  ///< a published list by name, or a file
  std::string subject;  ///< takes the place of {} in prompts
};

/// All but the adapters, the device and the precision; those of the making under kMaking.
void describe(OptionList& list, SubjectRequest& request);

/// What can be refused before anything is read, values out of range included. Throws
/// Error(invalid_argument).
void check(const SubjectRequest& request);

struct SubjectResult {
  eval::Evaluation evaluation;
  std::vector<eval::SubjectPicture> generated;
};

/// Throws as check, SubjectGeneration and the functions of eval/subject_evaluation.h.
SubjectResult evaluate_subject(const SubjectRequest& request, const MakingObserver& observer = {});

}  // namespace ringlet::service
