// Requests for pictures and models as JSON.
#include "ringlet/service/picture_request.h"

#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/service/convert.h"
#include "ringlet/service/extract.h"
#include "ringlet/service/generator.h"
#include "ringlet/service/merge.h"
#include "tests/expect_error.h"

namespace ringlet::service {
namespace {

Json full_request() {
  return {{"prompt", {"a cat", "a dog"}},
          {"negative_prompt", "rain"},
          {"images", 3},
          {"batch_size", 2},
          {"seed", std::numeric_limits<std::uint64_t>::max()},
          {"width", 64},
          {"height", 48},
          {"steps", 7},
          {"sampler", "dpmpp-2m-karras"},
          {"spacing", "trailing"},
          {"guidance", 6.5},
          {"guidance_rescale", 0.25},
          {"eta", 0.5},
          {"clip_skip", 2},
          {"init_image", "start.png"},
          {"strength", 0.75},
          {"mask_image", "mask.png"},
          {"latents", "noise.safetensors"},
          {"control_image", "edges.png"},
          {"control", "canny"},
          {"canny_low", 50.0},
          {"canny_high", 150.0},
          {"control_strength", 1.5}};
}

void expect_refused(const Json& json, const std::string& field, const std::string& words) {
  try {
    picture_request_from_json(json);
    ADD_FAILURE() << "no error for " << field;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << error.what();
    EXPECT_TRUE(error.at_field()) << error.what();
    EXPECT_EQ(error.where(), field);
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(PictureRequest, EveryFieldSurvivesJson) {
  const Json json = full_request();
  EXPECT_EQ(to_json(picture_request_from_json(json)), json);
  // What is not given stays as it is in C++, and reads back as that.
  const PictureRequest least = picture_request_from_json({{"prompt", "a cat"}});
  EXPECT_EQ(least.prompts, std::vector<std::string>{"a cat"});
  EXPECT_EQ(least.steps, PictureRequest().steps);
  EXPECT_FALSE(least.seed);
  EXPECT_FALSE(least.negative_prompt);
  EXPECT_EQ(to_json(picture_request_from_json(to_json(least))), to_json(least));
  EXPECT_EQ(picture_request_from_json({{"prompt", "a"}, {"negative_prompt", ""}}).negative_prompt,
            "");
}

TEST(PictureRequest, UnknownFieldsAreRefusedWithTheNearestName) {
  expect_refused({{"prompt", "a"}, {"stesp", 3}}, "stesp", "did you mean \"steps\"?");
  expect_refused({{"prompt", "a"}, {"negativePrompt", "b"}}, "negativePrompt",
                 "did you mean \"negative_prompt\"?");
  expect_refused({{"prompt", "a"}, {"zzzzzzzzzz", 1}}, "zzzzzzzzzz", "the fields are prompt,");
  expect_refused(Json::array(), "request", "not a JSON object");
}

TEST(PictureRequest, ValuesOfAnotherTypeAreRefused) {
  for (const auto& [field, value] :
       std::vector<std::pair<std::string, Json>>{{"prompt", 1},
                                                 {"prompt", {"a", 2}},
                                                 {"steps", 1.5},
                                                 {"steps", "3"},
                                                 {"steps", true},
                                                 {"seed", -1},
                                                 {"guidance", "7"},
                                                 {"init_image", 3},
                                                 {"sampler", Json::array()}}) {
    Json json = {{"prompt", "a"}};
    json[field] = value;
    expect_refused(json, field, "wrong type");
  }
}

TEST(PictureRequest, LimitsAreThoseOfTheFields) {
  for (const auto& [field, value] :
       std::vector<std::pair<std::string, Json>>{{"steps", 0},
                                                 {"steps", 1001},
                                                 {"images", 0},
                                                 {"images", 10001},
                                                 {"batch_size", 0},
                                                 {"batch_size", 1025},
                                                 {"guidance", -0.5},
                                                 {"guidance", 1001},
                                                 {"guidance_rescale", 1.5},
                                                 {"eta", 2},
                                                 {"strength", 1.25},
                                                 {"control_strength", 3}}) {
    Json json = {{"prompt", "a"}, {"init_image", "a.png"}, {"control_image", "b.png"}};
    json[field] = value;
    expect_refused(json, field, "must lie between");
  }
  expect_refused({{"steps", 3}}, "prompt", "a prompt is needed");
  expect_refused({{"prompt", Json::array()}}, "prompt", "a prompt is needed");
  expect_refused({{"prompt", "a"}, {"spacing", "wide"}}, "spacing", "use leading");
}

TEST(PictureRequest, FieldsThatSayNothingAloneAreRefused) {
  expect_refused({{"prompt", "a"}, {"strength", 0.5}}, "strength", "`init_image`");
  expect_refused({{"prompt", "a"}, {"control", "canny"}}, "control_image", "need it");
  expect_refused({{"prompt", "a"}, {"control_image", "b.png"}, {"control", "landmark"}}, "control",
                 "use canny or segmentation");
  expect_refused({{"prompt", "a"}, {"control_image", "b.png"}, {"canny_low", 5}}, "canny_low",
                 "`control=canny`");
}

TEST(ModelRequest, EveryFieldSurvivesJson) {
  const Json json = {
      {"model", "models/xl"},
      {"variant", "fp16"},
      {"tokenizer", "tokens"},
      {"prediction", "v"},
      {"zero_terminal_snr", true},
      {"text_tokens", 77},
      {"device", "cpu"},
      {"precision", "bf16"},
      {"low_memory", true},
      {"base_storage", "nf4"},
      {"offload_layers", "3"},
      {"adapters",
       {{{"file", "a.safetensors"}, {"strength", 0.5}},
        {{"file", "b.safetensors"}, {"strength", 1.0}, {"blocks", {{"unet.up_blocks.*", 0.25}}}}}},
      {"embeddings", {{{"file", "cat.safetensors"}, {"word", "sks"}}}},
      {"controlnet", "edges"}};
  EXPECT_EQ(to_json(model_request_from_json(json)), json);
  const ModelRequest least = model_request_from_json({{"model", "m"}, {"device", "cpu"}});
  EXPECT_EQ(least.load.precision, at::kFloat);
  EXPECT_TRUE(least.adapters.empty());
}

TEST(ModelRequest, ErrorsNameTheFieldInItsPlace) {
  expect_error(ErrorCode::invalid_argument, "model: is needed",
               [] { model_request_from_json(Json::object()); });
  expect_error(ErrorCode::invalid_argument, "did you mean \"low_memory\"?", [] {
    model_request_from_json({{"model", "m"}, {"low_memroy", true}});
  });
  expect_error(ErrorCode::invalid_argument, "adapters[1].file: is needed", [] {
    model_request_from_json({{"model", "m"}, {"adapters", {{{"file", "a"}}, {{"strength", 1.0}}}}});
  });
  expect_error(ErrorCode::invalid_argument, "adapters[0].strenth", [] {
    model_request_from_json({{"model", "m"}, {"adapters", {{{"file", "a"}, {"strenth", 1.0}}}}});
  });
  expect_error(ErrorCode::invalid_argument, "is not known", [] {
    model_request_from_json({{"model", "m"}, {"prediction", "sample"}});
  });
}

TEST(MergeRequest, EveryFieldSurvivesJson) {
  const Json json = {{"model", "models/1"},
                     {"out", "both.safetensors"},
                     {"variant", "fp16"},
                     {"tokenizer", "tokens"},
                     {"into_adapter", true},
                     {"no_check", true},
                     {"device", "cpu"},
                     {"adapters", {{{"file", "a"}, {"strength", -0.5}, {"blocks", {{"*", 2.0}}}}}}};
  EXPECT_EQ(to_json(merge_request_from_json(json)), json);
  expect_error(ErrorCode::invalid_argument, "out: is needed", [] {
    merge_request_from_json({{"model", "m"}});
  });
  expect_error(ErrorCode::invalid_argument, "did you mean \"no_check\"?", [] {
    merge_request_from_json({{"model", "m"}, {"out", "o"}, {"nocheck", true}});
  });
}

TEST(ConvertRequest, EveryFieldSurvivesJson) {
  const Json json = {{"model", "models/1"},
                     {"to", "kohya"},
                     {"out", "a.safetensors"},
                     {"variant", "fp16"},
                     {"tokenizer", "tokens"},
                     {"as", "lora"},
                     {"rank", 0},
                     {"max_error", 0.25},
                     {"metadata", "full"},
                     {"save_precision", "fp16"},
                     {"adapters", {{{"file", "a"}, {"strength", 1.0}}}}};
  EXPECT_EQ(to_json(convert_request_from_json(json)), json);
  const auto expect_convert_refused = [&](const char* words, const char* field, const Json& value) {
    Json changed = json;
    changed[field] = value;
    expect_error(ErrorCode::invalid_argument, words, [&] { convert_request_from_json(changed); });
  };
  expect_convert_refused("to: \"koya\" is not known\n  did you mean \"kohya\"?", "to", "koya");
  expect_convert_refused("metadata: \"some\" is not known", "metadata", "some");
  expect_convert_refused("max_error: must lie in [0, 1)", "max_error", 1.0);
  expect_convert_refused("as: lora needs one of", "rank", 4);
  expect_convert_refused("wrong type", "out", 3);
  Json stored = json;
  stored.erase("rank");
  stored.erase("max_error");
  for (const char* word : {"", "stored"}) {
    stored["as"] = word;
    EXPECT_EQ(to_json(convert_request_from_json(stored)).at("as"), "stored");
  }
  ConvertRequest request = convert_request_from_json(json);
  request.low_rank.max_error = -1.0;
  expect_error(ErrorCode::invalid_argument, "max_error: must lie in [0, 1)",
               [&] { check(request); });
}

TEST(ExtractRequest, EveryFieldSurvivesJson) {
  const Json json = {{"base", "models/1"},
                     {"tuned", "models/2"},
                     {"out", "a.safetensors"},
                     {"method", "lora(rank=4)"},
                     {"budget", "0.1M"},
                     {"targets", {"attention", "text-encoder"}},
                     {"include", Json::array({"unet.down_blocks.*"})},
                     {"exclude", Json::array({"re:mid"})},
                     {"component", "net"},
                     {"steps", 7},
                     {"tolerance", 0.25},
                     {"seed", 3},
                     {"save_precision", "fp16"},
                     {"variant", "fp16"},
                     {"tokenizer", "tokens"}};
  EXPECT_EQ(to_json(extract_request_from_json(json)), json);
  Json by_error = json;
  by_error.erase("budget");
  by_error["max_error"] = 0.5;
  EXPECT_EQ(to_json(extract_request_from_json(by_error)), by_error);
  Json several = json;
  several.erase("method");
  several.erase("budget");
  several["compare"] = "lora,dora";
  several["budgets"] = "0.1M,0.2M";
  EXPECT_EQ(to_json(extract_request_from_json(several)), several);

  const auto expect_extract_refused = [&](const char* words, const char* field, const Json& value) {
    Json changed = json;
    changed[field] = value;
    expect_error(ErrorCode::invalid_argument, words, [&] { extract_request_from_json(changed); });
  };
  expect_extract_refused("steps: must be at least 1", "steps", 0);
  expect_extract_refused("max_error: and `budget` exclude each other", "max_error", 0.5);
  expect_extract_refused("budgets: goes with `compare`", "budgets", "0.1M");
  expect_extract_refused("did you mean \"tuned\"?", "tunde", "x");
  expect_extract_refused("give a string", "method", 4);
  expect_extract_refused("give a list of values, each a string", "include", Json::array({1}));
  expect_error(ErrorCode::invalid_argument, "base: is needed", [] {
    extract_request_from_json({{"tuned", "b"}, {"out", "o.safetensors"}});
  });
}

}  // namespace
}  // namespace ringlet::service
