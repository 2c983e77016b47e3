// The half of comparison.h that reads recipes and lists cells; comparison.cpp is the half that
// tells what came out.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/core/toml_file.h"
#include "ringlet/eval/comparison.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

constexpr std::array kStageNames = {"train", "validate", "measure"};

/// What the comparison itself decides.
const std::set<std::string> kOwnTrainOptions = {"model",  "method", "learning-rate", "seed",
                                                "out",    "resume", "json",          "quiet",
                                                "config", "dry-run"};
const std::set<std::string> kOwnEvalOptions = {"model", "adapter", "generated",  "result",
                                               "html",  "json",    "controlnet", "config"};

void refuse_own(const Json& options, const std::set<std::string>& own, const std::string& where) {
  for (const auto& [key, value] : options.items())
    if (own.contains(key))
      throw Error(ErrorCode::invalid_argument, where, "\"" + key + "\" is set by the comparison",
                  "leave it out");
}

void refuse_unknown(const Json& object, const std::set<std::string>& known,
                    const std::string& where) {
  const std::vector<std::string> names(known.begin(), known.end());
  for (const auto& [key, value] : object.items())
    if (!known.contains(key)) {
      const std::string near = nearest_name(key, names);
      throw Error(ErrorCode::bad_format, where, "there is no field \"" + key + "\"",
                  near.empty() ? "known: " + join(names) : "did you mean \"" + near + "\"?");
    }
}

std::vector<double> positive(std::vector<double> rates, const std::string& where) {
  for (const double rate : rates)
    if (!(rate > 0.0 && std::isfinite(rate)))
      throw Error(ErrorCode::invalid_argument, where, "a learning rate must be above 0");
  return rates;
}

RecipeMethod read_method(const Json& json, const std::vector<double>& rates,
                         const std::string& where) {
  refuse_unknown(json, {"name", "method", "learning-rates", "train"}, where);
  RecipeMethod method;
  method.method = json_require<std::string>(json, "method", where);
  method.name = json_value(json, "name", method.method, where);
  method.learning_rates = positive(json_value(json, "learning-rates", rates, where), where);
  method.train = json_value(json, "train", Json::object(), where);
  refuse_own(method.train, kOwnTrainOptions, where + ": train");
  if (method.learning_rates.empty())
    throw Error(ErrorCode::invalid_argument, where, "there are no learning rates");
  return method;
}

/// A search goes by pictures or prompts that the test does not see.
void check_search(const Recipe& recipe, const std::string& where) {
  if (recipe.kind == "subject" && recipe.validation.empty())
    throw Error(
        ErrorCode::bad_format, where, "there is no [validation]",
        "learning rates are chosen with prompts other than the test prompts: list them there");
  if (recipe.kind != "control") return;
  for (const RecipeMethod& method : recipe.methods)
    if (method.learning_rates.size() > 1 && !recipe.train.contains("validation-pictures") &&
        !method.train.contains("validation-pictures"))
      throw Error(ErrorCode::bad_format, where, "[train] has no validation-pictures",
                  "learning rates are chosen by pictures that training holds out: say how many, or "
                  "name one rate");
}

