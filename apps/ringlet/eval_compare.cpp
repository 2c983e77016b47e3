// `ringlet eval compare`: trains and measures the cells of a recipe, and reports.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <sstream>
#include <thread>

#include "child_process.h"
#include "eval_verbs.h"
#include "option_words.h"
#include "options.h"
#include "ringlet/core/atomic_file.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/text.h"
#include "ringlet/eval/comparison.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/metrics_file.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

struct CompareOptions {
  CommonOptions common;
  std::string recipe, out;
  int jobs = 1;
  bool report_only = false, dry_run = false;
};

std::string last_line(const std::string& text) {
  std::size_t end = text.size();
  while (end > 0 && text[end - 1] == '\n') --end;
  const std::size_t begin = text.rfind('\n', end == 0 ? 0 : end - 1);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1));
}

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

/// Runs cells, several at a time; a cell that another process works on is left to it.
class CellRunner {
 public:
  CellRunner(const eval::Recipe& recipe, const CompareOptions& options)
      : recipe_(recipe), options_(options) {}

  /// Until none of them is left. Throws the first error of a cell after the others have ended.
  void run(const std::vector<eval::Cell>& cells, eval::Stage stage) {
    std::atomic<std::size_t> next = 0;
    std::vector<std::thread> workers;
    for (int i = 0; i < options_.jobs; ++i)
      workers.emplace_back([&] {
        for (std::size_t n = next++; n < cells.size(); n = next++)
          if (!stopped()) guarded(cells[n], stage);
      });
    for (std::thread& worker : workers) worker.join();
    if (failure_) std::rethrow_exception(failure_);
    if (interrupted())
      throw Error(ErrorCode::cancelled, "eval compare", "stopped",
                  "the same command continues with what is left");
    wait_for_others(cells, stage);
  }

 private:
  static bool done(const eval::Cell& cell, eval::Stage stage) {
    if (stage != eval::Stage::measure && fs::exists(cell.diverged())) return true;
    return fs::exists(cell.made_by(stage));
  }

  bool stopped() {
    const std::lock_guard lock(mutex_);
    return failure_ != nullptr || interrupted();
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
    eval::check_commands(recipe_, cell, command_of);
    if (done(cell, stage)) return;
    make_folder(cell.folder);
    const FolderLock lock(cell.folder / "lock");
    if (!lock) return;  // wait_for_others sees to it
    if (!fs::exists(cell.cost())) train(cell, stage, lock);
    if (interrupted() || done(cell, stage)) return;
    say(cell, stage == eval::Stage::validate ? "validating" : "measuring");
    eval::write_down(recipe_, cell, stage, command_of);
    const auto words = command_of(eval::cell_run(recipe_, cell, stage));
    expect_success(cell, words, run(cell, words, cell.folder / "eval.txt", lock));
  }

  std::vector<std::string> with_threads(std::vector<std::string> words) const {
    const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
    const unsigned threads = options_.common.threads > 0
                                 ? static_cast<unsigned>(options_.common.threads)
                                 : std::max(1U, cores / static_cast<unsigned>(options_.jobs));
    words.insert(words.end(),
                 {"--threads", std::to_string(threads), "--device", options_.common.device});
    return words;
  }

  ChildResult run(const eval::Cell& cell, const std::vector<std::string>& words,
                  const fs::path& output, const FolderLock& lock) {
    return run_self(with_threads(words), output, cell.folder / "log", lock);
  }

  static void expect_success(const eval::Cell& cell, const std::vector<std::string>& words,
                             const ChildResult& result) {
    if (result.status == 0 || interrupted()) return;
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
    eval::write_down(recipe_, cell, eval::Stage::train, command_of);
    const auto words = command_of(eval::cell_run(recipe_, cell, eval::Stage::train));
    const ChildResult result = run(cell, words, unfinished, lock);
    if (stage != eval::Stage::measure && result.status == exit_status(ErrorCode::non_finite)) {
      say(cell, "diverged");
      write_file_atomically(cell.diverged(), last_line(read_file(cell.folder / "log")) + "\n");
      return;
    }
    expect_success(cell, words, result);
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
        if (interrupted()) throw Error(ErrorCode::cancelled, "eval compare", "stopped");
        run_cell(cell, stage);
        if (!done(cell, stage)) std::this_thread::sleep_for(kPause);
      }
  }

  const eval::Recipe& recipe_;
  const CompareOptions& options_;
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

void report(const eval::Recipe& recipe, const CompareOptions& o) {
  const std::vector<eval::Cell> cells = eval::final_cells(recipe, o.out);
  for (const eval::Cell& cell : cells) eval::check_commands(recipe, cell, command_of);
  const std::vector<eval::ComparisonRow> rows = eval::comparison_rows(recipe, cells);
  if (rows.empty())
    throw Error(ErrorCode::not_found, o.out, "no cell has been measured yet",
                "run it without --report-only");
  const fs::path out = o.out;
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
  if (o.common.json)
    print_json({{"report", (out / "comparison.html").string()},
                {"csv", (out / "comparison.csv").string()},
                {"methods", rows.size()}});
  else
    std::printf("%s%s\n", eval::to_markdown(rows).c_str(), (out / "comparison.html").c_str());
}

int compare(const CompareOptions& o) {
  if (!o.common.precision.empty())
    throw Error(ErrorCode::invalid_argument, "--precision", "is the recipe's to say",
                "write precision = \"" + o.common.precision + "\" into its [train] and [eval]");
  const eval::Recipe recipe = eval::read_recipe(o.recipe);
  const std::vector<eval::Cell> search = cells_to_search(recipe, o.out);
  if (o.dry_run) {
    for (const eval::Cell& cell : search)
      std::printf("search: ringlet %s\n",
                  join(command_of(eval::cell_run(recipe, cell, eval::Stage::train)), " ").c_str());
    std::printf("then, with the best learning rates: %zu methods x %zu seeds\n",
                recipe.methods.size(), recipe.seeds.size());
    return 0;
  }
  if (!o.report_only) {
    CellRunner runner(recipe, o);
    runner.run(search, recipe.kind == "control" ? eval::Stage::train : eval::Stage::validate);
    runner.run(eval::final_cells(recipe, o.out), eval::Stage::measure);
  }
  report(recipe, o);
  return 0;
}

}  // namespace

int cmd_eval_compare(int argc, char** argv) {
  CompareOptions options;
  OptionList list;
  CLI::App app(
      "Train every method of a recipe, with a search for its learning rate and several seeds, "
      "measure them, and report. What is done stays done: the same command continues after a stop, "
      "and several of them, on machines that share --out, share the work.\nExample:\n  ringlet "
      "eval "
      "compare examples/paper/control-starter.toml --out runs/control",
      "eval compare");
  list.add("recipe", options.recipe, "Recipe (TOML)").positional().required();
  list.add("out", options.out, "Folder for cells and report").required();
  list.add("jobs", options.jobs, "Cells at a time; each gets its share of the cores")
      .within(Range::between(1, 1024));
  list.add("report_only", options.report_only, "Report on what has been measured so far");
  list.add("dry_run", options.dry_run, "Show the runs and stop");
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("eval compare", [&] { return compare(options); });
}

}  // namespace ringlet::app
