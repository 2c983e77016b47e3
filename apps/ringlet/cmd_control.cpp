#include <cstddef>
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
  service::SignalRequest request;
};

int make_signals(const ControlMakeOptions& o) {
  std::optional<Progress> progress;
  const auto observe = [&](std::size_t done, std::size_t total) {
    if (done == 0)
      progress.emplace("control", total, o.common.quiet || o.common.json);
    else
      progress->advance();
    return !interrupted();
  };
  const std::size_t made = service::make_signals(o.request, observe);
  progress.reset();
  const std::string out = o.request.out.string();
  print_made(o.common.json, {{"out", out}, {"pictures", made}}, out);
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
  service::describe(list, options.request);
  options.common.add_to(list);
  if (const ParseResult done =
          help ? parse(app, list, argc, argv) : parse(app, list, argc - 1, argv + 1))
    return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("control", [&] {
    const data::ControlSettings& settings = options.request.settings;
    check_canny(app, settings.signal == data::ControlSignal::canny && settings.folder.empty());
    return make_signals(options);
  });
}

}  // namespace ringlet::app
