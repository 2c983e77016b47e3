#include "options.h"

#include <cstdio>
#include <vector>

#include <ATen/Parallel.h>

#include "ringlet/core/text.h"
#include "ringlet/nn/device.h"

namespace ringlet::app {
namespace {

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

[[noreturn]] void unknown_option(const CLI::App& app, const std::string& text) {
  const std::string name = text.substr(0, text.find('='));
  if (!name.starts_with("-"))
    throw Error(ErrorCode::invalid_argument, "\"" + name + "\"", "is not expected here",
                "put texts with spaces into quotes");
  const std::string near = nearest_name(name, option_names(app));
  throw Error(ErrorCode::invalid_argument, name, "there is no such option",
              (near.empty() ? "" : "did you mean " + near + "? ") + "see ringlet " +
                  app.get_name() + " --help");
}

}  // namespace

void CommonOptions::add_to(CLI::App& app) {
  app.set_config("--config", "", "Read options from a TOML file; the command line wins");
  app.add_option("--device", device, "auto, cpu or cuda")->capture_default_str();
  app.add_option("--precision", precision,
                 "fp32, bf16, fp16, or auto: measure and choose [fp32 on the CPU, auto on CUDA]");
  app.add_option("--threads", threads, "CPU threads; 0 = one per core")->capture_default_str();
  app.add_flag("--json", json, "Print the result as JSON on stdout");
  app.add_flag("--quiet", quiet, "Say nothing but errors");
  app.add_flag("--verbose", verbose, "Say more");
}

void CommonOptions::apply() const {
  start_logging(verbose ? Verbosity::verbose : quiet ? Verbosity::quiet : Verbosity::normal);
  constexpr int kMostThreads = 1024;
  if (threads < 0 || threads > kMostThreads)
    throw Error(ErrorCode::invalid_argument, "--threads", "must lie between 0 and 1024");
  if (threads > 0) at::set_num_threads(threads);
}

c10::Device CommonOptions::select_device() const { return nn::select_device(device); }

c10::ScalarType CommonOptions::select_precision(c10::Device chosen) const {
  const std::string usual = chosen.is_cpu() ? "fp32" : "auto";
  return nn::select_precision(precision.empty() ? usual : precision, chosen);
}

ParseResult parse(CLI::App& app, int argc, char** argv) {
  app.allow_extras();
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::FileError& error) {
    throw Error(ErrorCode::not_found, "--config", error.what());
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorCode::invalid_argument, "ringlet " + app.get_name(), error.what(),
                "see ringlet " + app.get_name() + " --help");
  }
  const std::vector<std::string> extras = app.remaining();
  if (!extras.empty()) unknown_option(app, extras.front());
  return std::nullopt;
}

}  // namespace ringlet::app
