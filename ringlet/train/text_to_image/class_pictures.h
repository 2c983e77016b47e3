// Class pictures of prior preservation (DreamBooth, Ruiz et al. 2023): found in a folder, and made
// by the model where some are missing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ringlet/data/folder_note.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::train {

struct ClassPictures {
  std::vector<data::Picture> pictures;  ///< the first by name, as many as are wanted at most
  std::size_t found = 0;                ///< in the folder
  std::vector<data::FolderNote> notes;  ///< what of the folder is not used
};

/// The pictures of a folder, which need not exist, with the class prompt as their caption.
ClassPictures find_class_pictures(const std::filesystem::path& folder, std::size_t wanted,
                                  const std::string& prompt);

/// Makes `count` pictures of `request`, class-00001.png and so on: of the numbers that the folder
/// lacks the first ones. A picture's seed belongs to its number, so that one that is made again is
/// the same. `progress` is called after each; Error(cancelled) when it returns false, and those
/// made so far are kept.
void make_class_pictures(const pipeline::TextToImageModel& model, pipeline::GenerateRequest request,
                         const std::filesystem::path& folder, std::size_t count, std::uint64_t seed,
                         const std::function<bool(std::size_t done)>& progress);

}  // namespace ringlet::train
