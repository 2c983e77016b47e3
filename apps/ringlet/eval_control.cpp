// `ringlet eval control`: do pictures follow their control signals?
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "canny_options.h"
#include "eval_pictures.h"
#include "eval_verbs.h"
#include "options.h"
#include "ringlet/core/child_process.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/eval/control_evaluation.h"
#include "ringlet/eval/segmenter.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/evaluation_pictures.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kPictures(io::kImageExtensions.begin(), io::kImageExtensions.end());
const std::vector<std::string> kLabels = {".png"};
const std::vector<std::string> kLandmarks = {".json", ".ljson", ".pts"};

struct EvalControlOptions {
  CommonOptions common;
  EvalOutput output;
  std::string reference, generated, labels, found_labels, landmarks, found_landmarks;
  std::string segmenter, find_with;
  data::ControlSignal kind = data::ControlSignal::canny;
  int classes = 0;
  bool labels_from_one = false;
  std::int64_t size = 0;
  data::CannyThresholds canny;
  MakingOptions making{3};  ///< of pictures that are still to be made
  std::string controlnet, control_images, prompt;
  double strength = 1.0;
};

constexpr std::array<std::pair<const char*, data::ControlSignal>, 3> kKinds = {
    {{"canny", data::ControlSignal::canny},
     {"segmentation", data::ControlSignal::segmentation},
     {"landmark", data::ControlSignal::landmark}}};

void add_making(OptionList& list, EvalControlOptions& o) {
  o.making.add_to(list, "per reference; captions come from the references' .txt files");
  list.add("controlnet", o.controlnet, "ControlNet folder, in place of an adapter's encoder");
  list.add("control_images", o.control_images, "Folder of given signals")
      .or_else("canny and segmentation are made from the references");
  list.add("prompt", o.prompt, "Prompt of references without a .txt file");
  list.add("control_strength", o.strength, "Of the signal").within(Range::between(0, 2));
}

void add_options(OptionList& list, EvalControlOptions& o) {
  list.add("kind", choice("kind", o.kind, kKinds), "What the pictures are to follow").required();
  list.add("reference", o.reference, "Folder of the pictures that the signals were made from");
  list.add("generated", o.generated,
           "Folder of the generated pictures, of the same names, or NAME-s1, NAME-s2, …")
      .required();
  list.add("size", o.size, "Bring both to squares of so many pixels")
      .within(Range::at_least(0))
      .or_else("the model's own; without --model they must be alike");
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
           "landmark: folder of the true landmarks, in the references' pixels (with neither --size "
           "nor --model in those of the generated pictures)");
  list.add("found_landmarks", o.found_landmarks,
           "landmark: folder of the landmarks that a detector found in the generated pictures, "
           "under their names; no file or an empty list where it found none");
  list.add("find_with", o.find_with,
           "landmark, or segmentation with --labels: program that looks at the generated pictures. "
           "It is called with their folder and that of --found-landmarks or --found-labels [found, "
           "in --generated], into which it writes what it finds");
  o.output.add_to(list);
  list.in_group(kMaking, [&] { add_making(list, o); });
}

service::ControlPictures control_pictures(const EvalControlOptions& o) {
  return {.signal = {o.kind, o.canny, o.control_images},
          .reference = o.reference,
          .controlnet = o.controlnet,
          .prompt = o.prompt,
          .size = o.size,
          .strength = o.strength};
}

void need(const std::string& value, const char* option, const char* why) {
  if (value.empty())
    throw Error(ErrorCode::invalid_argument, option, std::string("is needed for ") + why);
}

/// Another program's label maps of the generated pictures, instead of a network's.
bool with_label_maps(const EvalControlOptions& o) {
  return o.kind == data::ControlSignal::segmentation && o.segmenter.empty() &&
         (!o.labels.empty() || !o.found_labels.empty());
}

/// The folder of what another program finds in the pictures; null where none has to.
template <typename Options>
auto* found_in(Options& o) {
  if (o.kind == data::ControlSignal::landmark) return &o.found_landmarks;
  return o.kind == data::ControlSignal::segmentation && o.segmenter.empty() && !o.labels.empty()
             ? &o.found_labels
             : nullptr;
}

/// What another program has to find in the generated pictures.
void check_found(const EvalControlOptions& o) {
  if (o.kind == data::ControlSignal::landmark)
    need(o.found_landmarks, "--found-landmarks",
         "--kind landmark: ringlet has no detector, any that writes .json or .pts serves, also "
         "through --find-with");
  if (with_label_maps(o))
    need(o.found_labels, "--found-labels",
         "--labels: run a segmenter over --generated, or give --segmenter or --find-with");
}

void check_truth(const EvalControlOptions& o) {
  if (o.kind == data::ControlSignal::landmark) {
    need(o.landmarks, "--landmarks", "--kind landmark");
    if (o.size > 0)
      need(o.reference, "--reference", "--size: the landmarks are in its pictures' pixels");
  } else if (o.kind == data::ControlSignal::segmentation && !o.segmenter.empty()) {
    need(o.labels, "--labels", "--segmenter: what is truly in the pictures");
  } else if (with_label_maps(o)) {
    need(o.labels, "--labels", "--found-labels");
  } else {
    need(o.reference, "--reference", "this kind");
  }
}

/// What can be refused before anything is made. Pictures that are still to be made cannot have
/// been looked at by another program: what it finds in them is asked for afterwards.
void check(const EvalControlOptions& o) {
  if (o.making.wanted()) need(o.reference, "--reference", "--model");
  check_truth(o);
  if (with_label_maps(o) && (o.classes < 1 || o.classes > 255))
    throw Error(ErrorCode::invalid_argument, "--classes", "must lie between 1 and 255");
  if (!o.making.wanted()) check_found(o);
}

