// Control signals of pictures (Zhang et al. 2023, ControlNet): edges, segmentations, landmarks and
// maps of any other kind, as pictures that a control network sees.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/option.h"
#include "ringlet/data/crop.h"
#include "ringlet/io/image.h"

namespace ringlet::data {

enum class ControlSignal { canny, segmentation, landmark, map };

inline constexpr std::array<std::pair<const char*, ControlSignal>, 4> kControlSignalNames = {
    {{"canny", ControlSignal::canny},
     {"segmentation", ControlSignal::segmentation},
     {"landmark", ControlSignal::landmark},
     {"map", ControlSignal::map}}};
const char* name_of(ControlSignal signal);

/// Canny's thresholds (1986) on the gradient's L1 norm, as OpenCV counts them.
struct CannyThresholds {
  double low = 100.0;
  double high = 200.0;
};

/// "canny_low" and "canny_high".
void describe(OptionList& list, CannyThresholds& thresholds);

/// White edges on black, from the three channels together: cv::Canny of the 8-bit RGB picture with
/// aperture 3, which is what ControlNet's users and the OFT protocol know.
io::Image canny_edges(const io::Image& image, CannyThresholds thresholds = {});

/// A class per pixel.
struct LabelMap {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::vector<std::uint8_t> labels;
};

/// Classes of segment_colours: the background, then one per colour name.
inline constexpr int kColourClasses = 13;

/// What a class of segment_colours is called, and the colour that it is drawn in.
struct ColourClass {
  const char* name;
  std::uint8_t red, green, blue;
};
const ColourClass& colour_class(int label);

/// A segmentation of drawings (icons, emoji) without a network: 0 is the background, which is what
/// has the border's usual colour and touches the border; every other pixel is of the class whose
/// colour is nearest in CIE L*a*b*, after a median of 5x5. Spots of less than 0.2 % of the picture
/// take the class that surrounds them. The same picture always gives the same map.
LabelMap segment_colours(const io::Image& image);

/// A label map in its classes' colours.
io::Image draw_segmentation(const LabelMap& map);

/// How the control pictures of a training set, or of `ringlet control make`, come about.
struct ControlSettings {
  ControlSignal signal = ControlSignal::canny;
  CannyThresholds canny = {};
  std::filesystem::path folder =
      {};  ///< given maps or landmarks, found by the pictures' names; may be
           ///< empty for canny and segmentation, which are then computed
};

/// The control picture of one square crop of `image`, in the crop's size. A given map is scaled to
/// the picture's size and cut at the same place; landmarks are moved with the crop. Throws
/// Error(not_found) that names the partner which a picture lacks, Error(mismatch) where a map has
/// other proportions than its picture, and as the readers do.
io::Image control_picture(const ControlSettings& settings, const std::filesystem::path& picture,
                          const io::Image& image, const Crop& crop);

/// The control picture of the whole picture, in its size.
io::Image control_picture(const ControlSettings& settings, const std::filesystem::path& picture,
                          const io::Image& image);

/// The file that a picture's signal is made from; nothing where the signal is computed, or where
/// there is no such file.
std::optional<std::filesystem::path> control_file(const ControlSettings& settings,
                                                  const std::filesystem::path& picture);

/// Reads the file of a given signal as control_picture does, without drawing anything; does nothing
/// where signals are computed. Throws as control_picture.
void check_control_file(const ControlSettings& settings, const std::filesystem::path& picture,
                        const io::Image& image);

/// The files of given signals, in the pictures' order; none where signals are computed. Throws as
/// check_control_files.
std::vector<std::filesystem::path> control_files(
    const ControlSettings& settings, const std::vector<std::filesystem::path>& pictures);

/// Throws Error(invalid_argument) that names the option when the signal can only be given, and no
/// folder is.
void check_signal_folder(const ControlSettings& settings, const Field& option);

/// Throws Error(invalid_argument) that names two pictures of one name, in different folders or of
/// different types: one signal's file would belong to both.
void check_picture_names(std::vector<std::filesystem::path> pictures);

/// Throws Error(not_found) for the first picture whose map or landmark file is missing, with how
/// many miss theirs, and as check_picture_names; does nothing where signals are computed.
void check_control_files(const ControlSettings& settings,
                         const std::vector<std::filesystem::path>& pictures);

}  // namespace ringlet::data
