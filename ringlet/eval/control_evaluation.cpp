#include "ringlet/eval/control_evaluation.h"

#include <algorithm>
#include <map>
#include <set>

#include "ringlet/core/error.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/core/text.h"
#include "ringlet/data/crop.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/eval/control_metrics.h"
#include "ringlet/eval/generation_record.h"
#include "ringlet/io/image.h"
#include "ringlet/io/label_png.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

std::map<std::string, fs::path> files_by_name(const FilesIn& in) {
  if (!fs::is_directory(in.folder))
    throw Error(ErrorCode::not_found, in.folder.string(), "the folder does not exist");
  std::map<std::string, fs::path> files;
  data::NotedFiles noted;
  for (const auto& entry : fs::directory_iterator(in.folder)) {
    const fs::path& path = entry.path();
    if (path.filename() == kGenerationFile) continue;  // what pictures were made with
    if (data::is_of_other_program(path)) continue;
    if (data::is_unread_picture(path)) noted[data::NoteKind::unread_picture].push_back(path);
    if (std::ranges::find(in.extensions, data::lower_extension(path)) == in.extensions.end())
      continue;
    const auto [other, is_new] = files.emplace(path.stem().string(), path);
    if (!is_new)
      throw Error(ErrorCode::mismatch, in.folder.string(),
                  "has two files of one name: " + other->second.filename().string() + " and " +
                      path.filename().string(),
                  "keep one and remove the other");
  }
  data::log_notes(data::make_notes(noted, in.folder), in.folder);
  if (files.empty())
    throw Error(ErrorCode::not_found, in.folder.string(), "there is nothing to evaluate in it",
                "looked for " + join(in.extensions));
  return files;
}

std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> shown(
      names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size())));
  return std::to_string(names.size()) + ": " + join(shown) + (names.size() > kShown ? ", …" : "");
}

void refuse_lonely(const std::vector<std::string>& names, const fs::path& made,
                   const fs::path& references) {
  if (names.empty()) return;
  throw Error(ErrorCode::mismatch, made.string(),
              "files without a reference in " + references.string() + " (" + some_of(names) + ")",
              "matching files have the same name, or NAME-s1, NAME-s2 for several samples");
}

void refuse_unused(const std::map<std::string, fs::path>& wanted,
                   const std::vector<ControlPair>& pairs, const fs::path& references) {
  std::set<std::string> used;
  for (const ControlPair& pair : pairs) used.insert(pair.unit);
  std::vector<std::string> unused;
  for (const auto& [name, path] : wanted)
    if (!used.contains(name)) unused.push_back(name);
  if (!unused.empty())
    throw Error(ErrorCode::mismatch, references.string(),
                "references without a generated picture (" + some_of(unused) + ")",
                "a mean over the rest would be biased; to evaluate without them, remove them from "
                "the folder");
}

/// Puts the files of a name in the place of one side of pairs; returns the names that have none.
std::vector<std::string> exchange(std::vector<ControlPair>& pairs,
                                  const std::map<std::string, fs::path>& files,
                                  std::string ControlPair::*name, fs::path ControlPair::*side) {
  std::vector<std::string> missing;
  for (ControlPair& pair : pairs) {
    const auto file = files.find(pair.*name);
    if (file == files.end())
      missing.push_back(pair.*name);
    else
      pair.*side = file->second;
  }
  return missing;
}

/// A picture, or with a size its centre square.
io::Image read_square(const fs::path& file, std::int64_t size) {
  io::Image image = io::read_image(file);
  return size > 0 ? data::covering_crop(image, PictureSize::square(size)).image : image;
}

/// Both pictures of a pair; with a size, their squares. Samples of a reference follow each other:
/// it is read once for all of them.
class PairReader {
 public:
  explicit PairReader(std::int64_t size) : size_(size) {}

  void read(const ControlPair& pair) {
    if (pair.reference != file_) reference_ = read_square(pair.reference, size_);
    file_ = pair.reference;
    generated_ = read_square(pair.generated, size_);
    if (reference_.width != generated_.width || reference_.height != generated_.height)
      throw Error(ErrorCode::mismatch, pair.generated.string(),
                  "is " + std::to_string(generated_.width) + "x" +
                      std::to_string(generated_.height) + ", its reference " +
                      std::to_string(reference_.width) + "x" + std::to_string(reference_.height),
                  "give `size=N` to bring both to squares of N pixels");
  }

