#include "ringlet/eval/control_evaluation.h"

#include <algorithm>
#include <map>
#include <optional>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/data/crop.h"
#include "ringlet/eval/control_metrics.h"
#include "ringlet/io/image.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

std::map<std::string, fs::path> files_by_name(const fs::path& folder,
                                              const std::vector<std::string>& extensions) {
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::not_found, folder.string(), "the folder does not exist");
  std::map<std::string, fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (std::ranges::find(extensions, entry.path().extension().string()) != extensions.end())
      files.emplace(entry.path().stem().string(), entry.path());
  if (files.empty())
    throw Error(ErrorCode::not_found, folder.string(), "there is nothing to evaluate in it",
                "looked for " + join(extensions));
  return files;
}

/// The name without the sample's number: "dog-s2" and "dog_s2" are samples of "dog".
std::string base_name(const std::string& name) {
  const std::size_t letter = name.find_last_not_of("0123456789");
  const bool sample = letter != std::string::npos && letter >= 2 && letter + 1 < name.size() &&
                      name[letter] == 's' && (name[letter - 1] == '-' || name[letter - 1] == '_');
  return sample ? name.substr(0, letter - 1) : name;
}

std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> shown(
      names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size())));
  return std::to_string(names.size()) + ": " + join(shown) + (names.size() > kShown ? ", …" : "");
}

/// Both pictures of a pair; with a size, their squares.
std::pair<io::Image, io::Image> read_pair(const ControlPair& pair, std::int64_t size) {
  io::Image reference = io::read_image(pair.reference), generated = io::read_image(pair.generated);
  if (size > 0) {
    reference = data::square_crop(reference, size).image;
    generated = data::square_crop(generated, size).image;
  }
  if (reference.width != generated.width || reference.height != generated.height)
    throw Error(ErrorCode::mismatch, pair.generated.string(),
                "is " + std::to_string(generated.width) + "x" + std::to_string(generated.height) +
                    ", its reference " + std::to_string(reference.width) + "x" +
                    std::to_string(reference.height),
                "give --size N to bring both to squares of N pixels");
  return {std::move(reference), std::move(generated)};
}

data::LabelMap read_labels(const fs::path& path, bool from_one) {
  const io::Image image = io::read_image(path);
  data::LabelMap map{image.width, image.height, {}};
  for (std::size_t i = 0; i < image.pixels.size(); i += 3) {
    if (image.pixels[i] != image.pixels[i + 1] || image.pixels[i] != image.pixels[i + 2])
      throw Error(ErrorCode::bad_format, path.string(), "is coloured, not a map of labels",
                  "label maps are grey pictures whose value is the class");
    const std::uint8_t label = image.pixels[i];
    map.labels.push_back(from_one ? static_cast<std::uint8_t>(label == 0 ? 255 : label - 1)
                                  : label);
  }
  return map;
}

/// mIoU, mAcc and aAcc of the whole set, their intervals over references; aAcc of each picture for
/// pairwise comparison. `confusions` are those of the pairs.
Evaluation segmentation_scores(const std::vector<ControlPair>& pairs,
                               const std::vector<Confusion>& confusions) {
  std::map<std::string, Confusion> sums;
  std::vector<Sample> accuracies;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto [sum, is_first] = sums.try_emplace(pairs[i].unit, confusions[i]);
    if (!is_first) sum->second += confusions[i];
    accuracies.push_back({pairs[i].id, pairs[i].unit, confusions[i].scores().pixel_accuracy});
  }
  std::vector<const Confusion*> units;
  for (const auto& [unit, sum] : sums) units.push_back(&sum);
  const auto of_set = [&](double Confusion::Scores::*score) {
    Interval interval = bootstrap(units.size(), [&](const std::vector<std::size_t>& drawn) {
      Confusion sum = *units[drawn.front()];
      for (std::size_t i = 1; i < drawn.size(); ++i) sum += *units[drawn[i]];
      return sum.scores().*score;
    });
    interval.samples = pairs.size();
    return interval;
  };
  Evaluation evaluation;
  evaluation.kind = "control segmentation";
  evaluation.metrics = {{"mIoU", true, of_set(&Confusion::Scores::mean_iou), {}},
                        {"mAcc", true, of_set(&Confusion::Scores::mean_accuracy), {}},
                        {"aAcc", true, of_set(&Confusion::Scores::pixel_accuracy), {}},
                        measured("aAcc of a picture", true, std::move(accuracies))};
  return evaluation;
}

}  // namespace

