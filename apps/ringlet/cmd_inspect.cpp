#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "option_words.h"
#include "options.h"
#include "ringlet/core/json.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/describe.h"
#include "ringlet/service/inspect.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

struct InspectOptions {
  CommonOptions common;
  std::string path;
  std::optional<std::string> tokens;
  std::string tokens_file;
  std::string model;
  pipeline::ModelFileOptions files;
};

std::string text_of(const Json& json) { return printable(json.get<std::string>()); }

/// A process without betas: what it says, field by field.
void print_process(const Json& process) {
  std::printf("  process     %s (%s)\n", text_of(process.at("process")).c_str(),
              text_of(process.at("source")).c_str());
  for (const auto& [field, value] : process.items()) {
    if (field == "process" || field == "source") continue;
    std::string label = field;
    std::ranges::replace(label, '_', ' ');
    std::printf(
        "  %-11s %s\n", printable(label).c_str(),
        value.is_string() ? text_of(value).c_str() : exact_number(value.get<double>()).c_str());
  }
}

void print_schedule(const Json& schedule) {
  if (schedule.contains("process")) return print_process(schedule);
  const auto number = [&](const char* name) { return exact_number(schedule.at(name)); };
  char snr[48] = "zero terminal SNR";
  if (!schedule.at("zero_terminal_snr").get<bool>())
    std::snprintf(snr, sizeof snr, "terminal SNR %.3g", schedule.at("terminal_snr").get<double>());
  std::printf("  schedule    %lld steps, betas %s %s to %s, %s (%s)\n  spacing     %s\n",
              static_cast<long long>(schedule.at("training_steps").get<std::int64_t>()),
              text_of(schedule.at("beta_schedule")).c_str(), number("beta_start").c_str(),
              number("beta_end").c_str(), snr, text_of(schedule.at("source")).c_str(),
              text_of(schedule.at("spacing")).c_str());
}

void print_table(const Json& description) {
  std::printf("%s\n  kind        %s\n", text_of(description.at("path")).c_str(),
              text_of(description.at("kind")).c_str());
  if (description.contains("prediction"))
    std::printf("  predicts    %s (%s)\n", text_of(description.at("prediction").at("type")).c_str(),
                text_of(description.at("prediction").at("source")).c_str());
  if (description.contains("schedule")) print_schedule(description.at("schedule"));
  if (description.contains("sampler"))
    std::printf("  sampler     %s\n", text_of(description.at("sampler")).c_str());
  std::printf("\n  %-28s %12s %9s %10s  %s\n", "component", "parameters", "tensors", "size",
              "types");
  for (const Json& part : description.at("components")) {
    std::vector<std::string> types;
    for (const auto& [type, count] : part.at("dtypes").items())
      types.push_back(part.at("dtypes").size() == 1
                          ? type
                          : type + " " + human_count(count.get<std::int64_t>()));
    std::printf("  %-28s %12s %9lld %10s  %s\n", text_of(part.at("name")).c_str(),
                human_count(part.at("parameters").get<std::int64_t>()).c_str(),
                static_cast<long long>(part.at("tensors").get<std::int64_t>()),
                human_bytes(part.at("bytes").get<std::uint64_t>()).c_str(), join(types).c_str());
  }
  constexpr std::size_t kLongest = 100;
  if (!description.at("metadata").empty()) std::printf("\n  metadata\n");
  for (const auto& [key, value] : description.at("metadata").items()) {
    auto text = value.get<std::string>();
    if (text.size() > kLongest) {
      text.resize(kLongest);
      while (!is_utf8(text)) text.pop_back();  // a character cut in the middle
      text += "… (--json shows all)";
    }
    std::printf("  %-28s %s\n", printable(key).c_str(), printable(text).c_str());
  }
  for (const Json& note : description.at("notes"))
    std::printf("\n  note: %s\n", text_of(note).c_str());
}

std::vector<std::string> token_texts(const InspectOptions& o) {
  std::vector<std::string> texts;
  if (o.tokens) texts.push_back(without_byte_order_mark(*o.tokens));
  if (o.tokens_file.empty()) return texts;
  if (!fs::exists(o.tokens_file) || fs::is_directory(o.tokens_file))
    throw Error(ErrorCode::not_found, o.tokens_file, "the file cannot be read");
  for (std::string& line : read_text_lines(o.tokens_file)) texts.push_back(std::move(line));
  return texts;
}

