#include "ringlet/service/evaluate_subject.h"

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/eval/dreambooth_prompts.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/text_lines.h"

namespace ringlet::service {
namespace {

void describe_making(OptionList& list, SubjectRequest& o) {
  describe(list, o.making, "per prompt");
  list.add("prompts", o.prompts,
           "dreambooth-objects, dreambooth-live, or a file with one prompt a line; {} stands for "
           "`subject`");
  list.add("subject", o.subject, "Token and class, such as \"sks dog\"");
}

std::vector<std::string> prompts_of(const SubjectRequest& o) {
  if (o.prompts.empty())
    throw Error(ErrorCode::invalid_argument, Field("prompts"), "is needed with `model`",
                "for example dreambooth-objects");
  std::vector<std::string> prompts = eval::published_prompts(o.prompts);
  if (prompts.empty()) prompts = read_lines(o.prompts);
  for (std::string& prompt : prompts) {
    if (prompt.find("{}") != std::string::npos && o.subject.empty())
      throw Error(ErrorCode::invalid_argument, Field("subject"), "the prompts have a place for it",
                  "for example `subject=\"sks dog\"`");
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

SubjectMaterial material_of(const SubjectRequest& o, const MakingObserver& observer) {
  SubjectMaterial material;
  material.settings = {{"generated", o.generated}, {"reference", o.reference}};
  if (o.making.model.empty()) {
    std::tie(material.generated, material.real) =
        eval::read_subjects(o.generated, o.reference, o.token);
    return material;
  }
  material.real = {eval::read_real(o.reference)};
  EvaluationPictures pictures = o.making;
  pictures.folder = o.generated;
  const SubjectGeneration generation(std::move(pictures), prompts_of(o));
  material.generated = eval::read_generated(generation.run(observer), o.token);
  const auto made = settings_of(o.making, generation.record());
  material.settings.insert(material.settings.end(), made.begin(), made.end());
  return material;
}

/// Those that options ask for.
void add_further_metrics(eval::Evaluation& evaluation, const SubjectRequest& o,
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

SubjectResult evaluate_now(const SubjectRequest& o, const MakingObserver& observer) {
  std::optional<eval::FeatureNetwork> dino, clip;
  const at::Device device = o.making.load.device;
  if (!o.dino.empty()) dino.emplace(eval::FeatureNetwork::open(o.dino, device));
  if (!o.clip.empty()) clip.emplace(eval::FeatureNetwork::open(o.clip, device));
  std::optional<eval::PerceptualDistance> lpips;
  if (!o.lpips.empty()) lpips.emplace(eval::PerceptualDistance::open(o.lpips, device));
  const eval::SubjectNetworks networks = {dino ? &*dino : nullptr, clip ? &*clip : nullptr};
  eval::check_networks(networks);
  auto [generated, real, settings] = material_of(o, observer);
  eval::Evaluation evaluation = eval::evaluate_subjects(generated, real, networks);
  add_further_metrics(evaluation, o, networks, lpips ? &*lpips : nullptr, generated, real);
  evaluation.settings.insert(evaluation.settings.end(), settings.begin(), settings.end());
  evaluation.protocol.emplace_back("word left out for CLIP-T", o.token.empty() ? "none" : o.token);
  return {std::move(evaluation), std::move(generated)};
}

}  // namespace

void describe(OptionList& list, SubjectRequest& o) {
  list.add("generated", o.generated, "Folder of generated pictures, or of a folder per subject")
      .required();
  list.add("reference", o.reference, "Folder of real pictures, likewise").required();
  list.add("dino", o.dino, "Folder of a DINO network: facebook/dino-vits16, dinov2-…");
  list.add("clip", o.clip, "Folder of a CLIP network: openai/clip-vit-base-patch32, …");
  list.add("lpips", o.lpips,
           "Folder of LPIPS weights, for DIV as DreamBooth states it: backbone.safetensors and "
           "linear.safetensors");
  list.add(
      "captions", o.captions,
      "File with captions, one per line: the share of pictures whose own prompt is nearer than "
      "all of them, by `clip`");
  list.add("token", o.token, "Word to remove from prompts for CLIP-T, such as sks");
  list.add("prior", o.prior,
           "Folder of pictures of the class, made with the adapter (with several subjects a folder "
           "for each): prior preservation");
  list.add("drift_with", o.drift_with,
           "Folder of pictures of unrelated prompts, made with the adapter …");
  list.add("drift_without", o.drift_without,
           "… and of the same prompts and seeds without it, of the same names: drift");
  list.in_group(kMaking, [&] { describe_making(list, o); });
}

void check(const SubjectRequest& request) {
  SubjectRequest o = request;
  OptionList list;
  describe(list, o);
  list.check();
  if (o.drift_with.empty() != o.drift_without.empty())
    throw Error(ErrorCode::invalid_argument, Field("drift_with"),
                "and `drift_without` go together");
  if (!o.captions.empty() && o.clip.empty())
    throw Error(ErrorCode::invalid_argument, Field("clip"), "is needed for `captions`");
}

SubjectResult evaluate_subject(const SubjectRequest& request, const MakingObserver& observer) {
  return nn::with_ringlet_errors("eval subject", [&] {
    check(request);
    return evaluate_now(request, observer);
  });
}

}  // namespace ringlet::service
