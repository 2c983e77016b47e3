// `ringlet eval control`: do pictures follow their control signals?
#include <string>
#include <utility>
#include <vector>

#include "canny_options.h"
#include "eval_pictures.h"
#include "eval_verbs.h"
#include "options.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/evaluate_control.h"

namespace ringlet::app {
namespace {

struct EvalControlOptions {
  CommonOptions common;
  EvalOutput output;
  AdapterOptions adapters;
  service::ControlRequest request;
};

/// Options that would be ignored.
void check_given(const CLI::App& app, const service::ControlRequest& o) {
  check_making(app, o.making);
  const std::string other =
      std::string("it applies to another --kind than ") + data::name_of(o.kind);
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
                 "give them, or leave it out: drawings have fixed classes");
}

int eval_control(EvalControlOptions& o) {
  complete(o.request.making, o.adapters, o.common);
  MakingProgress progress(o.common);
  const service::ControlResult result =
      service::evaluate_control(o.request, {.making = progress.observer(), .stop = interrupted});
  std::vector<std::pair<std::string, std::string>> pictures;
  if (!o.output.html.empty()) pictures = pair_sheets(result.pictures);
  o.output.write(result.evaluation, pictures, o.common.json);
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
  options.output.add_to(list);
  service::describe(list, options.request);
  list.in_group(service::kMaking, [&] { options.adapters.add_to(list); });
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("eval control", [&] {
    check_given(app, options.request);
    return eval_control(options);
  });
}

}  // namespace ringlet::app
