// Recipes, their cells, and what a comparison says of results that are made up here.
#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "ringlet/core/toml_file.h"
#include "ringlet/eval/comparison.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRecipe = R"toml(
title = "Two methods"
kind = "control"
model = "M"
seeds = [7, 8]
learning-rates = [1e-2, 1e-3]
[train]
control = "canny"
flip = true
sample-prompt = ["a", "b"]
steps = 5
validation-pictures = 2
[eval]
kind = "canny"
reference = "R"
[[method]]
name = "LoRA r=2"
method = "lora(rank=2)"
[[method]]
method = "trm(rank=2)"
learning-rates = [0.5]
train = { steps = 9 }
)toml";

class Comparison : public testing::Test {
 protected:
  Recipe recipe(const std::string& text = kRecipe) const {
    std::ofstream(folder_ / "recipe.toml") << text;
    return read_recipe(folder_ / "recipe.toml");
  }

  /// A cell as if it had been trained and measured: F1 of three pictures.
  static void pretend(const Cell& cell, double score, const std::vector<double>& f1) {
    fs::create_directories(cell.train());
    fs::create_directories(cell.pictures());
    std::ofstream(cell.train() / "control.csv")
        << "step,loss,exchanged_loss,metric\n0,1,1,0\n5,0.5,0.9," << score << "\n";
    std::ofstream(cell.plan())
        << R"({"plan": {"parameters": 150, "control_parameters": 50, "steps": 5}})";
    std::ofstream(cell.cost()) << R"({"seconds": 4, "peak_bytes": 2097152})";
    Evaluation evaluation;
    evaluation.kind = "control canny";
    std::vector<Sample> samples;
    for (std::size_t i = 0; i < f1.size(); ++i) {
      const std::string name = "p" + std::to_string(i);
      samples.push_back({name + "-s1", name, f1[i]});
      io::write_png(cell.pictures() / (name + "-s1.png"), train::waves(static_cast<int>(i), 8, 8));
    }
    evaluation.metrics = {measured("F1", true, samples)};
    std::ofstream(cell.result()) << to_json(evaluation).dump();
  }

  TemporaryFolder folder_;
};

TEST_F(Comparison, ReadsARecipe) {
  const Recipe r = recipe();
  EXPECT_EQ(r.title, "Two methods");
  ASSERT_EQ(r.methods.size(), 2u);
  EXPECT_EQ(r.methods[1].name, "trm(rank=2)");
  EXPECT_EQ(r.methods[0].learning_rates, (std::vector<double>{1e-2, 1e-3}));
  EXPECT_EQ(r.methods[1].learning_rates, (std::vector<double>{0.5}));
  const auto cells = search_cells(r, folder_ / "out");
  ASSERT_EQ(cells.size(), 3u);
  EXPECT_EQ(cells[0].folder, folder_ / "out/cells/LoRA_r_2-lr0.01-seed7");
  const CellRun run = cell_run(r, cells[2], Stage::train);
  EXPECT_EQ(run.verb, "train");
  const CellSettings own = {
      {"model", "M"}, {"method", "trm(rank=2)"},          {"learning_rate", 0.5},
      {"seed", 7u},   {"out", cells[2].train().string()}, {"resume", true}};
  EXPECT_EQ(run.own, own);
  const std::map<std::string, Json> options(run.options.begin(), run.options.end());
  EXPECT_EQ(options.at("flip"), true);
  EXPECT_EQ(options.at("sample-prompt"), Json({"a", "b"}));
  EXPECT_EQ(options.at("steps"), 9);
}

