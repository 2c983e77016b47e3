// Requests of evaluations that C++ makes are refused as those of the command line are.
#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "ringlet/service/evaluate_control.h"
#include "ringlet/service/evaluate_subject.h"
#include "ringlet/service/method_comparison.h"
#include "ringlet/service/request_json.h"
#include "ringlet/service/sentence_similarity.h"
#include "tests/expect_error.h"

namespace ringlet::service {
namespace {

/// check() of the request, with one change.
template <class Request, class Change>
void expect_unchecked(const char* words, Request request, const Change& change) {
  check(request);
  change(request);
  expect_error(ErrorCode::invalid_argument, words, [&] { check(request); });
}

TEST(EvaluationRequests, OfControlAreChecked) {
  ControlRequest request;
  request.reference = "photos";
  request.generated = "made";
  expect_unchecked("samples: must be at least 1", request, [](auto& r) { r.making.samples = 0; });
  expect_unchecked("size: must not be negative", request, [](auto& r) { r.size = -1; });
  expect_unchecked("control_strength: must lie between 0 and 2", request,
                   [](auto& r) { r.strength = 9.0; });
  expect_unchecked("kind: the value is not supported here\n  use canny, segmentation or landmark",
                   request, [](auto& r) { r.kind = data::ControlSignal::map; });
  // The command would be called with no folder to write into.
  expect_unchecked("find_with: nothing has to be found", request,
                   [](auto& r) { r.find_with = "true"; });
  request.find_with = "true";
  request.kind = data::ControlSignal::landmark;
  request.landmarks = "true";
  check(request);
}

TEST(EvaluationRequests, OfSubjectsAreChecked) {
  SubjectRequest request;
  request.reference = "photos";
  request.generated = "made";
  expect_unchecked("samples: must be at least 1", request, [](auto& r) { r.making.samples = 0; });
  expect_unchecked("drift_with: and `drift_without` go together", request,
                   [](auto& r) { r.drift_with = "pictures"; });
}

TEST(EvaluationRequests, OfComparisonsAreChecked) {
  const eval::CellWords words = [](const eval::CellRun&) { return std::vector<std::string>(); };
  ComparisonRequest request;
  request.recipe = "recipe.toml";
  request.out = "runs";
  // Nothing starts the calling program in the place of ringlet.
  expect_error(ErrorCode::invalid_argument, "program: is needed",
               [&] { run_comparison(request, words); });
  request.program = "/bin/true";
  for (const int jobs : {0, -1, 1025}) {
    request.jobs = jobs;
    expect_error(ErrorCode::invalid_argument, "jobs: must lie between 1 and 1024",
                 [&] { run_comparison(request, words); });
    expect_error(ErrorCode::invalid_argument, "jobs: must lie between 1 and 1024",
                 [&] { plan_comparison(request, words); });
  }
}

TEST(EvaluationRequests, OfSentencesAreChecked) {
  SimilarityRequest request;
  request.model = "all-MiniLM-L6-v2";
  request.sentences = {"one"};
  expect_error(ErrorCode::invalid_argument, "sentences: at least two sentences are compared",
               [&] { sentence_cosines(request); });
  request.sentences.emplace_back("two");
  request.length = -1;
  expect_error(ErrorCode::invalid_argument, "length: must not be negative",
               [&] { sentence_cosines(request); });
}

// What to_json writes as a list, number or object would be lost on the way back.
TEST(EvaluationRequests, OptionsThatAreNoTextAreNotReadFromJson) {
  std::int64_t number = 3;
  for (const bool repeatable : {false, true}) {
    OptionList list;
    list.add("number",
             WrittenValue{.read = [](const auto&) {},
                          .value = [&] { return repeatable ? Json("3") : Json(number); },
                          .shown = [] { return std::string(); },
                          .repeatable = repeatable},
             "");
    const Json json = {{"number", "3"}};
    JsonFields fields(json);
    expect_error(ErrorCode::internal, "number: is not written as one text",
                 [&] { read_options(fields, list); });
  }
}

}  // namespace
}  // namespace ringlet::service
