// A comparison of methods by a recipe: its cells are trained and measured by the program, as
// children, several at a time, and reported on.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "ringlet/core/child_process.h"
#include "ringlet/core/option.h"
#include "ringlet/eval/comparison.h"

namespace ringlet::service {

struct ComparisonRequest {
  std::filesystem::path recipe;  ///< see eval::Recipe
  std::filesystem::path out;     ///< folder for cells and report
  int jobs = 1;                  ///< cells at a time
  bool report_only = false;
  bool no_wait = false;           ///< end when all that is left is other processes' work
  std::string device = "auto";    ///< of every cell
  int threads = 0;                ///< of a cell; 0 = its share of the processors
  std::filesystem::path program;  ///< `ringlet`, which trains and measures the cells
};

/// All but the device, the threads and the program.
void describe(OptionList& list, ComparisonRequest& request);

/// What a comparison would run.
struct ComparisonPlan {
  std::vector<std::vector<std::string>> search;  ///< commands of the search for learning rates
  std::size_t methods = 0, seeds = 0;            ///< trained and measured after it
};

/// Its commands are as `words` writes them. Throws Error(invalid_argument) for values out of range,
/// and as eval::read_recipe.
ComparisonPlan plan_comparison(const ComparisonRequest& request, const eval::CellWords& words);

struct ComparisonFiles {
  std::vector<eval::ComparisonRow> rows;
  std::filesystem::path page, table;  ///< comparison.html and comparison.csv
};

/// Does what is left of the cells, by commands of the program as `words` writes them without its
/// name, and reports. A cell that another process works on is left to it, and waited for unless the
/// request says otherwise: nothing is reported then, and the files have no names. Several processes
/// that mpirun, srun or a job array has started divide the cells so.
/// Throws Error(invalid_argument) for values out of range and, where it is more than a report,
/// without a program, Error(cancelled) once `stop` says so (the cells that are done stay),
/// Error(not_found) where nothing has been measured, the first error of a cell, and as the
/// functions of eval/comparison.h.
ComparisonFiles run_comparison(const ComparisonRequest& request, const eval::CellWords& words,
                               const StopChild& stop = {});

}  // namespace ringlet::service