std::vector<ControlPair> pair_by_name(const fs::path& reference, const fs::path& generated,
                                      const std::vector<std::string>& extensions,
                                      std::vector<std::string>* missing) {
  const auto wanted = files_by_name(reference, extensions);
  const auto made = files_by_name(generated, extensions);
  std::vector<ControlPair> pairs;
  std::vector<std::string> lonely, unused;
  std::map<std::string, int> used;
  for (const auto& [name, path] : made) {
    const auto whole = wanted.find(name);
    const auto partner = whole != wanted.end() ? whole : wanted.find(base_name(name));
    if (partner == wanted.end()) {
      lonely.push_back(name);
      continue;
    }
    ++used[partner->first];
    pairs.push_back({name, partner->first, partner->second, path});
  }
  for (const auto& [name, path] : wanted)
    if (!used.contains(name)) unused.push_back(name);
  if (!lonely.empty())
    throw Error(ErrorCode::mismatch, generated.string(),
                "files without a reference in " + reference.string() + " (" + some_of(lonely) + ")",
                "partners have the same name, or NAME-s1, NAME-s2 for several samples");
  if (missing != nullptr)
    *missing = std::move(unused);
  else if (!unused.empty())
    throw Error(ErrorCode::mismatch, reference.string(),
                "files of which nothing was generated (" + some_of(unused) + ")",
                "a mean over what is left would flatter; take them out of the folder to do so");
  return pairs;
}

Evaluation evaluate_edges(const std::vector<ControlPair>& pairs, data::CannyThresholds thresholds,
                          std::int64_t size) {
  std::vector<Sample> iou, f1;
  for (const ControlPair& pair : pairs) {
    const auto [reference, generated] = read_pair(pair, size);
    const EdgeAgreement agreement = edge_agreement(reference, generated, thresholds);
    iou.push_back({pair.id, pair.unit, agreement.iou});
    f1.push_back({pair.id, pair.unit, agreement.f1});
  }
  Evaluation evaluation;
  evaluation.kind = "control canny";
  evaluation.settings = {
      {"thresholds", exact_number(thresholds.low) + ", " + exact_number(thresholds.high)}};
  evaluation.metrics = {measured("IoU", true, std::move(iou)), measured("F1", true, std::move(f1))};
  return evaluation;
}

Evaluation evaluate_colour_segmentation(const std::vector<ControlPair>& pairs, std::int64_t size) {
  std::vector<Confusion> confusions;
  for (const ControlPair& pair : pairs) {
    const auto [reference, generated] = read_pair(pair, size);
    confusions.emplace_back(data::kColourClasses)
        .add(data::segment_colours(reference), data::segment_colours(generated));
  }
  return segmentation_scores(pairs, confusions);
}

Evaluation evaluate_label_maps(const std::vector<ControlPair>& pairs, const LabelReading& reading) {
  std::vector<Confusion> confusions;
  for (const ControlPair& pair : pairs)
    confusions.emplace_back(reading.classes)
        .add(read_labels(pair.reference, reading.from_one),
             read_labels(pair.generated, reading.from_one));
  return segmentation_scores(pairs, confusions);
}

Evaluation evaluate_segmentation(const std::vector<ControlPair>& pairs, const Segmenter& segmenter,
                                 const LabelReading& reading) {
  std::vector<Confusion> confusions;
  for (const ControlPair& pair : pairs) {
    const data::LabelMap truth = read_labels(pair.reference, reading.from_one);
    confusions.emplace_back(segmenter.classes())
        .add(truth, segmenter.labels(io::read_image(pair.generated), truth.width, truth.height));
  }
  return segmentation_scores(pairs, confusions);
}

Evaluation evaluate_landmarks(const std::vector<ControlPair>& pairs,
                              const std::vector<std::string>& missing) {
  std::vector<Sample> errors;
  for (const ControlPair& pair : pairs) {
    const auto truth = data::read_landmarks(pair.reference);
    const auto found = data::read_landmarks(pair.generated);
    if (truth.size() != found.size())
      throw Error(ErrorCode::mismatch, pair.generated.string(),
                  "has " + std::to_string(found.size()) + " points, its reference " +
                      std::to_string(truth.size()));
    errors.push_back({pair.id, pair.unit, landmark_error(truth, found)});
  }
  Evaluation evaluation;
  evaluation.kind = "control landmark";
  evaluation.metrics = {measured("error in pixels", false, std::move(errors))};
  if (!missing.empty())
    evaluation.notes.push_back("nothing was detected in " + some_of(missing) +
                               "; they are in no mean, which flatters a model that fails");
  return evaluation;
}

}  // namespace ringlet::eval
