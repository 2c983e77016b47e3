// `ringlet eval compare`: trains and measures the cells of a recipe, and reports.
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval_verbs.h"
#include "option_words.h"
#include "options.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/method_comparison.h"

namespace ringlet::app {
namespace {

struct CompareOptions {
  CommonOptions common;
  service::ComparisonRequest request;
  bool dry_run = false;
};

/// A setting as words of the command line; a list repeats its option.
void add_words(std::vector<std::string>& words, const std::string& field, const Json& value) {
  if (value.is_array()) {
    for (const Json& one : value) add_words(words, field, one);
    return;
  }
  if (value.is_boolean()) {
    if (value.get<bool>()) words.push_back(option_of(field));
    return;
  }
  words.push_back(option_of(field));
  words.push_back(value.is_string()         ? value.get<std::string>()
                  : value.is_number_float() ? exact_number(value.get<double>())
                                            : value.dump());
}

/// The command that makes a stage of a cell, without the program's name.
std::vector<std::string> command_of(const eval::CellRun& run) {
  std::vector<std::string> words;
  std::istringstream verb(run.verb);
  for (std::string word; verb >> word;) words.push_back(word);
  for (const auto& [field, value] : run.own) add_words(words, field, value);
  if (run.verb == "train") words.emplace_back("--json");  // the cell keeps the plan
  for (const auto& [field, value] : run.options) add_words(words, field, value);
  return words;
}

int show_commands(const service::ComparisonRequest& request) {
  const service::ComparisonPlan plan = service::plan_comparison(request, command_of);
  for (const std::vector<std::string>& words : plan.search)
    std::printf("search: ringlet %s\n", join(words, " ").c_str());
  std::printf("then, with the best learning rates: %zu methods x %zu seeds\n", plan.methods,
              plan.seeds);
  return 0;
}

int compare(CompareOptions& o) {
  if (!o.common.precision.empty())
    throw Error(ErrorCode::invalid_argument, "--precision", "is set by the recipe",
                "write precision = \"" + o.common.precision + "\" into its [train] and [eval]");
  if (o.dry_run) return show_commands(o.request);
  o.request.device = o.common.device;
  o.request.threads = o.common.threads;
  o.request.program = "/proc/self/exe";
  const service::ComparisonFiles made = service::run_comparison(o.request, command_of, interrupted);
  if (made.page.empty()) return 0;  // others go on
  if (o.common.json)
    print_json({{"report", made.page.string()},
                {"csv", made.table.string()},
                {"methods", made.rows.size()}});
  else
    std::printf("%s%s\n", eval::to_markdown(made.rows).c_str(), made.page.c_str());
  return 0;
}

}  // namespace

int cmd_eval_compare(int argc, char** argv) {
  CompareOptions options;
  OptionList list;
  CLI::App app(
      "Train every method of a recipe, with a search for its learning rate and several seeds, "
      "measure them, and report. Finished cells are kept: the same command continues after a stop, "
      "and several commands on machines that share --out divide the work, also as tasks of mpirun, "
      "srun or a job array.\nExample:\n  ringlet "
      "eval compare examples/paper/control-starter.toml --out runs/control",
      "eval compare");
  service::describe(list, options.request);
  list.add("dry_run", options.dry_run, "Print the runs and stop");
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("eval compare", [&] { return compare(options); });
}

}  // namespace ringlet::app
