// One of the data sets of a run: a folder of pictures with its own captions, repeats and sizes.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/data/aspect_buckets.h"
#include "ringlet/data/caption_operations.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/data/picture_mask.h"

namespace ringlet::data {

struct Dataset {
  std::filesystem::path folder;        ///< of the pictures to learn
  std::filesystem::path class_folder;  ///< or of class pictures, for prior preservation
  std::string prompt;                  ///< caption of pictures without one
  std::string class_prompt;            ///< the same of class pictures
  std::filesystem::path metadata;      ///< a metadata file that lists the pictures; "" = none
  std::string caption_extension;       ///< of caption files; "" = .txt and .caption
  bool subfolders = true;              ///< of the folder are searched
  std::int64_t repeats = 1;
  PictureSize resolution;  ///< empty = the model's own
  bool random_crop = false, flip = false;
  double caption_dropout = 0.0;
  BucketOptions buckets;
  CaptionOperations captions;
  MaskSource masks = MaskSource::off;
  std::filesystem::path mask_images;  ///< folder of masks; "" = they lie beside the pictures

  bool is_class() const { return !class_folder.empty(); }
  const std::filesystem::path& pictures() const { return is_class() ? class_folder : folder; }
};

/// Whether pictures are cut at random places.
inline constexpr std::array<std::pair<const char*, bool>, 3> kCropPlaceNames = {
    {{"centre", false}, {"center", false}, {"random", true}}};

/// Everything that a data set can say, under the names that it has as an option of a run.
void describe(OptionList& list, Dataset& dataset);

/// The side of squares, "512", as the value of an option.
WrittenValue square_size(std::string field, PictureSize& size);

/// Everything about a data set that is wrong whatever its pictures. Throws Error(invalid_argument).
void check(const Dataset& dataset);

/// What a resumed run must repeat of it; neither folders nor what is the usual.
Json settings_of(const Dataset& dataset);

/// Its pictures with captions, repeats and masks, which `use` holds. Masks that are used are not
/// among the notes. Throws as read_picture_folder and read_metadata; Error(invalid_argument) for a
/// picture without a caption, and Error(not_found) for one that a metadata file names in vain.
PictureFolder read_dataset(const Dataset& dataset);

}  // namespace ringlet::data
