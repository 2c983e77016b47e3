#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "console.h"
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
    Verb{"tune", "The same adapters on networks of language, vision, speech and others", cmd_tune},
    Verb{"control", "Make control signals from pictures: edges, segmentations, landmarks",
         cmd_control},
    Verb{"eval", "Measure pictures and compare methods", cmd_eval},
    Verb{"merge", "Write adapters into a model's weights", cmd_merge},
    Verb{"convert", "Turn an adapter into another program's or another form", cmd_convert},
    Verb{"extract", "Turn the difference of two models into an adapter", cmd_extract},
    Verb{"inspect", "Say what a model, adapter or tokenizer holds", cmd_inspect},
    Verb{"doctor", "Check this machine and say what to mend", cmd_doctor},
};

void print_help() {
  std::printf(
      "ringlet %s: small adapters for text-to-image diffusion models\n\nUsage: ringlet VERB "
      "[OPTIONS]\n\nVerbs:\n",
      kVersion);
  for (const Verb& verb : kVerbs) std::printf("  %-10s %s\n", verb.name, verb.help);
  std::printf("\n\"ringlet VERB --help\" lists a verb's options.\n");
}

int dispatch(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "--help";
  if (word == "--help" || word == "-h" || word == "help") {
    print_help();
    return 0;
  }
  if (word == "--version") {
    std::printf("ringlet %s\n", kVersion);
    return 0;
  }
  std::vector<std::string> names;
  for (const Verb& verb : kVerbs) {
    if (word == verb.name) return verb.run(argc - 1, argv + 1);
    names.emplace_back(verb.name);
  }
  const std::string near = nearest_name(word, names);
  throw Error(ErrorCode::invalid_argument, "\"" + std::string(word) + "\"", "there is no such verb",
              near.empty() ? "use one of " + join(names) : "did you mean \"" + near + "\"?");
}

int run(int argc, char** argv) {
  bool json = false;
  for (int i = 1; i < argc; ++i) json = json || std::string_view(argv[i]) == "--json";
  try {
    return dispatch(argc, argv);
  } catch (const Error& error) {
    return report(error, json);
  } catch (const std::exception& problem) {
    return report(nn::to_error(problem, "ringlet"), json);
  }
}

}  // namespace
}  // namespace ringlet::app

int main(int argc, char** argv) { return ringlet::app::run(argc, argv); }