/// Letters, digits, '.' and '-' of a name.
std::string folder_name(const std::string& name) {
  std::string folder;
  for (const char c : name)
    folder += (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-') ? c : '_';
  return folder;
}

Cell cell_of(const Recipe& recipe, const fs::path& out, std::size_t method, double rate,
             std::uint64_t seed) {
  const std::string name = folder_name(recipe.methods[method].name) + "-lr" + exact_number(rate) +
                           "-seed" + std::to_string(seed);
  return {method, rate, seed, out / "cells" / name};
}

/// A list stays one setting.
CellSettings settings_from(const Json& options, const std::string& where) {
  CellSettings settings;
  for (const auto& [key, value] : options.items()) {
    const bool table = std::ranges::any_of(value.is_array() ? value : Json::array({value}),
                                           [](const Json& one) { return one.is_object(); });
    if (table) throw Error(ErrorCode::bad_format, where, "\"" + key + "\" is a table, not a value");
    settings.emplace_back(key, value);
  }
  return settings;
}

constexpr double kDiverged = -std::numeric_limits<double>::infinity();

/// The last row of training's control.csv: step, loss, exchanged loss, metric. Nothing when
/// training held no pictures out.
std::optional<std::array<double, 4>> last_control_row(const Cell& cell) {
  std::ifstream stream(cell.train() / "control.csv");
  std::string line, last;
  while (std::getline(stream, line))
    if (!line.empty()) last = line;
  std::array<double, 4> numbers{};
  const char* at = last.data();
  const char* const end = at + last.size();
  for (double& number : numbers) {
    const auto [next, problem] = std::from_chars(at, end, number);
    if (problem != std::errc()) return std::nullopt;
    at = next == end ? next : next + 1;
  }
  return numbers;
}

/// A training goes on when its last validation fails (pictures that are not finite): then the last
/// row tells of an earlier step.
bool is_of_last_step(const std::array<double, 4>& row, const Cell& cell) {
  const std::string where = cell.plan().string();
  const Json plan = json_require<Json>(read_json_file(cell.plan()), "plan", where);
  return row[0] == json_require<double>(plan, "steps", where);
}

std::optional<double> control_score(const Cell& cell) {
  if (!fs::exists(cell.plan())) return std::nullopt;  // written when training has ended
  const auto row = last_control_row(cell);
  if (!row)
    throw Error(ErrorCode::not_found, (cell.train() / "control.csv").string(),
                "there is no validation score", "the recipe's [train] needs validation-pictures");
  if (!is_of_last_step(*row, cell)) return kDiverged;
  return std::isnan((*row)[3]) ? -(*row)[1] : (*row)[3];
}

std::optional<double> subject_score(const Cell& cell) {
  if (!fs::exists(cell.validation())) return std::nullopt;
  const Evaluation evaluation = read_evaluation(cell.validation());
  double score = evaluation.metrics.front().interval.mean;
  for (const Measured& metric : evaluation.metrics)
    if (metric.name == "CLIP-T") score += metric.interval.mean;
  return score;
}

double best_rate(const Recipe& recipe, const fs::path& out, std::size_t method) {
  const std::vector<double>& rates = recipe.methods[method].learning_rates;
  if (rates.size() == 1) return rates.front();  // nothing to choose
  double best_rate = rates.front(), best = kDiverged;
  for (const double rate : rates) {
    const Cell cell = cell_of(recipe, out, method, rate, recipe.seeds.front());
    const auto score = validation_score(recipe, cell);
    if (!score) throw Error(ErrorCode::not_found, cell.folder.string(), "is not trained yet");
    if (*score > best) best = *score, best_rate = rate;
  }
  if (best == kDiverged)
    throw Error(ErrorCode::non_finite, recipe.methods[method].name,
                "training diverged with every learning rate", "add lower ones to the recipe");
  return best_rate;
}

/// An evaluation of what a cell has trained.
CellRun evaluation_run(const Recipe& recipe, const Cell& cell, const fs::path& pictures,
                       const fs::path& result, const Json& options) {
  CellRun run{
      "eval " + recipe.kind,
      {{"model", recipe.model}, {"generated", pictures.string()}, {"result", result.string()}},
      settings_from(options, "eval")};
  const fs::path adapter = cell.train() / "adapter.safetensors";
  const fs::path controlnet = cell.train() / "controlnet";
  if (fs::exists(adapter)) run.own.emplace_back("adapter", adapter.string());
  if (fs::exists(controlnet)) run.own.emplace_back("controlnet", controlnet.string());
  return run;
}

CellRun training_run(const Recipe& recipe, const Cell& cell) {
  const RecipeMethod& method = recipe.methods[cell.method];
  Json options = recipe.train;
  options.update(method.train);
  return {"train",
          {{"model", recipe.model},
           {"method", method.method},
           {"learning_rate", cell.learning_rate},
           {"seed", cell.seed},
           {"out", cell.train().string()},
           {"resume", true}},
          settings_from(options, "train")};
}

CellRun validation_run(const Recipe& recipe, const Cell& cell) {
  Json options = recipe.eval;
  options.update(recipe.validation);
  return evaluation_run(recipe, cell, cell.folder / "validation", cell.validation(), options);
}

fs::path commands_file(const Cell& cell) { return cell.folder / "commands.json"; }

Json read_commands(const Cell& cell) {
  return fs::exists(commands_file(cell)) ? read_json_file(commands_file(cell)) : Json::object();
}

/// A command's words, with the cell's own folder written as ".": it may be spelled otherwise.
Json without_folder(const Cell& cell, std::vector<std::string> words) {
  const std::string folder = cell.folder.string();
  for (std::string& word : words)
    if (word.starts_with(folder)) word.replace(0, folder.size(), ".");
  return words;
}

[[noreturn]] void refuse_other(const Cell& cell, const std::string& was, const std::string& is) {
  throw Error(ErrorCode::mismatch, cell.folder.string(),
              "was made " + was + " and the recipe now says: " + is,
              "remove the folder, or choose another `out`");
}

}  // namespace

