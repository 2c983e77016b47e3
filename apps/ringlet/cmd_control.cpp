#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "canny_options.h"
#include "options.h"
#include "ringlet/data/control_signal.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/control_signals.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct ControlMakeOptions {
  CommonOptions common;
  std::string kind, images, given, out;
  data::CannyThresholds canny;
  std::int64_t size = 0;
};

int make_signals(const ControlMakeOptions& o) {
  service::SignalRequest request;
  request.settings = {data::control_signal_from_name(o.kind, Field("kind")), o.canny, o.given};
  request.images = o.images;
  request.out = o.out;
  request.size = o.size;
  std::optional<Progress> progress;
  const auto observe = [&](std::size_t done, std::size_t total) {
    if (done == 0)
      progress.emplace("control", total, o.common.quiet || o.common.json);
    else
      progress->advance();
    return !interrupted();
  };
  const std::size_t made = service::make_signals(request, observe);
  progress.reset();
  print_made(o.common.json, {{"out", o.out}, {"pictures", made}}, o.out);
  return 0;
}

}  // namespace

int cmd_control(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "--help";
  const bool help = word == "--help" || word == "-h" || word == kAsMarkdown;
  if (!help && word != "make")
    throw Error(ErrorCode::invalid_argument, "\"" + word + "\"", "control has no such verb",
                "use ringlet control make");
  ControlMakeOptions options;
  OptionList list;
  CLI::App app(
      "Make control signals from pictures: one per picture, as OUT/name.png.\nExample:\n  "
      "ringlet control make --kind canny --images photos --out edges",
      "control make");
  list.add("kind", options.kind,
           "canny: edges; segmentation: of drawings, by colour; landmark: drawn from files; map: "
           "given maps, scaled and cut")
      .required();
  list.add("images", options.images, "Folder of pictures, or one").required();
  list.add("given", options.given, "Folder with landmark files or maps, named like the pictures");
  list.add("out", options.out, "Folder for the signals").required();
  list.add("size", options.size, "Crop to squares of N x N pixels, as training does")
      .within(Range::at_least(0))
      .or_else("the pictures' sizes");
  add_canny(list, options.canny);
  options.common.add_to(list);
  if (const ParseResult done =
          help ? parse(app, list, argc, argv) : parse(app, list, argc - 1, argv + 1))
    return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("control", [&] {
    check_canny(app, options.kind == "canny" && options.given.empty());
    return make_signals(options);
  });
}

}  // namespace ringlet::app