/// Options that would be ignored.
void check_given(const CLI::App& app, const EvalControlOptions& o) {
  check_making(app, o.making);
  const std::string other =
      std::string("it says something about another --kind than ") + data::name_of(o.kind);
  check_canny(app, o.kind == data::ControlSignal::canny);
  if (o.kind != data::ControlSignal::segmentation)
    refuse_given(app,
                 {"--labels", "--found-labels", "--segmenter", "--labels-from-one", "--classes"},
                 other, "leave it out");
  if (o.kind != data::ControlSignal::landmark)
    refuse_given(app, {"--landmarks", "--found-landmarks"}, other, "leave it out");
  if (!o.segmenter.empty())
    refuse_given(app, {"--found-labels", "--classes"},
                 "with --segmenter it is the network that says so", "leave one of them out");
  if (o.labels.empty() && o.found_labels.empty())
    refuse_given(app, {"--labels-from-one", "--classes"}, "there are no --labels",
                 "give them, or leave it out: drawings have classes of their own");
  if (found_in(o) == nullptr)
    refuse_given(app, {"--find-with"}, "there is nothing to find in the pictures",
                 "it goes with --kind landmark, or with --labels and no --segmenter");
}

/// Another program's look at the pictures. Throws Error(io) when it fails.
void find(const EvalControlOptions& o) {
  if (o.find_with.empty()) return;
  if (!fs::is_directory(o.generated))
    throw Error(ErrorCode::not_found, o.generated, "the folder does not exist");
  const fs::path folder = *found_in(o);
  make_folder(folder);
  const int status = run_command(o.find_with, {o.generated, folder.string()}, interrupted).status;
  if (interrupted())
    throw Error(ErrorCode::cancelled, "eval control", "stopped", "pictures made so far are kept");
  if (status != 0)
    throw Error(ErrorCode::io, "--find-with",
                "\"" + o.find_with + "\" ended with status " + std::to_string(status),
                "what it said stands above; it is called with the folder of pictures and the one "
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
std::optional<eval::FilesIn> truth_of(const EvalControlOptions& o) {
  if (o.kind == data::ControlSignal::landmark) return eval::FilesIn{o.landmarks, kLandmarks};
  if (o.kind == data::ControlSignal::segmentation && !o.labels.empty())
    return eval::FilesIn{o.labels, kLabels};
  return std::nullopt;
}

std::vector<eval::ControlPair> given_pictures(const EvalControlOptions& o) {
  return eval::pair_by_name({o.reference, kPictures}, {o.generated, kPictures});
}

ControlMaterial material_of(const EvalControlOptions& o) {
  const std::optional<eval::FilesIn> truth = truth_of(o);
  if (!o.making.wanted()) {
    find(o);
    const bool maps = with_label_maps(o);
    const eval::FilesIn found = {maps ? o.found_labels : o.generated, maps ? kLabels : kPictures};
    return {o.kind == data::ControlSignal::landmark && o.size > 0
                ? given_pictures(o)
                : std::vector<eval::ControlPair>(),
            eval::pair_by_name(truth.value_or(eval::FilesIn{o.reference, kPictures}), found),
            o.size,
            {}};
  }
  const service::ControlGeneration generation(o.making.pictures(o.common, o.generated),
                                              control_pictures(o));
  ControlMaterial material = {generation.pairs(), generation.pairs(), generation.size(),
                              generation.record()};
  if (truth) material.pairs = eval::with_references(material.pairs, *truth);
  {
    MakingProgress progress(o.common);
    generation.run(progress.observer());
  }
  find(o);
  check_found(o);
  if (with_label_maps(o))
    material.pairs = eval::with_found(material.pairs, {o.found_labels, kLabels});
  return material;
}

eval::Evaluation evaluate(const EvalControlOptions& o, const ControlMaterial& material,
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

void add_settings(eval::Evaluation& evaluation, const EvalControlOptions& o,
                  const eval::GenerationRecord& record) {
  auto& settings = evaluation.settings;
  settings.insert(settings.end(), {{"reference", o.reference}, {"generated", o.generated}});
  if (!o.find_with.empty()) settings.emplace_back("found with", o.find_with);
  if (!o.making.wanted()) return;
  const auto made = o.making.settings(record);
  settings.insert(settings.end(), made.begin(), made.end());
}

int eval_control(const EvalControlOptions& o) {
  std::optional<eval::Segmenter> segmenter;
  if (o.kind == data::ControlSignal::segmentation && !o.segmenter.empty())
    segmenter.emplace(eval::Segmenter::open(o.segmenter, o.common.select_device()));
  const ControlMaterial material = material_of(o);
  eval::Evaluation evaluation = evaluate(o, material, segmenter);
  add_settings(evaluation, o, material.record);
  std::vector<std::pair<std::string, std::string>> pictures;
  if (!o.output.html.empty() && !o.reference.empty())
    pictures = pair_sheets(!o.making.wanted() ? given_pictures(o) : material.pictures);
  o.output.write(evaluation, pictures, o.common.json);
  return 0;
}

}  // namespace

int cmd_eval_control(int argc, char** argv) {
  EvalControlOptions options;
  OptionList list;
  CLI::App app(
      "Measure whether pictures follow their control signals, and make the pictures first with "
      "--model.\nExample:\n  ringlet eval control --kind canny --reference photos --model MODEL "
      "--adapter runs/edges/adapter.safetensors --generated made --result edges.json",
      "eval control");
  add_options(list, options);
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("eval control", [&] {
    check_given(app, options);
    if (!options.find_with.empty() && found_in(options)->empty())
      *found_in(options) = (fs::path(options.generated) / "found").string();
    check(options);
    return eval_control(options);
  });
}

}  // namespace ringlet::app
