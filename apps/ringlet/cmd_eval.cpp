#include <algorithm>
#include <array>
#include <cstdio>

#include "eval_verbs.h"
#include "options.h"
#include "ringlet/core/atomic_file.h"
#include "ringlet/core/text.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/torch_errors.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct EvalVerb {
  const char* name;
  const char* help;
  int (*run)(int argc, char** argv);
};

constexpr std::array kEvalVerbs = {
    EvalVerb{"control", "How well pictures follow their edges, segmentation, landmarks",
             cmd_eval_control},
    EvalVerb{"subject", "Fidelity to subject and prompt: DINO, CLIP-I, CLIP-T, diversity",
             cmd_eval_subject},
    EvalVerb{"set", "Distances between two sets of pictures: FID, KID, CMMD", cmd_eval_set},
    EvalVerb{"similarity", "Cosine similarity of sentences by a sentence encoder",
             cmd_eval_similarity},
    EvalVerb{"compare", "Train and measure several methods by a recipe: tables, plots, a report",
             cmd_eval_compare},
    EvalVerb{"difference", "Compare two results over the same samples, pair by pair",
             cmd_eval_difference},
};

void print_help() {
  std::printf(
      "Measure generated pictures, and sentences.\n\nUsage: ringlet eval VERB "
      "[OPTIONS]\n\nVerbs:\n");
  for (const EvalVerb& verb : kEvalVerbs) std::printf("  %-10s %s\n", verb.name, verb.help);
  std::printf("\n\"ringlet eval VERB --help\" lists a verb's options.\n");
}

}  // namespace

void EvalOutput::add_to(OptionList& list) {
  list.add("result", json, "File for the results as JSON, including every sample's");
  list.add("html", html, "File for an HTML page with the table and pictures");
}

void EvalOutput::write(const eval::Evaluation& evaluation,
                       const std::vector<std::pair<std::string, std::string>>& pictures,
                       bool print_json) const {
  // Folders and file names need not be UTF-8.
  const std::string numbers =
      eval::to_json(evaluation).dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (!json.empty()) write_file_atomically(json, numbers);
  if (!html.empty()) write_file_atomically(html, eval::to_html(evaluation, pictures));
  std::printf("%s", print_json ? numbers.c_str() : eval::to_text(evaluation).c_str());
}

std::vector<std::pair<std::string, std::string>> pair_sheets(
    const std::vector<eval::ControlPair>& pairs) {
  constexpr std::size_t kMost = 24, kColumns = 8;
  std::vector<io::Image> row;
  std::string names;
  for (std::size_t i = 0; i < std::min(kMost, pairs.size()); ++i) {
    row.push_back(io::read_image(pairs[i].reference));
    row.push_back(io::read_image(pairs[i].generated));
    names += (names.empty() ? "" : ", ") + pairs[i].id;
  }
  if (row.empty()) return {};
  return {{"each reference with the pictures generated for it: " + names,
           io::encode_png(io::image_grid(row, kColumns))}};
}

int cmd_eval(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "--help";
  if (word == "--help" || word == "-h") {
    print_help();
    return 0;
  }
  if (word == kAsMarkdown) {
    for (const EvalVerb& verb : kEvalVerbs) verb.run(argc, argv);
    return 0;
  }
  std::vector<std::string> names;
  for (const EvalVerb& verb : kEvalVerbs) {
    if (word == verb.name) return verb.run(argc - 1, argv + 1);
    names.emplace_back(verb.name);
  }
  throw Error(ErrorCode::invalid_argument, "\"" + word + "\"", "eval has no such verb",
              "use one of " + join(names));
}

int cmd_eval_difference(int argc, char** argv) {
  CommonOptions common;
  std::string first, second, html;
  OptionList list;
  CLI::App app(
      "Compare two results of ringlet eval over the same samples: means of the differences, with "
      "intervals.\nExample:\n  ringlet eval difference lora.json tlora.json",
      "eval difference");
  list.add("first", first, "Result (--result) of the first run").positional().required();
  list.add("second", second, "Result of the second run, which is subtracted")
      .positional()
      .required();
  list.add("html", html, "File for an HTML page with the differences");
  common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  common.apply();
  return nn::with_ringlet_errors("eval difference", [&] {
    const std::vector<eval::NamedDifference> differences =
        eval::compare(eval::read_evaluation(first), eval::read_evaluation(second));
    if (!html.empty()) write_file_atomically(html, eval::to_html(differences, first, second));
    std::printf("%s", common.json ? (eval::to_json(differences).dump(1) + "\n").c_str()
                                  : eval::to_text(differences).c_str());
    return 0;
  });
}

}  // namespace ringlet::app