TEST_F(Comparison, RefusesBadRecipes) {
  const auto expect_refusal = [&](ErrorCode code, const char* words, const std::string& from,
                                  const std::string& to) {
    std::string text = kRecipe;
    text.replace(text.find(from), from.size(), to);
    expect_error(code, words, [&] { recipe(text); });
  };
  using enum ErrorCode;
  expect_refusal(bad_format, "recipe.toml:3:", "kind = \"control\"", "kind = ");
  expect_refusal(bad_format, "did you mean \"seeds\"", "seeds =", "seed =");
  expect_refusal(bad_format, "\"model\" is missing", "model = \"M\"", "");
  expect_refusal(invalid_argument, "use control or subject", "kind = \"control\"",
                 "kind = \"speed\"");
  expect_refusal(invalid_argument, "set by the comparison", "flip = true", "seed = 3");
  expect_refusal(invalid_argument, "no seeds", "[7, 8]", "[]");
  expect_refusal(invalid_argument, "above 0", "[1e-2, 1e-3]", "[0.0]");
  expect_refusal(invalid_argument, "two methods are called", "method = \"trm(rank=2)\"",
                 "method = \"trm(rank=2)\"\nname = \"LoRA r=2\"");
  expect_refusal(bad_format, "no [validation]", "kind = \"control\"", "kind = \"subject\"");
  expect_refusal(bad_format, "no validation-pictures", "validation-pictures = 2", "");
  expect_refusal(invalid_argument, "a seed is listed twice", "[7, 8]", "[7, 7]");
  expect_error(not_found, "does not exist", [&] { read_recipe(folder_ / "none.toml"); });
}

TEST_F(Comparison, TheBestRateGoesOnWithAllSeeds) {
  const Recipe r = recipe();
  const fs::path out = folder_ / "out";
  expect_error(ErrorCode::not_found, "not trained yet", [&] { final_cells(r, out); });
  const auto search = search_cells(r, out);
  pretend(search[0], 0.25, {0.1});
  pretend(search[1], 0.75, {0.1});
  EXPECT_EQ(validation_score(r, search[1]), 0.75);
  const auto cells = final_cells(r, out);
  ASSERT_EQ(cells.size(), 4u);
  EXPECT_EQ(cells[0].folder, search[1].folder);
  EXPECT_EQ(cells[1].learning_rate, 0.5);
  EXPECT_EQ(cells[1].seed, 7u);  // all methods before the next seed
  EXPECT_EQ(cells[2].seed, 8u);
  EXPECT_EQ(cells[2].learning_rate, 1e-3);
  // Without a metric the loss decides.
  std::ofstream(search[0].train() / "control.csv") << "h\n5,0.5,0.9,nan\n";
  EXPECT_EQ(validation_score(r, search[0]), -0.5);
  // An earlier step's score is not the last one's, and what diverged has lost.
  constexpr double kLost = -std::numeric_limits<double>::infinity();
  std::ofstream(search[0].train() / "control.csv") << "h\n4,0.5,0.9,0.99\n";
  EXPECT_EQ(validation_score(r, search[0]), kLost);
  EXPECT_FALSE(held_out_loss(search[0]).has_value());
  std::ofstream(search[1].diverged()) << "not finite\n";
  EXPECT_EQ(validation_score(r, search[1]), kLost);
  expect_error(ErrorCode::non_finite, "every learning rate", [&] { final_cells(r, out); });
  std::ofstream(search[0].train() / "control.csv") << "";
  expect_error(ErrorCode::not_found, "validation-pictures",
               [&] { validation_score(r, search[0]); });
}

/// A run as the test writes it.
std::vector<std::string> words_of(const CellRun& run) {
  std::vector<std::string> words = {run.verb};
  for (const CellSettings* settings : {&run.own, &run.options})
    for (const auto& [field, value] : *settings) {
      words.push_back(field);
      words.push_back(value.is_string() ? value.get<std::string>() : value.dump());
    }
  return words;
}

TEST_F(Comparison, ACellBelongsToTheCommandsThatMadeIt) {
  const Recipe r = recipe();
  const fs::path out = folder_ / "out";
  const Cell cell = search_cells(r, out)[0];
  fs::create_directories(cell.folder);
  check_commands(r, cell, words_of);
  write_down(r, cell, Stage::train, words_of);
  write_down(r, cell, Stage::train, words_of);  // a stopped one goes on
  std::string text = kRecipe;
  text.replace(text.find("lora(rank=2)"), 12, "lora(rank=9)");
  expect_error(ErrorCode::mismatch, "method lora(rank=2)",
               [&] { check_commands(recipe(text), cell, words_of); });
  pretend(cell, 0.5, {0.1});
  expect_error(ErrorCode::mismatch, "not recorded", [&] { check_commands(r, cell, words_of); });
  fs::remove(cell.result());
  write_down(r, cell, Stage::measure, words_of);
  check_commands(r, cell, words_of);
  // The folder's name may be written otherwise.
  Cell moved = cell;
  moved.folder = folder_ / "out/../out/cells" / cell.folder.filename();
  check_commands(r, moved, words_of);
  text = kRecipe;
  text.replace(text.find("reference = \"R\""), 15, "reference = \"S\"");
  expect_error(ErrorCode::mismatch, "ringlet eval control",
               [&] { check_commands(recipe(text), cell, words_of); });
}

