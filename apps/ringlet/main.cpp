#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "console.h"
#include "option_binding.h"
#include "options.h"
#include "rank_process.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/core/version.h"
#include "ringlet/nn/torch_errors.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct Verb {
  const char* name;
  const char* help;
  int (*run)(int argc, char** argv);
};

constexpr std::array kVerbs = {
    Verb{"generate", "Make pictures from text (and from pictures)", cmd_generate},
    Verb{"train", "Teach a model a subject or style with a small adapter", cmd_train},
    Verb{"tune", "Fine-tune language, vision, speech and other networks with the same adapters",
         cmd_tune},
    Verb{"control", "Make control signals from pictures: edges, segmentations, landmarks",
         cmd_control},
    Verb{"control-run", "Steer a training run that is at work: sample, save, stop, status",
         cmd_control_run},
    Verb{"eval", "Measure pictures and compare methods", cmd_eval},
    Verb{"merge", "Merge adapters into a model's weights", cmd_merge},
    Verb{"convert", "Convert an adapter to another program's format or to another form",
         cmd_convert},
    Verb{"extract", "Extract an adapter from the difference of two models", cmd_extract},
    Verb{"inspect", "Show what a model, adapter or tokenizer contains", cmd_inspect},
    Verb{"bench", "Measure training and generation on this machine", cmd_bench},
    Verb{"doctor", "Check this machine and print what to fix", cmd_doctor},
};

constexpr const char* kReferenceHead =
    "# The command line\n"
    "\n"
    "All verbs and their options. `ringlet help --markdown` prints this page, and a test compares\n"
    "the two: regenerate it with `build/release/bin/ringlet help --markdown > docs/cli.md`.\n"
    "\n"
    "`ringlet VERB --help`, or `ringlet help VERB`, shows a verb's options on the terminal.\n"
    "`--config FILE` reads options from a TOML file: its keys are the options without the dashes,\n"
    "and the command line takes precedence.\n";

void print_help() {
  std::printf(
      "ringlet %s: small adapters for text-to-image diffusion models\n\nUsage: ringlet VERB "
      "[OPTIONS]\n\nVerbs:\n",
      kVersion);
  for (const Verb& verb : kVerbs) std::printf("  %-12s %s\n", verb.name, verb.help);
  std::printf("\n\"ringlet VERB --help\" lists a verb's options.\n");
}

const Verb& find_verb(std::string_view word) {
  std::vector<std::string> names;
  for (const Verb& verb : kVerbs) {
    if (word == verb.name) return verb;
    names.emplace_back(verb.name);
  }
  const std::string near = nearest_name(word, names);
  throw Error(ErrorCode::invalid_argument, "\"" + std::string(word) + "\"", "there is no such verb",
              near.empty() ? "use one of " + join(names) : "did you mean \"" + near + "\"?");
}

/// Runs a verb with one word in place of its options.
int ask(const Verb& verb, const char* word) {
  std::string name = verb.name, option = word;
  std::array<char*, 3> words = {name.data(), option.data(), nullptr};
  return verb.run(2, words.data());
}

/// docs/cli.md: every verb with its options.
int print_reference() {
  CommonOptions common;
  OptionList options;
  common.add_to(options);
  std::fputs(kReferenceHead, stdout);
  std::fputs(reference(options).c_str(), stdout);
  for (const Verb& verb : kVerbs) ask(verb, kAsMarkdown);
  return 0;
}

/// `ringlet help VERB`, and `ringlet help --markdown`.
int help_on(std::string_view word) {
  return word == "--markdown" ? print_reference() : ask(find_verb(word), "--help");
}

int dispatch(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "--help";
  if (word == "help" && argc > 2) return help_on(argv[2]);
  if (word == "--help" || word == "-h" || word == "help") {
    print_help();
    return 0;
  }
  if (word == "--version") {
    std::printf("ringlet %s\n", kVersion);
    return 0;
  }
  return find_verb(word).run(argc - 1, argv + 1);
}

int run(int argc, char** argv) {
  bool json = false;
  for (int i = 1; i < argc; ++i) json = json || std::string_view(argv[i]) == "--json";
  try {
    return dispatch(argc, argv);
  } catch (const Error& error) {
    return report_of_rank(error, json);
  } catch (const std::exception& problem) {
    return report_of_rank(nn::to_error(problem, "ringlet"), json);
  }
}

}  // namespace
}  // namespace ringlet::app

int main(int argc, char** argv) { return ringlet::app::run(argc, argv); }