int inspect_tokens(const InspectOptions& o) {
  const auto tokenizer = service::open_tokenizer(
      o.path, o.files.t5_tokenizer.empty() ? o.files.tokenizer : o.files.t5_tokenizer);
  Json all = Json::array();
  for (const std::string& text : token_texts(o)) {
    const std::vector<std::int64_t> ids = tokenizer->ids(text);
    if (o.common.json) {
      all.push_back(ids);
      continue;
    }
    std::printf("\"%s\": %zu tokens with begin and end\n", printable(text).c_str(), ids.size());
    for (const std::int64_t id : ids)
      std::printf("  %6lld  %s\n", static_cast<long long>(id),
                  printable(tokenizer->token(id)).c_str());
    const auto limit = static_cast<std::size_t>(tokenizer->max_length());
    if (limit > 0 && ids.size() > limit)
      std::printf("  too long: a prompt holds %zu tokens; \"%s\" would be cut\n", limit,
                  printable(tokenizer->encode_prompt(text, tokenizer->max_length()).cut).c_str());
  }
  if (o.common.json) print_json(all);
  return 0;
}

void print_adapter(const Json& adapter) {
  std::printf("%s\n  written by  %s\n  layers      %zu, %s parameters\n",
              adapter.at("path").get<std::string>().c_str(),
              adapter.at("dialect").get<std::string>().c_str(),
              adapter.at("layers").get<std::size_t>(),
              human_count(adapter.at("parameters").get<std::int64_t>()).c_str());
  std::printf("\n  methods\n");
  std::vector<std::pair<int, std::string>> methods;
  for (const auto& [method, count] : adapter.at("methods").items())
    methods.emplace_back(count.get<int>(), method);
  std::ranges::sort(methods, std::greater());
  constexpr std::size_t kShown = 12;
  for (std::size_t i = 0; i < std::min(kShown, methods.size()); ++i)
    std::printf("  %5d  %s\n", methods[i].first, methods[i].second.c_str());
  if (methods.size() > kShown)
    std::printf("         … and %zu more (--json shows all)\n", methods.size() - kShown);
  for (const Json& decision : adapter.at("decisions"))
    std::printf("\n  understood: %s", decision.get<std::string>().c_str());
  std::printf("\n  every tensor of the file belongs to a layer of the model\n");
}

int inspect_adapter(const InspectOptions& o) {
  Json adapter = service::describe_adapter(o.path, o.model, o.files);
  for (Json& decision : adapter.at("decisions"))
    decision = with_options(decision.get<std::string>());
  if (o.common.json)
    print_json(adapter);
  else
    print_adapter(adapter);
  return 0;
}

/// Options that would be ignored.
void check_given(const CLI::App& app, const InspectOptions& o) {
  const bool tokens = o.tokens || !o.tokens_file.empty();
  if (tokens)
    refuse_given(app, {"--model", "--variant", "--text-encoder", "--vae"},
                 "it is for reading weights, and --tokens and --tokens-file only split texts",
                 "leave one of them out");
  else if (o.model.empty())
    refuse_given(app, {"--tokenizer", "--t5-tokenizer"}, "nothing is split into tokens",
                 "give --tokens or --tokens-file as well, or leave it out");
  if (!tokens && o.model.empty() && !fs::is_directory(o.path))
    refuse_given(app, {"--variant"}, o.path + " is a single file, which has no variants",
                 "leave it out; it is for model folders");
}

}  // namespace

int cmd_inspect(int argc, char** argv) {
  InspectOptions options;
  OptionList list;
  CLI::App app(
      "Show what a model, checkpoint, adapter or tokenizer contains.\nExamples:\n  ringlet "
      "inspect model.safetensors\n  ringlet inspect MODEL --tokens \"a photo of sks dog\"\n  "
      "ringlet inspect lora.safetensors --model MODEL",
      "inspect");
  list.add("path", options.path, "File or folder").positional().required();
  list.add("tokens", options.tokens, "Show how the tokenizer splits this text");
  list.add("tokens_file", options.tokens_file, "The same for every line of a text file");
  list.add("model", options.model,
           "For an adapter: how it is understood for this model (program, methods, axes, scales)");
  pipeline::describe(list, options.files);
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  check_given(app, options);
  if (!options.model.empty())
    return nn::with_ringlet_errors("inspect", [&] { return inspect_adapter(options); });
  if (options.tokens || !options.tokens_file.empty()) return inspect_tokens(options);
  Json description = pipeline::describe(options.path, options.files);
  for (Json& note : description.at("notes")) note = with_options(note.get<std::string>());
  if (options.common.json)
    print_json(description);
  else
    print_table(description);
  return 0;
}

}  // namespace ringlet::app