TEST_F(Comparison, SubjectsAreChosenByOtherPrompts) {
  std::string text = kRecipe;
  text.replace(text.find("control"), 7, "subject");
  const Recipe r = recipe(text + "[validation]\nprompts = \"others.txt\"\n");
  const auto search = search_cells(r, folder_ / "out");
  EXPECT_FALSE(validation_score(r, search[0]).has_value());
  fs::create_directories(search[0].folder);
  Evaluation evaluation;
  evaluation.metrics = {measured("DINO", true, {{"a", "a", 0.5}}),
                        measured("CLIP-I", true, {{"a", "a", 0.9}}),
                        measured("CLIP-T", true, {{"a", "a", 0.25}})};
  std::ofstream(search[0].validation()) << to_json(evaluation).dump();
  EXPECT_EQ(validation_score(r, search[0]), 0.75);
  const std::pair<std::string, Json> others = {"prompts", "others.txt"};
  const CellSettings chosen_by = cell_run(r, search[0], Stage::validate).options;
  EXPECT_NE(std::ranges::find(chosen_by, others), chosen_by.end());
  const CellSettings measured_by = cell_run(r, search[0], Stage::measure).options;
  EXPECT_EQ(std::ranges::find(measured_by, others), measured_by.end());
}

TEST_F(Comparison, PutsSeedsTogetherAndComparesPairs) {
  const Recipe r = recipe();
  const fs::path out = folder_ / "out";
  for (const Cell& cell : search_cells(r, out)) pretend(cell, 0.5, {0.5, 0.6, 0.7});
  const auto cells = final_cells(r, out);
  pretend(cells[0], 0.5, {0.5, 0.6, 0.7});
  pretend(cells[1], 0.5, {0.7, 0.8, 0.9});
  pretend(cells[2], 0.5, {0.5, 0.6, 0.7});
  pretend(cells[3], 0.5, {0.7, 0.8, 0.9});
  const auto rows = comparison_rows(r, cells);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].parameters, 100);
  EXPECT_EQ(rows[0].runs, 2u);
  EXPECT_EQ(rows[0].seconds, 4.0);
  EXPECT_NEAR(rows[1].metrics[0].interval.mean, 0.8, 1e-12);
  EXPECT_EQ(rows[1].metrics[0].interval.units, 3u);
  EXPECT_EQ(rows[1].metrics[0].interval.runs, 2u);
  EXPECT_NEAR(rows[1].to_first[0]->interval.low, 0.2, 1e-12);
  EXPECT_EQ(rows[1].to_first[0]->positive, 1.0);
  // The loss on held-out pictures is one number of each run.
  ASSERT_EQ(rows[0].metrics.size(), 2u);
  EXPECT_EQ(rows[0].metrics[1].name, "held-out loss");
  EXPECT_FALSE(rows[0].metrics[1].higher_is_better);
  EXPECT_EQ(rows[0].metrics[1].interval.mean, 0.5);
  EXPECT_EQ(rows[0].metrics[1].interval.runs, 2u);
  EXPECT_EQ(rows[1].to_first[1]->interval.mean, 0.0);
  const std::string table = to_markdown(rows), csv = to_csv(rows);
  EXPECT_NE(table.find("F1 (higher is better)"), std::string::npos) << table;
  EXPECT_NE(table.find("| trm(rank=2) | 100 | 0.5 | 2 | 0.8 ["), std::string::npos) << table;
  EXPECT_NE(csv.find("\"trm(rank=2)\",\"trm(rank=2)\",100,0.5,2,\"F1\",0.7999"), std::string::npos)
      << csv;
  EXPECT_EQ(comparison_sheet(r, cells).image.width, 2 * 8);
  EXPECT_EQ(comparison_sheet(r, cells).columns,
            (std::vector<std::string>{"LoRA r=2", "trm(rank=2)"}));
  const std::string page = to_html(r, rows, comparison_sheet(r, cells));
  EXPECT_NE(page.find("Two methods"), std::string::npos);
  EXPECT_NE(page.find("data:image/png"), std::string::npos);
  fs::remove(cells[0].train() / "control.csv");
  fs::remove(cells[2].train() / "control.csv");
  EXPECT_EQ(comparison_rows(r, cells)[0].metrics.size(), 1u);
  // Where a method's second seed is missing, its pairs are those of the first.
  fs::remove(cells[3].result());
  EXPECT_EQ(comparison_rows(r, cells)[1].to_first[0]->interval.runs, 1u);
  fs::rename(cells[1].result(), cells[3].result());  // seed 8 alone, beside seed 7 alone
  fs::remove(cells[2].result());
  EXPECT_FALSE(comparison_rows(r, cells)[1].to_first[0].has_value());
}

