// What a run on pictures is going to do, for people to read before it starts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/data/folder_note.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "ringlet/train/task.h"
#include "ringlet/train/text_to_image/class_pictures.h"
#include "ringlet/train/text_to_image/picture_buckets.h"
#include "ringlet/train/text_to_image/text_to_image_options.h"
#include "ringlet/train/text_to_image/training_pictures.h"

namespace ringlet::train {

/// A caption or prompt that is too long for the text encoder.
struct CutCaption {
  std::string where;      ///< the caption's file, or a field of the options
  bool is_field = false;  ///< which of them
  pipeline::CutPrompt text;
};

struct TextToImagePlan {
  std::string model_kind;
  std::string folder_rule;
  std::size_t pictures = 0;
  std::size_t captions = 0;        ///< pictures with a text file of their own
  std::size_t validation = 0;      ///< pictures held out, which are not among `pictures`
  std::size_t class_found = 0;     ///< class pictures in their folder
  std::size_t class_pictures = 0;  ///< of them, those that are used: class_count at most
  std::size_t class_to_make = 0;
  std::vector<data::FolderNote> notes;        ///< what of the pictures' folder is not used
  std::vector<data::FolderNote> class_notes;  ///< the same of the class pictures'
  std::vector<CutCaption> too_long;           ///< each caption and prompt once
  std::vector<std::pair<std::string, std::int64_t>> examples;  ///< final captions, tokens used
  std::vector<std::string> sets;                ///< a line for each of several data sets
  std::size_t variants = 0;                     ///< of captions, where there are several
  std::size_t masks = 0;                        ///< pictures with one
  std::vector<std::filesystem::path> left_out;  ///< pictures that cannot be read
  BucketCounts buckets;                         ///< what an epoch shows, by size
  PictureSize resolution;
  std::int64_t control_parameters = 0;  ///< of a control network
};

/// All but what concerns a control network. Marks the prompts that are too long as told
/// (newly_cut).
TextToImagePlan make_plan(const TextToImageOptions& options,
                          const pipeline::TextToImageModel& model, const TrainingPictures& pictures,
                          const ClassPictures& class_pictures);

/// The captions that pictures show, with their variants.
std::size_t caption_count(const std::vector<data::Picture>& pictures);

/// As Task::plan_lines and Task::plan_json.
Lines lines_of(const TextToImagePlan& plan, const TextToImageOptions& options,
               const Spelling& option);
Json to_json(const TextToImagePlan& plan, const Spelling& option);

}  // namespace ringlet::train
