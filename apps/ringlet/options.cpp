#include "options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>

#include "installed_model.h"
#include "option_binding.h"
#include "ringlet/core/read_file.h"
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

/// What kohya's sd-scripts, diffusers and PEFT call options of `train`, where the spelling does not
/// lead here.
constexpr std::array<std::pair<std::string_view, std::string_view>, 22> kOthersNames = {{
    {"--pretrained-model-name-or-path", "--model"},
    {"--train-data-dir", "--instance-images"},
    {"--instance-data-dir", "--instance-images"},
    {"--reg-data-dir", "--class-images"},
    {"--class-data-dir", "--class-images"},
    {"--prior-loss-weight", "--prior-weight"},
    {"--output-dir", "--out"},
    {"--max-train-steps", "--steps"},
    {"--train-batch-size", "--batch-size"},
    {"--gradient-accumulation-steps", "--gradient-accumulation"},
    {"--network-dim", "--method \"lora(rank=N)\""},
    {"--rank", "--method \"lora(rank=N)\""},
    {"--network-alpha", "--method \"lora(rank=N,alpha=A)\""},
    {"--lora-alpha", "--method \"lora(rank=N,alpha=A)\""},
    {"--network-dropout", "--dropout"},
    {"--lr-scheduler", "--learning-rate-schedule"},
    {"--lr-warmup-steps", "--warmup-steps"},
    {"--text-encoder-lr", "--learning-rate-factor \"text_encoder*=FACTOR\""},
    {"--max-grad-norm", "--clip-norm"},
    {"--snr-gamma", "--min-snr-gamma"},
    {"--mixed-precision", "--precision"},
    {"--save-every-n-steps", "--checkpoint-every"},
}};

/// The option of this verb that another program's name stands for, or "".
std::string translated(const CLI::App& app, std::string name) {
  std::ranges::replace(name, '_', '-');
  const auto found =
      std::ranges::find(kOthersNames, name, [](const auto& row) { return row.first; });
  if (found == kOthersNames.end()) return "";
  const std::string_view ours = found->second;
  const std::vector<std::string> known = option_names(app);
  const bool exists = std::ranges::find(known, ours.substr(0, ours.find(' '))) != known.end();
  return exists ? std::string(ours) : "";
}

[[noreturn]] void unknown_option(const CLI::App& app, const std::string& text) {
  const std::string name = text.substr(0, text.find('='));
  if (!name.starts_with("-"))
    throw Error(ErrorCode::invalid_argument, "\"" + name + "\"", "is not expected here",
                "put text with spaces in quotes");
  const std::string known = translated(app, name);
  const std::string near = known.empty() ? nearest_name(name, option_names(app)) : known;
  throw Error(ErrorCode::invalid_argument, name, "there is no such option",
              (near.empty() ? "" : "did you mean " + near + "? ") + "see ringlet " +
                  app.get_name() + " --help");
}

[[noreturn]] void unknown_config_key(const CLI::App& app, const std::string& key) {
  const std::string near = nearest_name("--" + key, option_names(app));
  throw Error(ErrorCode::invalid_argument, "--config", "there is no option \"" + key + "\"",
              near.empty() ? "its keys are the options that ringlet " + app.get_name() +
                                 " --help lists, without the dashes"
                           : "did you mean \"" + near.substr(2) + "\"?");
}

/// CLI11 passes over keys that it does not know.
class StrictConfig final : public CLI::ConfigTOML {
 public:
  explicit StrictConfig(const CLI::App& app) : app_(app) {}
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    skip_byte_order_mark(input);
    std::vector<CLI::ConfigItem> entries = CLI::ConfigTOML::from_config(input);
    // Tables of data sets are read apart, by verbs that have some.
    if (app_.get_option_no_throw("--dataset-config") != nullptr)
      std::erase_if(entries, [](const CLI::ConfigItem& item) {
        return !item.parents.empty() && item.parents.front() == "dataset";
      });
    for (const CLI::ConfigItem& item : entries) {
      if (!item.parents.empty()) unknown_config_key(app_, "[" + item.parents.front() + "]");
      if (app_.get_option_no_throw("--" + item.name) == nullptr)
        unknown_config_key(app_, item.name);
    }
    return entries;
  }

 private:
  const CLI::App& app_;
};

/// CLI11 reports a missing option before an unknown one, which is often the same one misspelt.
void refuse_extras(const CLI::App& app) {
  const std::vector<std::string> extras = app.remaining();
  if (!extras.empty()) unknown_option(app, extras.front());
}

}  // namespace

