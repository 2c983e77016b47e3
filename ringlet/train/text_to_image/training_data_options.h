// Options of the pictures of a run beyond their folder: buckets, captions, masks, several data
// sets.
#pragma once

#include <filesystem>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/data/aspect_buckets.h"
#include "ringlet/data/caption_operations.h"
#include "ringlet/data/dataset.h"
#include "ringlet/data/picture_mask.h"
#include "ringlet/train/text_to_image/loss_mask.h"

namespace ringlet::train {

struct TrainingDataOptions {
  data::BucketOptions buckets;
  data::CaptionOperations captions;
  std::filesystem::path metadata;  ///< lists the pictures of the folder; "" = all are used
  data::MaskSource masks = data::MaskSource::off;
  std::filesystem::path mask_images;  ///< folder of masks; "" = they lie beside the pictures
  MaskWeights mask;
  bool skip_bad_pictures = false;  ///< pictures that cannot be read are left out, with a warning
  /// In place of the one folder of the run. Of the options above they have their own.
  std::vector<data::Dataset> sets;

  bool any_class_set() const;
};

void describe(OptionList& list, TrainingDataOptions& options);

/// Gathers what is not usual of these options in one setting, "training data", with the data sets.
/// The rule of aspect buckets stays a setting of its own.
void complete_settings(Json& settings, const TrainingDataOptions& options);

/// Throws Error(invalid_argument) for what is wrong whatever the pictures and the model.
void check(const TrainingDataOptions& options);

}  // namespace ringlet::train
