#include "ringlet/service/method_comparison.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/text.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/launcher.h"
#include "ringlet/train/metrics_file.h"

namespace ringlet::service {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProgram = "ringlet";

std::string last_line(const std::string& text) {
  std::size_t end = text.size();
  while (end > 0 && text[end - 1] == '\n') --end;
  const std::size_t begin = text.rfind('\n', end == 0 ? 0 : end - 1);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1));
}

/// Runs cells, several at a time; a cell that another process works on is left to it.
class CellRunner {
 public:
  CellRunner(const eval::Recipe& recipe, const ComparisonRequest& options,
             const eval::CellWords& words, const StopChild& stop)
      : recipe_(recipe), options_(options), words_(words), stop_(stop) {}

  /// Until none of them is left; false: of those that are, others have each in hand. Throws the
  /// first error of a cell after the others have ended.
  bool run(const std::vector<eval::Cell>& cells, eval::Stage stage) {
    std::atomic<std::size_t> next = 0;
    std::vector<std::thread> workers;
    for (int i = 0; i < options_.jobs; ++i)
      workers.emplace_back([&] {
        for (std::size_t n = next++; n < cells.size(); n = next++)
          if (!stopped()) guarded(cells[n], stage);
      });
    for (std::thread& worker : workers) worker.join();
    if (failure_) std::rethrow_exception(failure_);
    if (told_to_stop())
      throw Error(ErrorCode::cancelled, "eval compare", "stopped",
                  "run the same command to continue");
    if (options_.no_wait && left(cells, stage) > 0) {
      log(LogLevel::info,
          "cells that are left to other processes: " + std::to_string(left(cells, stage)) +
              "; run the same command again when they are done, for what follows");
      return false;
    }
    wait_for_others(cells, stage);
    return true;
  }

 private:
  static bool done(const eval::Cell& cell, eval::Stage stage) {
    if (stage != eval::Stage::measure && fs::exists(cell.diverged())) return true;
    return fs::exists(cell.made_by(stage));
  }

  static std::ptrdiff_t left(const std::vector<eval::Cell>& cells, eval::Stage stage) {
    return std::ranges::count_if(cells, [&](const eval::Cell& cell) { return !done(cell, stage); });
  }

  bool told_to_stop() const { return stop_ && stop_(); }

  bool stopped() {
    const std::lock_guard lock(mutex_);
    return failure_ != nullptr || told_to_stop();
  }