Recipe read_recipe(const fs::path& file) {
  const Json json = read_toml_file(file);
  const std::string where = file.string();
  refuse_unknown(json,
                 {"title", "kind", "model", "seeds", "learning-rates", "train", "eval",
                  "validation", "method"},
                 where);
  Recipe recipe;
  recipe.title = json_value(json, "title", file.stem().string(), where);
  recipe.kind = json_require<std::string>(json, "kind", where);
  if (recipe.kind != "control" && recipe.kind != "subject")
    throw Error(ErrorCode::invalid_argument, where, "kind \"" + recipe.kind + "\" is not known",
                "use control or subject");
  recipe.model = json_require<std::string>(json, "model", where);
  recipe.seeds = json_value(json, "seeds", std::vector<std::uint64_t>{1, 2, 3}, where);
  if (recipe.seeds.empty()) throw Error(ErrorCode::invalid_argument, where, "there are no seeds");
  if (std::set(recipe.seeds.begin(), recipe.seeds.end()).size() != recipe.seeds.size())
    throw Error(ErrorCode::invalid_argument, where, "a seed is listed twice");
  const auto rates =
      json_value(json, "learning-rates", std::vector<double>{5e-4, 1e-4, 5e-5}, where);
  recipe.train = json_value(json, "train", Json::object(), where);
  recipe.eval = json_value(json, "eval", Json::object(), where);
  refuse_own(recipe.train, kOwnTrainOptions, where + ": train");
  recipe.validation = json_value(json, "validation", Json::object(), where);
  refuse_own(recipe.eval, kOwnEvalOptions, where + ": eval");
  refuse_own(recipe.validation, kOwnEvalOptions, where + ": validation");
  const auto methods = json_require<std::vector<Json>>(json, "method", where);
  std::set<std::string> names;
  for (const Json& method : methods) {
    recipe.methods.push_back(read_method(method, rates, where));
    if (!names.insert(folder_name(recipe.methods.back().name)).second)
      throw Error(ErrorCode::invalid_argument, where,
                  "two methods are called \"" + recipe.methods.back().name + "\"");
  }
  if (recipe.methods.empty())
    throw Error(ErrorCode::invalid_argument, where, "there is no [[method]]");
  check_search(recipe, where);
  return recipe;
}

std::vector<Cell> search_cells(const Recipe& recipe, const fs::path& out) {
  std::vector<Cell> cells;
  for (std::size_t m = 0; m < recipe.methods.size(); ++m)
    for (const double rate : recipe.methods[m].learning_rates)
      cells.push_back(cell_of(recipe, out, m, rate, recipe.seeds.front()));
  return cells;
}

std::optional<double> held_out_loss(const Cell& cell) {
  const auto row = last_control_row(cell);
  return row && is_of_last_step(*row, cell) ? std::optional((*row)[1]) : std::nullopt;
}

std::optional<double> validation_score(const Recipe& recipe, const Cell& cell) {
  if (fs::exists(cell.diverged())) return kDiverged;
  return recipe.kind == "control" ? control_score(cell) : subject_score(cell);
}

std::vector<Cell> final_cells(const Recipe& recipe, const fs::path& out) {
  std::vector<double> rates;
  for (std::size_t m = 0; m < recipe.methods.size(); ++m)
    rates.push_back(best_rate(recipe, out, m));
  std::vector<Cell> cells;
  for (const std::uint64_t seed : recipe.seeds)
    for (std::size_t m = 0; m < recipe.methods.size(); ++m)
      cells.push_back(cell_of(recipe, out, m, rates[m], seed));
  return cells;
}

CellRun cell_run(const Recipe& recipe, const Cell& cell, Stage stage) {
  switch (stage) {
    case Stage::train:
      return training_run(recipe, cell);
    case Stage::validate:
      return validation_run(recipe, cell);
    case Stage::measure:
      return evaluation_run(recipe, cell, cell.pictures(), cell.result(), recipe.eval);
  }
  throw Error(ErrorCode::internal, "cell_run", "there is no such stage");
}

void write_down(const Recipe& recipe, const Cell& cell, Stage stage, const CellWords& words) {
  check_commands(recipe, cell, words);
  Json commands = read_commands(cell);
  commands[kStageNames[static_cast<std::size_t>(stage)]] =
      without_folder(cell, words(cell_run(recipe, cell, stage)));
  write_file_atomically(commands_file(cell), commands.dump(1) + "\n");
}

void check_commands(const Recipe& recipe, const Cell& cell, const CellWords& words) {
  const Json commands = read_commands(cell);
  for (const Stage stage : {Stage::train, Stage::validate, Stage::measure}) {
    const auto place = static_cast<std::size_t>(stage);
    const auto line = [](const Json& command) {
      return "ringlet " + join(command.get<std::vector<std::string>>(), " ");
    };
    if (!commands.contains(kStageNames[place])) {
      if (fs::exists(cell.made_by(stage)))
        refuse_other(cell, "by a command that was not recorded",
                     line(words(cell_run(recipe, cell, stage))));
      continue;
    }
    const Json is = without_folder(cell, words(cell_run(recipe, cell, stage)));
    const Json& was = commands.at(kStageNames[place]);
    if (was != is) refuse_other(cell, "by: " + line(was), line(is));
  }
}

}  // namespace ringlet::eval
