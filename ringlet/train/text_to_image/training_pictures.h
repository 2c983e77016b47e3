// The picture files of a run: read from folders, held out, checked, and told apart from others.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "ringlet/data/control_signal.h"
#include "ringlet/data/folder_note.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/train/text_to_image/text_to_image_options.h"

namespace ringlet::train {

struct TrainingPictures {
  std::vector<data::Picture> instance;           ///< to learn from; each has a caption
  std::vector<data::Picture> validation;         ///< held out
  std::vector<data::Picture> validation_images;  ///< of a folder of their own
  std::size_t captions = 0;                      ///< pictures with a text file of their own
  std::string folder_rule;                       ///< how the folder was read
  std::vector<data::FolderNote> notes;           ///< what of it is not used
  std::vector<std::string> sets;                 ///< a line for each of several data sets
  std::vector<data::Picture> of_class;           ///< class pictures of data sets

  std::vector<data::Picture> all() const;  ///< to learn from and held out
};

/// Reads the folder or the data sets of TextToImageOptions. `seed` draws the variants of captions.
/// Throws Error(invalid_argument) for more held-out pictures than there are, and as
/// data::read_dataset.
TrainingPictures read_training_pictures(const TextToImageOptions& options, std::uint64_t seed);

/// Names, sizes and captions of pictures: what a resumed run must find unchanged. Their contents
/// are a setting of their own, which older checkpoints lack.
std::string fingerprint(const std::vector<data::Picture>& pictures);

/// SHA-256 of files that have been read anyway.
using FileHashes = std::map<std::filesystem::path, std::string>;

/// A hash of the contents of the pictures' files; those that `known` lacks are read for it.
std::string contents_of(const std::vector<data::Picture>& pictures, const FileHashes& known);

/// The contents of the pictures' mask files; "" where there are none.
std::string mask_contents(const std::vector<data::Picture>& pictures);

/// Names of given signals with the sizes of maps, as for pictures, and the contents of landmarks.
/// "" where signals are computed.
std::string control_fingerprint(const data::ControlSettings& settings,
                                const std::vector<data::Picture>& pictures);

/// The contents of given maps; "" where there are none.
std::string map_contents(const data::ControlSettings& settings,
                         const std::vector<data::Picture>& pictures);

/// The pictures' folders and captions under sd-scripts' keys, which other programs show. Only files
/// that tell everything keep them: see keep_metadata.
void describe_pictures(const TrainingPictures& pictures, io::Metadata& extra);

}  // namespace ringlet::train
