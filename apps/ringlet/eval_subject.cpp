// `ringlet eval subject` and `ringlet eval set`: pictures against real ones, by feature networks.
#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "eval_pictures.h"
#include "eval_verbs.h"
#include "options.h"
#include "ringlet/core/text.h"
#include "ringlet/eval/dreambooth_prompts.h"
#include "ringlet/eval/subject_evaluation.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/evaluation_pictures.h"

namespace ringlet::app {
namespace {

struct EvalSubjectOptions {
  CommonOptions common;
  EvalOutput output;
  std::string generated, reference, token, dino, clip, lpips, captions, prior, drift_with,
      drift_without;
  MakingOptions making{4};  ///< of pictures that are still to be made
  std::string prompts, subject;
};

void add_making(OptionList& list, EvalSubjectOptions& o) {
  o.making.add_to(list, "per prompt");
  list.add("prompts", o.prompts,
           "dreambooth-objects, dreambooth-live, or a file with one prompt a line; {} stands for "
           "--subject");
  list.add("subject", o.subject, "Token and class, such as \"sks dog\"");
}

void add_options(OptionList& list, EvalSubjectOptions& o) {
  list.add("generated", o.generated, "Folder of generated pictures, or of a folder per subject")
      .required();
  list.add("reference", o.reference, "Folder of real pictures, likewise").required();
  list.add("dino", o.dino, "Folder of a DINO network: facebook/dino-vits16, dinov2-…");
  list.add("clip", o.clip, "Folder of a CLIP network: openai/clip-vit-base-patch32, …");
  list.add("lpips", o.lpips,
           "Folder of LPIPS weights, for DIV as DreamBooth states it: backbone.safetensors and "
           "linear.safetensors");
  list.add("captions", o.captions,
           "File with captions, one a line: the share of pictures whose own prompt is nearer than "
           "all of them, by --clip");
  list.add("token", o.token, "Word to leave out of prompts for CLIP-T, such as sks");
  list.add("prior", o.prior,
           "Folder of pictures of the class, made with the adapter (with several subjects a folder "
           "for each): prior preservation");
  list.add("drift_with", o.drift_with,
           "Folder of pictures of unrelated prompts, made with the adapter …");
  list.add("drift_without", o.drift_without,
           "… and of the same prompts and seeds without it, of the same names: drift");
  o.output.add_to(list);
  list.in_group(kMaking, [&] { add_making(list, o); });
}

std::vector<std::string> prompts_of(const EvalSubjectOptions& o) {
  if (o.prompts.empty())
    throw Error(ErrorCode::invalid_argument, "--prompts", "is needed with --model",
                "for example dreambooth-objects");
  std::vector<std::string> prompts = eval::published_prompts(o.prompts);
  if (prompts.empty()) prompts = read_lines(o.prompts);
  for (std::string& prompt : prompts) {
    if (prompt.find("{}") != std::string::npos && o.subject.empty())
      throw Error(ErrorCode::invalid_argument, "--subject", "the prompts have a place for it",
                  "for example --subject \"sks dog\"");
    prompt = eval::with_subject(prompt, o.subject);
  }
  return prompts;
}

/// What is measured, and what it was made with.
struct SubjectMaterial {
  std::vector<eval::SubjectPicture> generated;
  std::vector<eval::RealPictures> real;
  std::vector<std::pair<std::string, std::string>> settings;
};

SubjectMaterial material_of(const EvalSubjectOptions& o) {
  SubjectMaterial material;
  material.settings = {{"generated", o.generated}, {"reference", o.reference}};
  if (!o.making.wanted()) {
    std::tie(material.generated, material.real) =
        eval::read_subjects(o.generated, o.reference, o.token);
    return material;
  }
  material.real = {eval::read_real(o.reference)};
  const service::SubjectGeneration generation(o.making.pictures(o.common, o.generated),
                                              prompts_of(o));
  MakingProgress progress(o.common);
  material.generated = eval::read_generated(generation.run(progress.observer()), o.token);
  const auto made = o.making.settings(generation.record());
  material.settings.insert(material.settings.end(), made.begin(), made.end());
  return material;
}

/// What can be refused before pictures are made.
void check(const EvalSubjectOptions& o) {
  if (o.drift_with.empty() != o.drift_without.empty())
    throw Error(ErrorCode::invalid_argument, "--drift-with, --drift-without", "go together");
  if (!o.captions.empty() && o.clip.empty())
    throw Error(ErrorCode::invalid_argument, "--clip", "is needed for --captions");
}

std::vector<std::pair<std::string, std::string>> sheet_of(
    const std::vector<eval::SubjectPicture>& generated) {
  constexpr std::size_t kShown = 40;
  constexpr std::int64_t kColumns = 8;
  std::vector<io::Image> shown;
  for (std::size_t i = 0; i < std::min(kShown, generated.size()); ++i)
    shown.push_back(io::read_image(generated[i].file));
  return {{"generated pictures", io::encode_png(io::image_grid(shown, kColumns))}};
}

/// Those that options ask for.
void add_further_metrics(eval::Evaluation& evaluation, const EvalSubjectOptions& o,
                         const eval::SubjectNetworks& networks,
                         const eval::PerceptualDistance* lpips,
                         const std::vector<eval::SubjectPicture>& generated,
                         const std::vector<eval::RealPictures>& real) {
  const eval::NamedNetwork by = eval::main_network(networks);
  if (!o.captions.empty()) {
    evaluation.metrics.push_back(
        eval::caption_accuracy(*networks.clip, generated, read_lines(o.captions)));
    evaluation.protocol.emplace_back("captions", eval::hash_of_files({o.captions}));
  }
  if (lpips != nullptr) {
    if (auto diversity = eval::perceptual_diversity(*lpips, generated))
      evaluation.metrics.push_back(*std::move(diversity));
    evaluation.protocol.emplace_back("LPIPS", lpips->identity());
  }
  if (!o.prior.empty()) evaluation.metrics.push_back(eval::prior_preservation(by, o.prior, real));
  if (!o.drift_with.empty()) {
    evaluation.metrics.push_back(eval::prior_drift(by, o.drift_with, o.drift_without));
    evaluation.protocol.emplace_back("pictures without the adapter",
                                     eval::identity_of_pictures(o.drift_without));
  }
}

int eval_subject(const EvalSubjectOptions& o) {
  check(o);
  std::optional<eval::FeatureNetwork> dino, clip;
  const at::Device device = o.common.select_device();
  if (!o.dino.empty()) dino.emplace(eval::FeatureNetwork::open(o.dino, device));
  if (!o.clip.empty()) clip.emplace(eval::FeatureNetwork::open(o.clip, device));
  std::optional<eval::PerceptualDistance> lpips;
  if (!o.lpips.empty()) lpips.emplace(eval::PerceptualDistance::open(o.lpips, device));
  const eval::SubjectNetworks networks = {dino ? &*dino : nullptr, clip ? &*clip : nullptr};
  eval::check_networks(networks);
  const auto [generated, real, settings] = material_of(o);
  eval::Evaluation evaluation = eval::evaluate_subjects(generated, real, networks);
  add_further_metrics(evaluation, o, networks, lpips ? &*lpips : nullptr, generated, real);
  evaluation.settings.insert(evaluation.settings.end(), settings.begin(), settings.end());
  evaluation.protocol.emplace_back("word left out for CLIP-T", o.token.empty() ? "none" : o.token);
  std::vector<std::pair<std::string, std::string>> pictures;
  if (!o.output.html.empty()) pictures = sheet_of(generated);
  o.output.write(evaluation, pictures, o.common.json);
  return 0;
}

}  // namespace

int cmd_eval_subject(int argc, char** argv) {
  EvalSubjectOptions options;
  OptionList list;
  CLI::App app(
      "Measure subject-driven generation: DINO, CLIP-I, CLIP-T, diversity; make the pictures first "
      "with --model.\nExample:\n  ringlet eval subject --reference photos --dino dino-vits16 "
      "--clip "
      "clip-vit-base-patch32 --model MODEL --adapter runs/dog/adapter.safetensors --prompts "
      "dreambooth-live --subject \"sks dog\" --token sks --generated made",
      "eval subject");
  add_options(list, options);
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("eval subject", [&] {
    check_making(app, options.making);
    return eval_subject(options);
  });
}

int cmd_eval_set(int argc, char** argv) {
  CommonOptions common;
  EvalOutput output;
  std::string generated, reference, features;
  OptionList list;
  CLI::App app(
      "Distances of two sets of pictures by a network's features: Frechet (FID), kernel (KID), "
      "CMMD.\nExample:\n  ringlet eval set --generated made --reference photos --features "
      "clip-vit-large-patch14-336",
      "eval set");
  list.add("generated", generated, "Folder of generated pictures").required();
  list.add("reference", reference, "Folder of real pictures").required();
  list.add("features", features, "Folder of the network that looks at them: CLIP, DINO, DINOv2")
      .required();
  output.add_to(list);
  common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  common.apply();
  return nn::with_ringlet_errors("eval set", [&] {
    const auto network = eval::FeatureNetwork::open(features, common.select_device());
    eval::Evaluation evaluation = eval::evaluate_sets(generated, reference, network);
    evaluation.settings.insert(evaluation.settings.end(),
                               {{"generated", generated}, {"reference", reference}});
    output.write(evaluation, {}, common.json);
    return 0;
  });
}

}  // namespace ringlet::app
