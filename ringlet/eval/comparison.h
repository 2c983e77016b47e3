// Comparisons of methods by a recipe: which runs there are, which learning rate a method gets, and
// the tables, plots and page that come of it. Nothing here trains or generates: a program runs the
// cells (service/method_comparison.h), each in a folder of its own, so that work can be resumed
// and shared.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/eval/evaluation.h"
#include "ringlet/io/image.h"

namespace ringlet::eval {

struct RecipeMethod {
  std::string name;    ///< in tables; unique
  std::string method;  ///< as adapt/method.h reads it
  std::vector<double> learning_rates;
  Json train = Json::object();  ///< further options of its training
};

/// A recipe file (TOML):
///   title, kind ("control" or "subject"), model, seeds, learning-rates
///   [train]       options of `ringlet train` without dashes, for all methods
///   [eval]        options of `ringlet eval KIND`, for all methods
///   [validation]  subject: what differs when learning rates are chosen, other prompts above all
///   [[method]]  name, method; optional learning-rates and train
struct Recipe {
  std::string title;
  std::string kind;
  std::string model;
  std::vector<std::uint64_t> seeds;
  std::vector<RecipeMethod> methods;
  Json train = Json::object();
  Json eval = Json::object();
  Json validation = Json::object();
};

/// Throws Error(not_found | bad_format | invalid_argument) that names the field.
Recipe read_recipe(const std::filesystem::path& file);

/// What is done with a cell.
enum class Stage { train, validate, measure };

/// One training run and its evaluation.
struct Cell {
  std::size_t method = 0;
  double learning_rate = 0.0;
  std::uint64_t seed = 0;
  std::filesystem::path folder;

  std::filesystem::path train() const { return folder / "train"; }
  std::filesystem::path pictures() const { return folder / "pictures"; }
  std::filesystem::path result() const { return folder / "result.json"; }
  std::filesystem::path validation() const { return folder / "validation.json"; }
  std::filesystem::path plan() const {
    return folder / "train.json";
  }  ///< what training printed as JSON
  std::filesystem::path cost() const { return folder / "cost.json"; }
  /// There when the stage is done.
  std::filesystem::path made_by(Stage stage) const {
    return stage == Stage::train ? cost() : stage == Stage::validate ? validation() : result();
  }
  /// There when training came to numbers that are not finite.
  std::filesystem::path diverged() const { return folder / "diverged"; }
};

/// Every method with each of its learning rates and the first seed: what the search trains.
std::vector<Cell> search_cells(const Recipe& recipe, const std::filesystem::path& out);

/// What the search goes by, never the test pictures. Control: the last score on the pictures that
/// training held out; without a metric minus their loss. Subject: DINO plus CLIP-T (or the first
/// metric alone) of the validation prompts. Minus infinity when training diverged or could not be
/// validated after its last step; nothing while it is not known yet. Throws Error(not_found) when
/// training held nothing out.
std::optional<double> validation_score(const Recipe& recipe, const Cell& cell);

/// The denoising loss on the pictures that training held out, after its last step; control only.
/// Nothing when there is none of that step.
std::optional<double> held_out_loss(const Cell& cell);

/// Every method with the rate that did best and all seeds, seed by seed, so that what is measured
/// before a stop compares all methods. Throws Error(not_found) while a cell of the search is not
/// trained, Error(non_finite) for a method that diverged with every rate.
std::vector<Cell> final_cells(const Recipe& recipe, const std::filesystem::path& out);

/// Settings by field, in the order in which they are given: text, number, truth, or a list of them.
using CellSettings = std::vector<std::pair<std::string, Json>>;

/// What makes a stage of a cell.
struct CellRun {
  std::string verb;      ///< "train", or what the evaluation is called: "eval control"
  CellSettings own;      ///< what the comparison decides
  CellSettings options;  ///< what the recipe says besides
};

/// Throws Error(bad_format) for a recipe's option that is a table.
CellRun cell_run(const Recipe& recipe, const Cell& cell, Stage stage);

/// How a program writes a run: the words of its command.
using CellWords = std::function<std::vector<std::string>(const CellRun&)>;

/// Writes down, before a stage is begun, by which command the cell is made (commands.json), so that
/// a changed recipe does not take the old cell for its own. Throws as check_commands.
void write_down(const Recipe& recipe, const Cell& cell, Stage stage, const CellWords& words);

/// Throws Error(mismatch) when the cell was made, or begun, by other commands than the recipe's.
void check_commands(const Recipe& recipe, const Cell& cell, const CellWords& words);

/// A method's line of the table.
struct ComparisonRow {
  std::string name;
  std::string method;
  double learning_rate = 0.0;
  std::int64_t parameters = 0;  ///< of the adapters, a control encoder left out
  std::vector<Measured> metrics;
  /// Of each metric, this minus the first row.
  std::vector<std::optional<PairedDifference>> to_first;
  double seconds = 0.0;          ///< of training, mean over the seeds
  std::uint64_t peak_bytes = 0;  ///< the largest
  std::size_t runs = 0;
};

/// From the cells that are evaluated; methods without any are left out. The loss on held-out
/// pictures, where there is one, is a metric beside those of the evaluation. Numbers of all seeds
/// are put together as runs; set metrics get the mean over runs and the outermost of their
/// intervals.
std::vector<ComparisonRow> comparison_rows(const Recipe& recipe, const std::vector<Cell>& cells);

std::string to_markdown(const std::vector<ComparisonRow>& rows);
std::string to_csv(const std::vector<ComparisonRow>& rows);

/// Each metric against parameters, with intervals.
std::vector<std::pair<std::string, io::Image>> comparison_plots(
    const std::vector<ComparisonRow>& rows);

/// The same samples of every method beside each other.
struct ComparisonSheet {
  io::Image image;                   ///< a row per reference; empty without samples
  std::vector<std::string> columns;  ///< "reference", where its picture is found, then the methods
};

ComparisonSheet comparison_sheet(const Recipe& recipe, const std::vector<Cell>& cells);

/// The whole comparison as one page.
std::string to_html(const Recipe& recipe, const std::vector<ComparisonRow>& rows,
                    const ComparisonSheet& sheet);

}  // namespace ringlet::eval