CLI::Validator whole_number() {
  return {[](std::string& text) -> std::string {
            text.erase(0, std::min(text.find_first_not_of('0'), text.size() - 1));
            std::uint64_t number = 0;
            const char* end = text.data() + text.size();
            const auto [last, problem] = std::from_chars(text.data(), end, number);
            return problem == std::errc() && last == end ? "" : "must lie between 0 and 2^64 - 1";
          },
          ""};
}

void refuse_given(const CLI::App& app, std::initializer_list<const char*> options,
                  const std::string& what, const std::string& hint) {
  for (const char* option : options)
    if (app.count(option) > 0) throw Error(ErrorCode::invalid_argument, option, what, hint);
}

void refuse_group(const CLI::App& app, const std::string& title, const std::string& what,
                  const std::string& hint) {
  for (const CLI::Option* option : app.get_options())
    if (option->get_group() == title && option->count() > 0)
      throw Error(ErrorCode::invalid_argument, option->get_name(), what, hint);
}

void repeatable(CLI::Option* option) {
  option->take_all()->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

namespace {

/// A word, or "cuda:1".
WrittenValue device_choice(std::string& device) {
  WrittenValue value = word_choice("device", device, {"auto", "cpu", "cuda"});
  value.read = [&device, by_word = std::move(value.read)](const std::vector<std::string>& texts) {
    if (texts.back().starts_with("cuda:"))
      device = texts.back();
    else
      by_word(texts);
  };
  value.check = {};
  return value;
}

}  // namespace

void CommonOptions::add_to(OptionList& options) {
  constexpr double kMostThreads = 1024;
  options.in_group(kCommonOptions, [&] {
    options.add("device", device_choice(device), "Processor; cuda:N for one of several GPUs");
    options
        .add("precision", word_choice("precision", precision, {"auto", "fp32", "bf16", "fp16"}),
             "Type of the numbers; auto measures and chooses, and trains in fp32 on the CPU. On "
             "CUDA it is fp16, and for training "
             "bf16 where the GPU computes it")
        .or_else("fp32 on the CPU, auto on CUDA");
    options
        .add("threads", threads,
             "CPU threads; 0 = one per processor, and in train and tune fewer where other "
             "programs keep the processors busy and fewer are measured to be faster; "
             "0 leaves OMP_NUM_THREADS in force")
        .within(Range::between(0, kMostThreads));
    options.add("json", json, "Print the result as JSON on stdout");
    options.add("quiet", quiet, "Print only errors");
    options.add("verbose", verbose, "Print more");
  });
}

void CommonOptions::add_arithmetic_to(OptionList& options) {
  options.add("deterministic", deterministic,
              "On CUDA, two runs with the same options agree bit for bit; slower, and an error "
              "where an operator has no such form. On the CPU it is so anyway");
  options.add("tf32", tf32,
              "On CUDA, fp32 products and convolutions round their inputs to 10 bits of mantissa: "
              "several times as fast, with errors near 1e-3 instead of 1e-6");
}

void CommonOptions::apply() const {
  start_logging(verbose ? Verbosity::verbose : quiet ? Verbosity::quiet : Verbosity::normal);
  if (threads > 0) at::set_num_threads(threads);
}

bool CommonOptions::automatic_threads() const {
  return threads == 0 && std::getenv("OMP_NUM_THREADS") == nullptr;
}

c10::Device CommonOptions::select_device() const {
  const c10::Device chosen = nn::select_device(device);
  if (deterministic && chosen.is_cuda()) nn::use_deterministic_algorithms(true);
  if (tf32) nn::allow_tf32(true);
  return chosen;
}

c10::ScalarType CommonOptions::select_precision(c10::Device chosen, nn::Work work) const {
  return nn::select_precision(precision, chosen, work);
}

ParseResult parse(CLI::App& app, const OptionList& options, int argc, char** argv) {
  bind(app, options);
  app.config_formatter(std::make_shared<StrictConfig>(app));
  app.set_config("--config", "", "Read options from a TOML file; the command line takes precedence")
      ->group(kCommonOptions);
  if (argc == 2 && std::string_view(argv[1]) == kAsMarkdown) {
    std::fputs(reference(app, options).c_str(), stdout);
    return 0;
  }
  app.allow_extras();
  if (CLI::Option* model = app.get_option_no_throw("--model")) model->transform(installed_model);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::FileError& error) {
    throw Error(ErrorCode::not_found, "--config", error.what(), "check the file's name");
  } catch (const CLI::ParseError& error) {
    refuse_extras(app);
    throw Error(ErrorCode::invalid_argument, "ringlet " + app.get_name(), error.what(),
                "see ringlet " + app.get_name() + " --help");
  }
  refuse_extras(app);
  options.check();
  return std::nullopt;
}

}  // namespace ringlet::app