// References are photos, of another size and type than the samples.
TEST_F(Comparison, TheSheetNamesItsColumns) {
  fs::create_directories(folder_ / "R");
  std::string text = kRecipe;
  text.replace(text.find("\"R\""), 3, "\"" + (folder_ / "R").string() + "\"");
  const Recipe r = recipe(text);
  const auto cells = search_cells(r, folder_ / "out");
  for (const Cell& cell : cells) pretend(cell, 0.5, {0.5, 0.6});
  for (const char* name : {"p0.jpg", "p1.png"})
    io::write_png(folder_ / "R" / name, train::waves(0, 12, 20));
  const ComparisonSheet sheet = comparison_sheet(r, {cells[0], cells[2]});
  EXPECT_EQ(sheet.columns, (std::vector<std::string>{"reference", "LoRA r=2", "trm(rank=2)"}));
  EXPECT_EQ(sheet.image.width, 3 * 8);
  EXPECT_EQ(sheet.image.height, 2 * 8);
  fs::remove(folder_ / "R/p0.jpg");
  EXPECT_EQ(comparison_sheet(r, {cells[0], cells[2]}).columns.size(), 2u);
}

TEST(Evaluation, IsReadBackAndCompared) {
  const TemporaryFolder folder;
  Evaluation a;
  a.kind = "control canny";
  a.protocol = {{"size", "128"}};
  a.settings = {{"generated", "made"}};
  a.metrics = {measured("F1", true, {{"p-s1", "p", 0.5}, {"q-s1", "q", 0.7}})};
  a.notes = {"one was left out"};
  std::ofstream(folder / "a.json") << to_json(a).dump();
  const Evaluation read = read_evaluation(folder / "a.json");
  EXPECT_EQ(to_json(read), to_json(a));
  EXPECT_NE(to_text(read).find("0.6 [0.5, 0.7]"), std::string::npos) << to_text(read);
  EXPECT_NE(to_html(read, {}).find("one was left out"), std::string::npos);
  Evaluation b = a;
  b.metrics[0].samples[0].value = 0.3;
  EXPECT_NEAR(compare(a, b)[0].second.interval.mean, 0.1, 1e-12);
  b.metrics[0].samples[0].unit = "z";
  expect_error(ErrorCode::mismatch, "belongs to", [&] { compare(a, b); });
  b.metrics[0].samples[0].unit = "p";
  b.metrics[0].samples.pop_back();
  expect_error(ErrorCode::mismatch, "only the first", [&] { compare(a, b); });
  b.kind = "subject";
  expect_error(ErrorCode::mismatch, "the other", [&] { compare(a, b); });
  std::ofstream(folder / "b.json") << "{}";
  expect_error(ErrorCode::bad_format, "kind", [&] { read_evaluation(folder / "b.json"); });
}

TEST(Toml, BecomesJson) {
  const TemporaryFolder folder;
  std::ofstream(folder / "a.toml") << "a = 1\nb = [1.5, \"x\"]\n[t]\nc = true\nd = 2020-01-02\n";
  EXPECT_EQ(read_toml_file(folder / "a.toml"),
            parse_json(R"({"a": 1, "b": [1.5, "x"], "t": {"c": true, "d": "2020-01-02"}})", "t"));
  std::ofstream(folder / "a.toml") << "a = 1\na = 2\n";
  expect_error(ErrorCode::bad_format, "a.toml:2:", [&] { read_toml_file(folder / "a.toml"); });
}

}  // namespace
}  // namespace ringlet::eval
