// Control metrics over a set of pictures.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ringlet/data/control_signal.h"
#include "ringlet/eval/evaluation.h"
#include "ringlet/eval/segmenter.h"

namespace ringlet::eval {

/// A generated picture (or what a detector found in it) and what it should follow.
struct ControlPair {
  std::string id;
  std::string unit;  ///< the reference's name
  std::filesystem::path reference;
  std::filesystem::path generated;
};

/// The name without the sample's number: "dog-s2" and "dog_s2" are samples of "dog"; other names as
/// they are.
std::string reference_name(const std::string& name);

/// Files of a kind in a folder.
struct FilesIn {
  std::filesystem::path folder;
  std::vector<std::string> extensions;  ///< ".png"; upper case is found as well
};

/// Files of two folders with the same names; a generated "NAME-sN" or "NAME_sN" is the N-th sample
/// of NAME. Throws Error(not_found) for a folder without such files, and Error(mismatch) for two
/// files of one name, and one that counts and names files without a partner on either side.
std::vector<ControlPair> pair_by_name(const FilesIn& reference, const FilesIn& generated);

/// Known pairs with other references, label maps or landmarks: those that have the unit's name. The
/// generated files need not be there yet. Throws as pair_by_name.
std::vector<ControlPair> with_references(std::vector<ControlPair> pairs, const FilesIn& reference);

/// Known pairs with what was found in the generated pictures in their place, under their names;
/// what belongs to other pictures is left alone. Throws Error(not_found | mismatch) for pictures of
/// which nothing was found.
std::vector<ControlPair> with_found(std::vector<ControlPair> pairs, const FilesIn& found);

/// C2I: Canny edges of both pictures, brought to `size` pixels a side (0 = they must be alike).
Evaluation evaluate_edges(const std::vector<ControlPair>& pairs, data::CannyThresholds thresholds,
                          std::int64_t size);

/// S2I with the deterministic segmentation of drawings for both pictures.
Evaluation evaluate_colour_segmentation(const std::vector<ControlPair>& pairs, std::int64_t size);

/// How the numbers of label maps are meant.
struct LabelReading {
  int classes = 150;
  /// ADE20K's annotations: 0 is nothing and ignored, and the classes count from 1.
  bool from_one = false;
  /// Both sides are brought to the centre squares of so many pixels that generated pictures show; 0
  /// = they are compared as they are.
  std::int64_t size = 0;
};

/// S2I with given label maps on both sides, PNGs whose stored number is the class; 255 is ignored.
/// `reading` is how the true ones are meant: found classes count from 0, as segmenters have it.
Evaluation evaluate_label_maps(const std::vector<ControlPair>& pairs, const LabelReading& reading);

/// S2I as the protocol has it: `pairs` are true label maps and generated pictures, in which the
/// network finds its classes; maps are compared at the true one's size, or at reading.size.
Evaluation evaluate_segmentation(const std::vector<ControlPair>& pairs, const Segmenter& segmenter,
                                 const LabelReading& reading);

/// Whose pixels landmarks are counted in.
struct LandmarkPixels {
  /// Both sides' points are moved with the squares of so many pixels that their pictures are
  /// brought to; 0 = all points are in the generated picture's pixels already.
  std::int64_t size = 0;
  /// The pictures that the landmarks are of: each pair's reference and generated picture, by id.
  std::vector<ControlPair> pictures = {};
};

/// L2I: `pairs` are true landmark files and generated pictures, of which `found` holds what a
/// detector saw, under the picture's name. No file, or one without points, means that nothing was
/// detected: a metric of its own counts that, the error is over the others. Throws Error(mismatch)
/// for found landmarks of no picture, other numbers of points and a pair whose pictures are not
/// given, and Error(not_found) where nothing was detected at all.
Evaluation evaluate_landmarks(const std::vector<ControlPair>& pairs, const FilesIn& found,
                              const LandmarkPixels& pixels = {});

}  // namespace ringlet::eval
