#include "ringlet/service/evaluate_control.h"

#include <array>
#include <filesystem>
#include <optional>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/eval/segmenter.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::service {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kPictures(io::kImageExtensions.begin(), io::kImageExtensions.end());
const std::vector<std::string> kLabels = {".png"};
const std::vector<std::string> kLandmarks = {".json", ".ljson", ".pts"};

constexpr std::array<std::pair<const char*, data::ControlSignal>, 3> kKinds = {
    {{"canny", data::ControlSignal::canny},
     {"segmentation", data::ControlSignal::segmentation},
     {"landmark", data::ControlSignal::landmark}}};

void describe_making(OptionList& list, ControlRequest& o) {
  describe(list, o.making, "per reference; captions come from the references' .txt files");
  list.add("controlnet", o.controlnet, "ControlNet folder, in place of an adapter's encoder");
  list.add("control_images", o.control_images, "Folder of given signals")
      .or_else("canny and segmentation are made from the references");
  list.add("prompt", o.prompt, "Prompt of references without a .txt file");
  list.add("control_strength", o.strength, "Strength of the control signal")
      .within(Range::between(0, 2));
}

ControlPictures control_pictures(const ControlRequest& o) {
  return {.signal = {o.kind, o.canny, o.control_images},
          .reference = o.reference,
          .controlnet = o.controlnet,
          .prompt = o.prompt,
          .size = o.size,
          .strength = o.strength};
}

void need(const std::string& value, const Field& option, const char* why) {
  if (value.empty())
    throw Error(ErrorCode::invalid_argument, option, std::string("is needed for ") + why);
}

/// Another program's label maps of the generated pictures, instead of a network's.
bool with_label_maps(const ControlRequest& o) {
  return o.kind == data::ControlSignal::segmentation && o.segmenter.empty() &&
         (!o.labels.empty() || !o.found_labels.empty());
}

/// The folder of what another program finds in the pictures; null where none has to.
std::string* found_in(ControlRequest& o) {
  if (o.kind == data::ControlSignal::landmark) return &o.found_landmarks;
  return o.kind == data::ControlSignal::segmentation && o.segmenter.empty() && !o.labels.empty()
             ? &o.found_labels
             : nullptr;
}

/// With a folder for what is found.
ControlRequest completed(ControlRequest o) {
  std::string* const folder = found_in(o);
  if (!o.find_with.empty() && folder != nullptr && folder->empty())
    *folder = (fs::path(o.generated) / "found").string();
  return o;
}

/// What another program has to find in the generated pictures.
void check_found(const ControlRequest& o) {
  if (o.kind == data::ControlSignal::landmark)
    need(o.found_landmarks, Field("found_landmarks"),
         "`kind=landmark`: ringlet has no detector, any that writes .json or .pts serves, also "
         "through `find_with`");
  if (with_label_maps(o))
    need(o.found_labels, Field("found_labels"),
         "`labels`: run a segmenter over `generated`, or give `segmenter` or `find_with`");
}

void check_truth(const ControlRequest& o) {
  if (o.kind == data::ControlSignal::landmark) {
    need(o.landmarks, Field("landmarks"), "`kind=landmark`");
    if (o.size > 0)
      need(o.reference, Field("reference"), "`size`: the landmarks are in its pictures' pixels");
  } else if (o.kind == data::ControlSignal::segmentation && !o.segmenter.empty()) {
    need(o.labels, Field("labels"), "`segmenter`: the true label maps");
  } else if (with_label_maps(o)) {
    need(o.labels, Field("labels"), "`found_labels`");
  } else {
    need(o.reference, Field("reference"), "this kind");
  }
}