  const io::Image& reference() const { return reference_; }
  const io::Image& generated() const { return generated_; }

 private:
  std::int64_t size_;
  fs::path file_;
  io::Image reference_, generated_;
};

constexpr std::uint16_t kIgnored = 255;

data::LabelMap read_labels(const fs::path& path, bool from_one) {
  const io::StoredNumbers stored = io::read_stored_numbers(path);
  data::LabelMap map{stored.width, stored.height, {}};
  map.labels.reserve(stored.values.size());
  for (std::uint16_t label : stored.values) {
    if (label > kIgnored)
      throw Error(ErrorCode::unsupported, path.string(),
                  "has the label " + std::to_string(label) + "; classes are 0 to 254",
                  "255 means ignored");
    if (from_one && label != kIgnored)
      label = static_cast<std::uint16_t>(label == 0 ? kIgnored : label - 1);
    map.labels.push_back(static_cast<std::uint8_t>(label));
  }
  return map;
}

/// The centre square of a map in size x size pixels, each of which takes the label at its middle.
data::LabelMap square_labels(const data::LabelMap& map, std::int64_t size) {
  if (size == 0) return map;
  const std::int64_t side = std::min(map.width, map.height);
  const std::int64_t left = (map.width - side) / 2, top = (map.height - side) / 2;
  const auto middle = [&](std::int64_t pixel) { return (2 * pixel + 1) * side / (2 * size); };
  data::LabelMap square{size, size, {}};
  square.labels.reserve(static_cast<std::size_t>(size * size));
  for (std::int64_t y = 0; y < size; ++y)
    for (std::int64_t x = 0; x < size; ++x)
      square.labels.push_back(
          map.labels[static_cast<std::size_t>((top + middle(y)) * map.width + left + middle(x))]);
  return square;
}

std::string hash_of_references(const std::vector<ControlPair>& pairs) {
  std::vector<fs::path> files;
  for (const ControlPair& pair : pairs) files.push_back(pair.reference);
  return hash_of_files(std::move(files));
}

std::string size_text(std::int64_t size) {
  return size == 0 ? "as it is" : "squares of " + std::to_string(size);
}

/// mIoU, mAcc and aAcc of the whole set, their intervals over references; aAcc of each picture for
/// pairwise comparison. `confusions` are those of the pairs; pictures without a pixel that counts
/// are left out, with a note.
Evaluation segmentation_scores(const std::vector<ControlPair>& pairs,
                               const std::vector<Confusion>& confusions) {
  std::map<std::string, Confusion> sums;
  std::vector<Sample> accuracies;
  std::vector<std::string> ignored;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (confusions[i].pixels() == 0) {
      ignored.push_back(pairs[i].id);
      continue;
    }
    const auto [sum, is_first] = sums.try_emplace(pairs[i].unit, confusions[i]);
    if (!is_first) sum->second += confusions[i];
    accuracies.push_back({pairs[i].id, pairs[i].unit, confusions[i].scores().pixel_accuracy});
  }
  if (accuracies.empty())
    throw Error(ErrorCode::invalid_argument, pairs.front().reference.parent_path().string(),
                "every pixel of the true maps is ignored",
                "label 255 is, and 0 with `labels_from_one`");
  std::vector<const Confusion*> units;
  for (const auto& [unit, sum] : sums) units.push_back(&sum);
  const auto of_set = [&](double Confusion::Scores::*score) {
    Interval interval = bootstrap(units.size(), [&](const std::vector<std::size_t>& drawn) {
      Confusion sum = *units[drawn.front()];
      for (std::size_t i = 1; i < drawn.size(); ++i) sum += *units[drawn[i]];
      return sum.scores().*score;
    });
    interval.samples = accuracies.size();
    return interval;
  };
  Evaluation evaluation;
  evaluation.kind = "control segmentation";
  evaluation.protocol = {{"references", hash_of_references(pairs)}};
  evaluation.metrics = {{"mIoU", true, of_set(&Confusion::Scores::mean_iou), {}},
                        {"mAcc", true, of_set(&Confusion::Scores::mean_accuracy), {}},
                        {"aAcc", true, of_set(&Confusion::Scores::pixel_accuracy), {}},
                        measured("aAcc of a picture", true, std::move(accuracies))};
  if (!ignored.empty())
    evaluation.notes.push_back("skipped, since all labels of their true maps are ignored (" +
                               some_of(ignored) + ")");
  return evaluation;
}

