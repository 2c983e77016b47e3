// `ringlet eval control`: do pictures follow their control signals?
#include <cmath>
#include <cstdio>

#include "adapter_options.h"
#include "eval_verbs.h"
#include "options.h"
#include "ringlet/core/text.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/eval/control_evaluation.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/picture_text.h"
#include "ringlet/pipeline/stable_diffusion.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kPictures = {".png", ".jpg", ".jpeg", ".webp"};
const std::vector<std::string> kLabels = {".png"};
const std::vector<std::string> kLandmarks = {".json", ".ljson", ".pts"};

struct EvalControlOptions {
  CommonOptions common;
  EvalOutput output;
  std::string kind, reference, generated, labels, found_labels, landmarks, found_landmarks;
  std::string segmenter;
  int classes = 0;
  bool labels_from_one = false;
  std::int64_t size = 0;
  data::CannyThresholds canny;
  // Pictures that are still to be made.
  std::string model, controlnet, control_images, prompt, sampler;
  AdapterOptions adapters;
  std::int64_t samples = 3, steps = 30;
  std::uint64_t seed = 1;
  double guidance = 7.5, strength = 1.0;
};

void add_options(CLI::App& app, EvalControlOptions& o) {
  app.add_option("--kind", o.kind, "canny, segmentation or landmark")->required();
  app.add_option("--reference", o.reference,
                 "Folder of the pictures that the signals were made from");
  app.add_option("--generated", o.generated,
                 "Folder of the generated pictures, of the same names, or NAME-s1, NAME-s2, …")
      ->required();
  app.add_option("--size", o.size, "Bring both to squares of so many pixels [they must be alike]");
  app.add_option("--canny-low", o.canny.low, "Lower threshold of canny")->capture_default_str();
  app.add_option("--canny-high", o.canny.high, "Upper threshold of canny")->capture_default_str();
  app.add_option("--labels", o.labels,
                 "segmentation: folder of the true label maps, grey or palette PNGs whose stored "
                 "numbers are the classes [drawings are segmented by colour]");
  app.add_option("--found-labels", o.found_labels,
                 "segmentation: folder of the label maps that a segmenter found in the generated "
                 "pictures, whose classes count from 0");
  app.add_option("--segmenter", o.segmenter,
                 "segmentation: folder of a SegFormer that finds the classes in the generated "
                 "pictures, such as nvidia/segformer-b4-finetuned-ade-512-512");
  app.add_flag("--labels-from-one", o.labels_from_one,
               "segmentation: label 0 of the true maps is ignored and their classes count from 1, "
               "as in ADE20K");
  app.add_option("--classes", o.classes,
                 "segmentation: how many classes the maps have, 150 for ADE20K");
  app.add_option("--landmarks", o.landmarks, "landmark: folder of the true landmarks");
  app.add_option(
      "--found-landmarks", o.found_landmarks,
      "landmark: folder of the landmarks that a detector found in the generated pictures, under "
      "their names; no file or an empty list where it found none");
  app.add_option(
      "--model", o.model,
      "Make the pictures that --generated lacks, with this model; captions come from the "
      "references' .txt files");
  o.adapters.add_to(app);
  app.add_option("--controlnet", o.controlnet,
                 "ControlNet folder, in place of an adapter's encoder");
  app.add_option("--control-images", o.control_images,
                 "Folder of given signals [canny and segmentation are made from the references]");
  app.add_option("--prompt", o.prompt, "Prompt of references without a .txt file");
  app.add_option("--samples", o.samples, "Pictures to make per reference")->capture_default_str();
  app.add_option("--steps", o.steps, "Sampling steps")->capture_default_str();
  app.add_option("--sampler", o.sampler, "As in generate [the model's own]");
  app.add_option("--guidance", o.guidance, "Guidance scale")->capture_default_str();
  app.add_option("--control-strength", o.strength, "Of the signal, 0 to 2")->capture_default_str();
  app.add_option("--seed", o.seed, "Seed of the first sample; the next has seed + 1")
      ->transform(whole_number())
      ->capture_default_str();
  o.output.add_to(app);
}

/// A picture per reference and seed that is not there yet.
class ControlGeneration {
 public:
  explicit ControlGeneration(const EvalControlOptions& o)
      : o_(o), model_(pipeline::StableDiffusion::open(o.model, load_options(o.common))) {
    adapters_ = load_adapters(model_, parse_adapters(o.adapters), "");
    for (adapt::AdapterSet& adapter : adapters_.sets) adapter.attach();
    network_ = control_network(model_, adapters_, o.controlnet);
    if (!network_)
      throw Error(ErrorCode::invalid_argument, "--adapter",
                  "none of the adapters holds a control encoder",
                  "give one that was trained with --control, or --controlnet FOLDER");
  }

  void run() {
    const auto pictures = data::read_picture_folder(o_.reference).pictures;
    settings_ = {data::control_signal_from_name(o_.kind, "--kind"), o_.canny, o_.control_images};
    std::vector<fs::path> paths;
    for (const data::Picture& picture : pictures) paths.push_back(picture.path);
    data::check_control_files(settings_, paths);
    fs::create_directories(o_.generated);
    Progress progress("generating", pictures.size(), o_.common.quiet || o_.common.json);
    for (const data::Picture& picture : pictures) {
      make(picture);
      progress.advance();
    }
  }

 private:
  fs::path file_of(const data::Picture& picture, std::uint64_t seed) const {
    return fs::path(o_.generated) /
           (picture.path.stem().string() + "-s" + std::to_string(seed) + ".png");
  }