/// Another program's look at the pictures. Throws Error(io) when it fails.
void find(const ControlRequest& o, const ControlObserver& observer) {
  if (o.find_with.empty()) return;
  if (!fs::is_directory(o.generated))
    throw Error(ErrorCode::not_found, o.generated, "the folder does not exist");
  const fs::path folder =
      o.kind == data::ControlSignal::landmark ? o.found_landmarks : o.found_labels;
  make_folder(folder);
  const int status = run_command(o.find_with, {o.generated, folder.string()}, observer.stop).status;
  if (observer.stop && observer.stop())
    throw Error(ErrorCode::cancelled, "eval control", "stopped", "pictures made so far are kept");
  if (status != 0)
    throw Error(ErrorCode::io, Field("find_with"),
                "\"" + o.find_with + "\" ended with status " + std::to_string(status),
                "its output is above; it is called with the folder of pictures and the one "
                "to write to");
}

/// What is compared.
struct ControlMaterial {
  std::vector<eval::ControlPair> pictures;  ///< with their references, where these are needed
  std::vector<eval::ControlPair> pairs;     ///< with what is truly in them
  std::int64_t size = 0;  ///< of squares that both are brought to; 0 = as they are
  eval::GenerationRecord record;
};

/// Where the truth is, if not in the pictures that the signals were made from.
std::optional<eval::FilesIn> truth_of(const ControlRequest& o) {
  if (o.kind == data::ControlSignal::landmark) return eval::FilesIn{o.landmarks, kLandmarks};
  if (o.kind == data::ControlSignal::segmentation && !o.labels.empty())
    return eval::FilesIn{o.labels, kLabels};
  return std::nullopt;
}

std::vector<eval::ControlPair> given_pictures(const ControlRequest& o) {
  return eval::pair_by_name({o.reference, kPictures}, {o.generated, kPictures});
}

ControlMaterial material_of(const ControlRequest& o, const ControlObserver& observer) {
  const std::optional<eval::FilesIn> truth = truth_of(o);
  if (o.making.model.empty()) {
    find(o, observer);
    const bool maps = with_label_maps(o);
    const eval::FilesIn found = {maps ? o.found_labels : o.generated, maps ? kLabels : kPictures};
    return {o.kind == data::ControlSignal::landmark && o.size > 0
                ? given_pictures(o)
                : std::vector<eval::ControlPair>(),
            eval::pair_by_name(truth.value_or(eval::FilesIn{o.reference, kPictures}), found),
            o.size,
            {}};
  }
  EvaluationPictures making = o.making;
  making.folder = o.generated;
  const ControlGeneration generation(std::move(making), control_pictures(o));
  ControlMaterial material = {generation.pairs(), generation.pairs(), generation.size(),
                              generation.record()};
  if (truth) material.pairs = eval::with_references(material.pairs, *truth);
  generation.run(observer.making);
  find(o, observer);
  check_found(o);
  if (with_label_maps(o))
    material.pairs = eval::with_found(material.pairs, {o.found_labels, kLabels});
  return material;
}

eval::Evaluation evaluate(const ControlRequest& o, const ControlMaterial& material,
                          const std::optional<eval::Segmenter>& segmenter) {
  if (o.kind == data::ControlSignal::landmark)
    return eval::evaluate_landmarks(material.pairs, {o.found_landmarks, kLandmarks},
                                    {material.size, material.pictures});
  if (segmenter)
    return eval::evaluate_segmentation(material.pairs, *segmenter,
                                       {segmenter->classes(), o.labels_from_one, material.size});
  if (with_label_maps(o))
    return eval::evaluate_label_maps(material.pairs, {o.classes, o.labels_from_one, material.size});
  return o.kind == data::ControlSignal::canny
             ? eval::evaluate_edges(material.pairs, o.canny, material.size)
             : eval::evaluate_colour_segmentation(material.pairs, material.size);
}

void add_settings(eval::Evaluation& evaluation, const ControlRequest& o,
                  const eval::GenerationRecord& record) {
  auto& settings = evaluation.settings;
  settings.insert(settings.end(), {{"reference", o.reference}, {"generated", o.generated}});
  if (!o.find_with.empty()) settings.emplace_back("found with", o.find_with);
  if (o.making.model.empty()) return;
  const auto made = settings_of(o.making, record);
  settings.insert(settings.end(), made.begin(), made.end());
}