/// Moves points to the squares that their pictures are brought to.
class PointMover {
 public:
  explicit PointMover(const LandmarkPixels& pixels) : size_(pixels.size) {
    for (const ControlPair& pair : pixels.pictures) pictures_.emplace(pair.id, pair);
  }

  std::vector<data::Point> truth(const ControlPair& pair) const {
    return moved(data::read_landmarks(pair.reference), pair, &ControlPair::reference);
  }

  std::vector<data::Point> found(const ControlPair& pair, const fs::path& file) const {
    return moved(data::read_detected_landmarks(file), pair, &ControlPair::generated);
  }

 private:
  std::vector<data::Point> moved(std::vector<data::Point> points, const ControlPair& pair,
                                 fs::path ControlPair::*side) const {
    if (size_ == 0 || points.empty()) return points;
    const auto picture = pictures_.find(pair.id);
    if (picture == pictures_.end())
      throw Error(ErrorCode::mismatch, pair.reference.string(),
                  "the picture of these landmarks is unknown",
                  "`size` needs it in `reference`, under the same name");
    const io::Image image = io::read_image(picture->second.*side);
    return data::points_in_crop(std::move(points), image,
                                data::covering_crop(image, PictureSize::square(size_)));
  }

  std::int64_t size_;
  std::map<std::string, ControlPair> pictures_;
};

/// Whether there is a generated picture of that name, which is just not asked for.
bool is_picture_beside(const std::vector<ControlPair>& pairs, const std::string& name) {
  const fs::path& known = pairs.front().generated;
  return fs::exists(known.parent_path() / (name + known.extension().string()));
}

void add_reading(Evaluation& evaluation, const std::string& segmenter,
                 const LabelReading& reading) {
  evaluation.protocol.insert(
      evaluation.protocol.end(),
      {{"segmenter", segmenter},
       {"classes", std::to_string(reading.classes) + (reading.from_one ? ", from 1" : ", from 0")},
       {"size", size_text(reading.size)}});
}

}  // namespace

std::string reference_name(const std::string& name) {
  const std::size_t letter = name.find_last_not_of("0123456789");
  const bool sample = letter != std::string::npos && letter >= 2 && letter + 1 < name.size() &&
                      name[letter] == 's' && (name[letter - 1] == '-' || name[letter - 1] == '_');
  return sample ? name.substr(0, letter - 1) : name;
}

std::vector<ControlPair> pair_by_name(const FilesIn& reference, const FilesIn& generated) {
  const auto wanted = files_by_name(reference);
  const auto made = files_by_name(generated);
  std::vector<ControlPair> pairs;
  std::vector<std::string> lonely;
  for (const auto& [name, path] : made) {
    const auto whole = wanted.find(name);
    const auto partner = whole != wanted.end() ? whole : wanted.find(reference_name(name));
    if (partner == wanted.end())
      lonely.push_back(name);
    else
      pairs.push_back({name, partner->first, partner->second, path});
  }
  refuse_lonely(lonely, generated.folder, reference.folder);
  refuse_unused(wanted, pairs, reference.folder);
  return pairs;
}

std::vector<ControlPair> with_references(std::vector<ControlPair> pairs, const FilesIn& reference) {
  const auto wanted = files_by_name(reference);
  const fs::path known = pairs.empty() ? fs::path() : pairs.front().reference.parent_path();
  std::vector<std::string> lonely =
      exchange(pairs, wanted, &ControlPair::unit, &ControlPair::reference);
  lonely.erase(std::unique(lonely.begin(), lonely.end()), lonely.end());
  refuse_lonely(lonely, known, reference.folder);
  refuse_unused(wanted, pairs, reference.folder);
  return pairs;
}

std::vector<ControlPair> with_found(std::vector<ControlPair> pairs, const FilesIn& found) {
  const auto missing =
      exchange(pairs, files_by_name(found), &ControlPair::id, &ControlPair::generated);
  if (!missing.empty())
    throw Error(ErrorCode::mismatch, found.folder.string(),
                "has no detections for generated pictures (" + some_of(missing) + ")",
                "files are named like the generated pictures");
  return pairs;
}

