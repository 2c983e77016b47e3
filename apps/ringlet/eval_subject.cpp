// `ringlet eval subject` and `ringlet eval set`: pictures against real ones, by feature networks.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "eval_pictures.h"
#include "eval_verbs.h"
#include "options.h"
#include "ringlet/eval/subject_evaluation.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/evaluate_subject.h"

namespace ringlet::app {
namespace {

struct EvalSubjectOptions {
  CommonOptions common;
  EvalOutput output;
  AdapterOptions adapters;
  service::SubjectRequest request;
};

std::vector<std::pair<std::string, std::string>> sheet_of(
    const std::vector<eval::SubjectPicture>& generated) {
  constexpr std::size_t kShown = 40;
  constexpr std::int64_t kColumns = 8;
  std::vector<io::Image> shown;
  for (std::size_t i = 0; i < std::min(kShown, generated.size()); ++i)
    shown.push_back(io::read_image(generated[i].file));
  return {{"generated pictures", io::encode_png(io::image_grid(shown, kColumns))}};
}

int eval_subject(EvalSubjectOptions& o) {
  complete(o.request.making, o.adapters, o.common);
  MakingProgress progress(o.common);
  const service::SubjectResult result = service::evaluate_subject(o.request, progress.observer());
  std::vector<std::pair<std::string, std::string>> pictures;
  if (!o.output.html.empty()) pictures = sheet_of(result.generated);
  o.output.write(result.evaluation, pictures, o.common.json);
  return 0;
}

}  // namespace

int cmd_eval_subject(int argc, char** argv) {
  EvalSubjectOptions options;
  OptionList list;
  CLI::App app(
      "Measure subject-driven generation: DINO, CLIP-I, CLIP-T, diversity; make the pictures first "
      "with --model.\nExample:\n  ringlet eval subject --reference photos --dino dino-vits16 "
      "--clip clip-vit-base-patch32 --model MODEL --adapter runs/dog/adapter.safetensors --prompts "
      "dreambooth-live --subject \"sks dog\" --token sks --generated made",
      "eval subject");
  options.output.add_to(list);
  service::describe(list, options.request);
  list.in_group(service::kMaking, [&] { options.adapters.add_to(list); });
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("eval subject", [&] {
    check_making(app, options.request.making);
    return eval_subject(options);
  });
}

int cmd_eval_set(int argc, char** argv) {
  CommonOptions common;
  EvalOutput output;
  std::string generated, reference, features;
  OptionList list;
  CLI::App app(
      "Distances between two sets of pictures by a network's features: Frechet (FID), kernel "
      "(KID), CMMD.\nExample:\n  ringlet eval set --generated made --reference photos --features "
      "clip-vit-large-patch14-336",
      "eval set");
  list.add("generated", generated, "Folder of generated pictures").required();
  list.add("reference", reference, "Folder of real pictures").required();
  list.add("features", features, "Folder of the feature network: CLIP, DINO, DINOv2").required();
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
