// A model that is open for requests makes what the program makes.
#include "ringlet/service/generator.h"

#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/json.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/pipeline/text_to_image_model.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/expect_error.h"
#include "tests/log_capture.h"
#include "tests/tiny_adapted_model.h"

namespace ringlet::e2e {
namespace {

class Generators : public TinyProgram {
 protected:
  Generators() {
    const auto model = pipeline::open_text_to_image_model(write_model("sd1"));
    const auto targets =
        adapt::select_targets(pipeline::adaptable(*model), {.presets = {"attention"}});
    const auto set = adapt::AdapterSet::create(adapt::parse_method("lora(rank=2)"), targets,
                                               adapt::FactorTable(), Random(3));
    adapt::disturb(set);
    adapt::save_adapter(folder_ / "a.safetensors", set);
  }

  service::ModelRequest model(double strength = 0.5) const {
    return service::model_request_from_json(
        {{"model", path("model")},
         {"device", "cpu"},
         {"adapters", {{{"file", path("a.safetensors")}, {"strength", strength}}}}});
  }

  static service::PictureRequest request(const std::string& prompt = "a cat") {
    return service::picture_request_from_json({{"prompt", prompt},
                                               {"images", 3},
                                               {"batch_size", 2},
                                               {"seed", 5},
                                               {"steps", 2},
                                               {"width", 64},
                                               {"height", 48},
                                               {"sampler", "euler-ancestral"}});
  }

  /// The program's picture number `index` of that request, and its text.
  void expect_program_made(const service::MadePicture& made, std::size_t index) const {
    const fs::path file =
        folder_ / "out" /
        ("0000" + std::to_string(index + 1) + "-" + std::to_string(5 + index) + ".png");
    EXPECT_EQ(io::read_image(file).pixels, made.image.pixels) << file;
    EXPECT_EQ(io::read_png_text(file)["parameters"], made.parameters);
  }
};

TEST_F(Generators, RequestsInJsonMakeTheProgramsPicturesEachTime) {
  expect_success({"generate",
                  "--model",
                  path("model"),
                  "--adapter",
                  path("a.safetensors") + ":0.5",
                  "--prompt",
                  "a cat",
                  "--images",
                  "3",
                  "--seed",
                  "5",
                  "--steps",
                  "2",
                  "--width",
                  "64",
                  "--height",
                  "48",
                  "--sampler",
                  "euler-ancestral",
                  "--out",
                  path("out")});
  const service::Generator generator(model());
  for (const char* between : {"a dog", ""}) {
    const auto made = generator.pictures(request());
    ASSERT_EQ(made.size(), 3U);
    for (std::size_t i = 0; i < made.size(); ++i) {
      expect_program_made(made[i], i);
      EXPECT_EQ(made[i].seed, 5 + i);
    }
    generator.pictures(request(between));
  }
  // The adapter is the model's: another strength is another generator.
  EXPECT_NE(service::Generator(model(0.0)).pictures(request()).front().image.pixels,
            generator.pictures(request()).front().image.pixels);
}

TEST_F(Generators, ThreadsGetThePicturesOfTheirOwnRequests) {
  const service::Generator generator(model());
  const std::vector<std::string> prompts = {"a cat", "a dog"};
  std::vector<std::vector<service::MadePicture>> alone, together(prompts.size());
  for (const std::string& prompt : prompts) alone.push_back(generator.pictures(request(prompt)));
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < prompts.size(); ++i)
    threads.emplace_back([&, i] { together[i] = generator.pictures(request(prompts[i])); });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < prompts.size(); ++i)
    for (std::size_t k = 0; k < alone[i].size(); ++k) {
      EXPECT_EQ(together[i][k].image.pixels, alone[i][k].image.pixels);
      EXPECT_EQ(together[i][k].prompt, prompts[i]);
    }
}

TEST_F(Generators, AnObserverSeesEveryStepAndEndsOneRequest) {
  const service::Generator generator(model());
  std::vector<std::size_t> done;
  generator.pictures(request(), {.step =
                                     [&](const service::SamplingStep& step) {
                                       EXPECT_EQ(step.total, 2U);
                                       EXPECT_EQ(step.batch, done.size() / 2);
                                       done.push_back(step.done);
                                       return true;
                                     },
                                 .log = {}});
  EXPECT_EQ(done, (std::vector<std::size_t>{1, 2, 1, 2}));
  expect_error(ErrorCode::cancelled, "", [&] {
    generator.pictures(request(),
                       {.step = [](const service::SamplingStep&) { return false; }, .log = {}});
  });
  EXPECT_EQ(generator.pictures(request()).size(), 3U);
}

TEST_F(Generators, ARequestsMessagesGoToItsObserver) {
  const service::Generator generator(model());
  std::string prompt = "cat";
  for (int i = 0; i < 100; ++i) prompt += " cat";
  const LogCapture program;
  std::string own;
  generator.pictures(request(prompt),
                     {.step = {}, .log = [&](LogLevel, std::string_view text) { own += text; }});
  EXPECT_NE(own.find("too long"), std::string::npos) << own;
  EXPECT_EQ(program.warnings().find("too long"), std::string::npos);
}

TEST_F(Generators, FilesOfARequestAreReadBeforeAModelIsOpened) {
  service::PictureRequest asked = request();
  asked.init_image = folder_ / "none.png";
  expect_error(ErrorCode::not_found, "none.png", [&] { service::check_files(asked); });
  asked.init_image.clear();
  asked.latents = folder_ / "a.safetensors";
  expect_error(ErrorCode::bad_format, "latents", [&] { service::check_files(asked); });
}

}  // namespace
}  // namespace ringlet::e2e