  void guarded(const eval::Cell& cell, eval::Stage stage) {
    try {
      run_cell(cell, stage);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  void say(const eval::Cell& cell, const std::string& what) {
    const std::lock_guard lock(mutex_);
    log(LogLevel::info, cell.folder.filename().string() + ": " + what);
  }

  void run_cell(const eval::Cell& cell, eval::Stage stage) {
    eval::check_commands(recipe_, cell, words_);
    if (done(cell, stage)) return;
    make_folder(cell.folder);
    const FolderLock lock(cell.folder / "lock");
    if (!lock) return;  // wait_for_others sees to it
    if (!fs::exists(cell.cost())) train(cell, stage, lock);
    if (told_to_stop() || done(cell, stage)) return;
    say(cell, stage == eval::Stage::validate ? "validating" : "measuring");
    eval::write_down(recipe_, cell, stage, words_);
    const eval::CellRun evaluation = eval::cell_run(recipe_, cell, stage);
    expect_success(cell, evaluation, run(cell, evaluation, cell.folder / "eval.txt", lock));
  }

  ChildResult run(const eval::Cell& cell, eval::CellRun work, const fs::path& output,
                  const FolderLock& lock) {
    const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    const int threads =
        options_.threads > 0 ? options_.threads : std::max(1, cores / options_.jobs);
    work.options.emplace_back("threads", threads);
    work.options.emplace_back("device", options_.device);
    std::vector<std::string> words = words_(work);
    words.insert(words.begin(), kProgram);
    return run_program(options_.program, words, output, cell.folder / "log", lock, stop_);
  }

  void expect_success(const eval::Cell& cell, const eval::CellRun& work,
                      const ChildResult& result) const {
    if (result.status == 0 || told_to_stop()) return;
    const std::vector<std::string> words = words_(work);
    const fs::path log = cell.folder / "log";
    throw Error(ErrorCode::invalid_argument, cell.folder.string(),
                "\"ringlet " + words.front() + "\" ended with status " +
                    std::to_string(result.status) + ": " + last_line(read_file(log)),
                "see " + log.string() + "; the command was ringlet " + join(words, " "));
  }

  /// A learning rate of the search that diverges has lost; with a rate that won it is an error.
  void train(const eval::Cell& cell, eval::Stage stage, const FolderLock& lock) {
    say(cell, "training");
    const fs::path unfinished = cell.folder / "train.unfinished.json";
    eval::write_down(recipe_, cell, eval::Stage::train, words_);
    const eval::CellRun training = eval::cell_run(recipe_, cell, eval::Stage::train);
    const ChildResult result = run(cell, training, unfinished, lock);
    if (stage != eval::Stage::measure && result.status == exit_status(ErrorCode::non_finite)) {
      say(cell, "diverged");
      write_file_atomically(cell.diverged(), last_line(read_file(cell.folder / "log")) + "\n");
      return;
    }
    expect_success(cell, training, result);
    if (result.status != 0) return;  // interrupted
    const auto rows = train::read_metrics(cell.train() / "metrics.csv");
    fs::rename(unfinished, cell.plan());
    const Json cost = {{"seconds", rows.empty() ? 0.0 : rows.back().seconds},
                       {"peak_bytes", result.peak_bytes}};
    write_file_atomically(cell.cost(), cost.dump() + "\n");
  }

  /// Cells that other processes hold; theirs end, or are taken over when those have died.
  void wait_for_others(const std::vector<eval::Cell>& cells, eval::Stage stage) {
    constexpr auto kPause = std::chrono::seconds(2);
    for (const eval::Cell& cell : cells)
      while (!done(cell, stage)) {
        if (told_to_stop()) throw Error(ErrorCode::cancelled, "eval compare", "stopped");
        run_cell(cell, stage);
        if (!done(cell, stage)) std::this_thread::sleep_for(kPause);
      }
  }

  const eval::Recipe& recipe_;
  const ComparisonRequest& options_;
  const eval::CellWords& words_;
  const StopChild& stop_;
  std::mutex mutex_;
  std::exception_ptr failure_;
};

/// Those of a method with a single rate need no search.
std::vector<eval::Cell> cells_to_search(const eval::Recipe& recipe, const fs::path& out) {
  std::vector<eval::Cell> cells = eval::search_cells(recipe, out);
  std::erase_if(cells, [&](const eval::Cell& cell) {
    return recipe.methods[cell.method].learning_rates.size() == 1;
  });
  return cells;
}

ComparisonFiles report(const eval::Recipe& recipe, const ComparisonRequest& o,
                       const eval::CellWords& words) {
  const std::vector<eval::Cell> cells = eval::final_cells(recipe, o.out);
  for (const eval::Cell& cell : cells) eval::check_commands(recipe, cell, words);
  const std::vector<eval::ComparisonRow> rows = eval::comparison_rows(recipe, cells);
  if (rows.empty())
    throw Error(ErrorCode::not_found, o.out.string(), "no cell has been measured yet",
                "run it without `report_only`");
  const fs::path& out = o.out;
  const eval::ComparisonSheet sheet = eval::comparison_sheet(recipe, cells);
  write_file_atomically(out / "comparison.csv", eval::to_csv(rows));
  write_file_atomically(out / "comparison.md", eval::to_markdown(rows));
  write_file_atomically(out / "comparison.html", eval::to_html(recipe, rows, sheet));
  for (const auto& [name, plot] : eval::comparison_plots(rows)) {
    std::string file = name;
    std::ranges::replace_if(
        file, [](char c) { return c == '/' || c == ' '; }, '-');
    io::write_png(out / (file + ".png"), plot);
  }
  if (!sheet.image.pixels.empty()) io::write_png(out / "samples.png", sheet.image);
  return {rows, out / "comparison.html", out / "comparison.csv"};
}

void check_ranges(const ComparisonRequest& request) {
  ComparisonRequest described = request;
  OptionList list;
  describe(list, described);
  list.check();
}

}  // namespace

void describe(OptionList& list, ComparisonRequest& r) {
  list.add("recipe", r.recipe, "Recipe (TOML)").positional().required();
  list.add("out", r.out, "Folder for cells and report").required();
  list.add("jobs", r.jobs, "Cells at a time; each gets its share of the cores")
      .within(Range::between(1, 1024));
  list.add("report_only", r.report_only, "Report on what has been measured so far");
  list.add("no_wait", r.no_wait,
           "End when all cells that are left are being computed by other processes, instead of "
           "waiting for them: for members of job arrays");
}

ComparisonPlan plan_comparison(const ComparisonRequest& request, const eval::CellWords& words) {
  check_ranges(request);
  const eval::Recipe recipe = eval::read_recipe(request.recipe);
  ComparisonPlan plan{{}, recipe.methods.size(), recipe.seeds.size()};
  for (const eval::Cell& cell : cells_to_search(recipe, request.out))
    plan.search.push_back(words(eval::cell_run(recipe, cell, eval::Stage::train)));
  return plan;
}

ComparisonFiles run_comparison(const ComparisonRequest& request, const eval::CellWords& words,
                               const StopChild& stop) {
  return nn::with_ringlet_errors("comparison", [&] {
    check_ranges(request);
    if (request.program.empty() && !request.report_only)
      throw Error(ErrorCode::invalid_argument, Field("program"),
                  "is needed: it trains and measures the cells", "give the path of ringlet");
    const eval::Recipe recipe = eval::read_recipe(request.recipe);
    if (!request.report_only) {
      train::forget_launch();  // cells are processes of their own
      CellRunner runner(recipe, request, words, stop);
      const bool searched =
          runner.run(cells_to_search(recipe, request.out),
                     recipe.kind == "control" ? eval::Stage::train : eval::Stage::validate);
      if (!searched || !runner.run(eval::final_cells(recipe, request.out), eval::Stage::measure))
        return ComparisonFiles();
    }
    return report(recipe, request, words);
  });
}

}  // namespace ringlet::service