ControlResult evaluate_now(const ControlRequest& o, const ControlObserver& observer) {
  std::optional<eval::Segmenter> segmenter;
  if (o.kind == data::ControlSignal::segmentation && !o.segmenter.empty())
    segmenter.emplace(eval::Segmenter::open(o.segmenter, o.making.load.device));
  const ControlMaterial material = material_of(o, observer);
  ControlResult result;
  result.evaluation = evaluate(o, material, segmenter);
  add_settings(result.evaluation, o, material.record);
  if (!o.reference.empty())
    result.pictures = o.making.model.empty() ? given_pictures(o) : material.pictures;
  return result;
}

}  // namespace

void describe(OptionList& list, ControlRequest& o) {
  list.add("kind", choice("kind", o.kind, kKinds), "What the pictures are to follow").required();
  list.add("reference", o.reference, "Folder of the pictures that the signals were made from");
  list.add("generated", o.generated,
           "Folder of the generated pictures, of the same names, or NAME-s1, NAME-s2, …")
      .required();
  list.add("size", o.size, "Bring both to squares of N x N pixels")
      .within(Range::at_least(0))
      .or_else("the model's own; without `model` they must be alike");
  data::describe(list, o.canny);
  list.add("labels", o.labels,
           "segmentation: folder of the true label maps, grey or palette PNGs whose stored numbers "
           "are the classes")
      .or_else("drawings are segmented by colour");
  list.add("found_labels", o.found_labels,
           "segmentation: folder of the label maps that a segmenter found in the generated "
           "pictures, whose classes count from 0");
  list.add("segmenter", o.segmenter,
           "segmentation: folder of a SegFormer that finds the classes in the generated pictures, "
           "such as nvidia/segformer-b4-finetuned-ade-512-512");
  list.add("labels_from_one", o.labels_from_one,
           "segmentation: label 0 of the true maps is ignored and their classes count from 1, as "
           "in ADE20K");
  list.add("classes", o.classes, "segmentation: how many classes the maps have, 150 for ADE20K");
  list.add("landmarks", o.landmarks,
           "landmark: folder of the true landmarks, in the references' pixels (with neither `size` "
           "nor `model` in those of the generated pictures)");
  list.add("found_landmarks", o.found_landmarks,
           "landmark: folder of the landmarks that a detector found in the generated pictures, "
           "under their names; no file or an empty list where it found none");
  list.add("find_with", o.find_with,
           "landmark, or segmentation with `labels`: program that looks at the generated pictures. "
           "It is called with their folder and that of `found_landmarks` or `found_labels` [found, "
           "in `generated`], into which it writes what it finds");
  list.in_group(kMaking, [&] { describe_making(list, o); });
}

/// No other program can have looked at pictures that are not made yet: what it finds in them is
/// needed afterwards.
void check(const ControlRequest& request) {
  ControlRequest o = completed(request);
  OptionList list;
  describe(list, o);
  list.check();
  if (!o.find_with.empty() && !can_find(o))
    throw Error(ErrorCode::invalid_argument, Field("find_with"),
                "nothing has to be found in the pictures",
                "it goes with `kind=landmark`, or with `labels` and no `segmenter`");
  if (!o.making.model.empty()) need(o.reference, Field("reference"), "`model`");
  check_truth(o);
  if (with_label_maps(o) && (o.classes < 1 || o.classes > 255))
    throw Error(ErrorCode::invalid_argument, Field("classes"), "must lie between 1 and 255");
  if (o.making.model.empty()) check_found(o);
}

bool can_find(const ControlRequest& request) {
  ControlRequest o = request;
  return found_in(o) != nullptr;
}

ControlResult evaluate_control(const ControlRequest& request, const ControlObserver& observer) {
  return nn::with_ringlet_errors("eval control", [&] {
    check(request);
    return evaluate_now(completed(request), observer);
  });
}

}  // namespace ringlet::service