  void make(const data::Picture& picture) const {
    pipeline::GenerateRequest request;
    request.seeds = missing_seeds(o_.seed, o_.samples,
                                  [&](std::uint64_t seed) { return file_of(picture, seed); });
    if (request.seeds.empty()) return;
    request.prompt = picture.caption.empty() ? o_.prompt : picture.caption;
    if (request.prompt.empty())
      throw Error(ErrorCode::invalid_argument, picture.path.string(), "the picture has no caption",
                  "write it into a .txt file beside it, or give --prompt");
    request.steps = o_.steps;
    request.guidance.scale = o_.guidance;
    request.width = request.height = o_.size;
    if (!o_.sampler.empty()) request.sampler = diffusion::find_sampler(o_.sampler);
    request.control = &*network_;
    request.control_strength = o_.strength;
    const io::Image image = io::read_image(picture.path);
    request.control_image = image;
    request = model_.checked(request);
    request.control_image = data::control_picture(settings_, picture.path, image,
                                                  data::square_crop(image, request.width));
    const std::vector<io::Image> made = make_pictures(model_, request);
    for (std::size_t i = 0; i < made.size(); ++i)
      io::write_png(file_of(picture, request.seeds[i]), made[i]);
  }

  const EvalControlOptions& o_;
  pipeline::StableDiffusion model_;
  LoadedAdapters adapters_;
  std::optional<pipeline::ControlNetwork> network_;
  data::ControlSettings settings_;
};

void need(const std::string& value, const char* option, const char* why) {
  if (value.empty())
    throw Error(ErrorCode::invalid_argument, option, std::string("is needed for ") + why);
}

eval::Evaluation evaluate(const EvalControlOptions& o) {
  if (o.kind == "landmark") {
    need(o.landmarks, "--landmarks", "--kind landmark");
    need(o.found_landmarks, "--found-landmarks",
         "--kind landmark: ringlet has no detector, any that writes .json or .pts serves");
    return eval::evaluate_landmarks(
        eval::pair_by_name({o.landmarks, kLandmarks}, {o.generated, kPictures}),
        {o.found_landmarks, kLandmarks});
  }
  if (o.kind == "segmentation" && !o.segmenter.empty()) {
    need(o.labels, "--labels", "--segmenter: what is truly in the pictures");
    const auto segmenter = eval::Segmenter::open(o.segmenter, o.common.select_device());
    return eval::evaluate_segmentation(
        eval::pair_by_name({o.labels, kLabels}, {o.generated, kPictures}), segmenter,
        {segmenter.classes(), o.labels_from_one});
  }
  if (o.kind == "segmentation" && (!o.labels.empty() || !o.found_labels.empty())) {
    need(o.labels, "--labels", "--found-labels");
    need(o.found_labels, "--found-labels", "--labels");
    if (o.classes < 1 || o.classes > 255)
      throw Error(ErrorCode::invalid_argument, "--classes", "must lie between 1 and 255");
    return eval::evaluate_label_maps(
        eval::pair_by_name({o.labels, kLabels}, {o.found_labels, kLabels}),
        {o.classes, o.labels_from_one});
  }
  need(o.reference, "--reference", "this kind");
  const auto pairs = eval::pair_by_name({o.reference, kPictures}, {o.generated, kPictures});
  return o.kind == "canny" ? eval::evaluate_edges(pairs, o.canny, o.size)
                           : eval::evaluate_colour_segmentation(pairs, o.size);
}

int eval_control(const EvalControlOptions& o) {
  if (o.kind != "canny" && o.kind != "segmentation" && o.kind != "landmark")
    throw Error(ErrorCode::invalid_argument, "--kind", "\"" + o.kind + "\" is not known",
                "use canny, segmentation or landmark");
  if (o.samples < 1 || o.size < 0)
    throw Error(ErrorCode::invalid_argument, "--samples, --size", "must be positive");
  if (!o.model.empty()) {
    need(o.reference, "--reference", "--model");
    ControlGeneration(o).run();
  }
  eval::Evaluation evaluation = evaluate(o);
  evaluation.settings.insert(evaluation.settings.end(),
                             {{"reference", o.reference}, {"generated", o.generated}});
  if (!o.model.empty())
    evaluation.settings.insert(evaluation.settings.end(),
                               {{"model", o.model},
                                {"adapters", describe_adapters(parse_adapters(o.adapters))},
                                {"samples", std::to_string(o.samples)},
                                {"steps", std::to_string(o.steps)},
                                {"guidance", exact_number(o.guidance)},
                                {"first seed", std::to_string(o.seed)}});
  std::vector<std::pair<std::string, std::string>> pictures;
  if (!o.output.html.empty() && !o.reference.empty())
    pictures = pair_sheets(eval::pair_by_name({o.reference, kPictures}, {o.generated, kPictures}));
  o.output.write(evaluation, pictures, o.common.json);
  return 0;
}

}  // namespace

int cmd_eval_control(int argc, char** argv) {
  EvalControlOptions options;
  CLI::App app(
      "Measure whether pictures follow their control signals, and make the pictures first with "
      "--model.\nExample:\n  ringlet eval control --kind canny --reference photos --model MODEL "
      "--adapter runs/edges/adapter.safetensors --generated made --result edges.json",
      "eval control");
  add_options(app, options);
  options.common.add_to(app);
  if (const ParseResult done = parse(app, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("eval control", [&] { return eval_control(options); });
}

}  // namespace ringlet::app