Evaluation evaluate_edges(const std::vector<ControlPair>& pairs, data::CannyThresholds thresholds,
                          std::int64_t size) {
  std::vector<Sample> iou, f1;
  PairReader reader(size);
  for (const ControlPair& pair : pairs) {
    reader.read(pair);
    const EdgeAgreement agreement =
        edge_agreement(reader.reference(), reader.generated(), thresholds);
    iou.push_back({pair.id, pair.unit, agreement.iou});
    f1.push_back({pair.id, pair.unit, agreement.f1});
  }
  Evaluation evaluation;
  evaluation.kind = "control canny";
  evaluation.protocol = {
      {"thresholds", exact_number(thresholds.low) + ", " + exact_number(thresholds.high)},
      {"size", size_text(size)},
      {"reference pictures", hash_of_references(pairs)}};
  evaluation.metrics = {measured("IoU", true, std::move(iou)), measured("F1", true, std::move(f1))};
  return evaluation;
}

Evaluation evaluate_colour_segmentation(const std::vector<ControlPair>& pairs, std::int64_t size) {
  std::vector<Confusion> confusions;
  PairReader reader(size);
  for (const ControlPair& pair : pairs) {
    reader.read(pair);
    confusions.emplace_back(data::kColourClasses)
        .add(data::segment_colours(reader.reference()), data::segment_colours(reader.generated()));
  }
  Evaluation evaluation = segmentation_scores(pairs, confusions);
  evaluation.protocol.insert(evaluation.protocol.end(),
                             {{"segmenter", "by colour"}, {"size", size_text(size)}});
  return evaluation;
}

Evaluation evaluate_label_maps(const std::vector<ControlPair>& pairs, const LabelReading& reading) {
  std::vector<Confusion> confusions;
  for (const ControlPair& pair : pairs)
    confusions.emplace_back(reading.classes)
        .add(square_labels(read_labels(pair.reference, reading.from_one), reading.size),
             square_labels(read_labels(pair.generated, /*from_one=*/false), reading.size));
  Evaluation evaluation = segmentation_scores(pairs, confusions);
  add_reading(evaluation, "given maps", reading);
  return evaluation;
}

Evaluation evaluate_segmentation(const std::vector<ControlPair>& pairs, const Segmenter& segmenter,
                                 const LabelReading& reading) {
  std::vector<Confusion> confusions;
  for (const ControlPair& pair : pairs) {
    const data::LabelMap truth =
        square_labels(read_labels(pair.reference, reading.from_one), reading.size);
    confusions.emplace_back(segmenter.classes())
        .add(truth, segmenter.labels(read_square(pair.generated, reading.size), truth.width,
                                     truth.height));
  }
  Evaluation evaluation = segmentation_scores(pairs, confusions);
  add_reading(evaluation, segmenter.identity(), reading);
  return evaluation;
}

Evaluation evaluate_landmarks(const std::vector<ControlPair>& pairs, const FilesIn& found,
                              const LandmarkPixels& pixels) {
  auto files = files_by_name(found);
  const PointMover mover(pixels);
  std::vector<Sample> errors, detected;
  for (const ControlPair& pair : pairs) {
    const auto truth = mover.truth(pair);
    const auto file = files.extract(pair.id);
    const auto seen = file ? mover.found(pair, file.mapped()) : std::vector<data::Point>();
    detected.push_back({pair.id, pair.unit, seen.empty() ? 0.0 : 1.0});
    if (seen.empty()) continue;
    if (truth.size() != seen.size())
      throw Error(ErrorCode::mismatch, file.mapped().string(),
                  "has " + std::to_string(seen.size()) + " points, its reference " +
                      std::to_string(truth.size()));
    errors.push_back({pair.id, pair.unit, landmark_error(truth, seen)});
  }
  for (const auto& [name, file] : files)
    if (!is_picture_beside(pairs, name))
      throw Error(ErrorCode::mismatch, file.string(), "belongs to none of the generated pictures",
                  "landmark files are named like the generated pictures");
  if (errors.empty())
    throw Error(ErrorCode::not_found, found.folder.string(), "nothing was detected in any picture");
  const std::size_t missed = pairs.size() - errors.size();
  Evaluation evaluation;
  evaluation.kind = "control landmark";
  evaluation.protocol = {{"reference landmarks", hash_of_references(pairs)},
                         {"size", size_text(pixels.size)}};
  evaluation.metrics = {measured("error in pixels", false, std::move(errors)),
                        measured("detected", true, std::move(detected))};
  if (missed > 0)
    evaluation.notes.push_back(
        "nothing was detected in " + std::to_string(missed) + " of " +
        std::to_string(pairs.size()) +
        " pictures; the error excludes them, which favours a model that fails");
  return evaluation;
}

}  // namespace ringlet::eval
