#include "ringlet/eval/feature_network.h"

#include <gtest/gtest.h>

#include "ringlet/eval/control_evaluation.h"
#include "ringlet/eval/dreambooth_prompts.h"
#include "ringlet/eval/subject_evaluation.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "tests/tiny_vision.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

Preprocessing read(const char* json) {
  return Preprocessing::from_json(parse_json(json, "p"), "preprocessor_config.json");
}

TEST(Preprocessing, IsReadFromEveryPublishedForm) {
  // CLIP's old files: a number is the shorter side.
  Preprocessing how = read(R"({"size": 224, "do_center_crop": true, "crop_size": 200,
                               "resample": 3, "image_mean": [0.1, 0.2, 0.3]})");
  EXPECT_EQ(how.shortest, 224);
  EXPECT_EQ(how.crop, 200);
  EXPECT_TRUE(how.bicubic);
  EXPECT_EQ(how.mean[1], 0.2);
  // ViT's: both sides.
  how = read(R"({"size": {"height": 32, "width": 48}, "resample": 2})");
  EXPECT_EQ(how.shortest, 0);
  EXPECT_EQ(how.width, 48);
  EXPECT_EQ(how.crop, 0);
  EXPECT_FALSE(how.bicubic);
  // DINOv2's.
  how = read(R"({"size": {"shortest_edge": 256}, "do_center_crop": true,
                 "crop_size": {"height": 224, "width": 224}})");
  EXPECT_EQ(how.shortest, 256);
  EXPECT_EQ(how.crop, 224);
  expect_error(ErrorCode::unsupported, "size", [] { read(R"({"size": {"longest_edge": 3}})"); });
  expect_error(ErrorCode::unsupported, "resample", [] { read(R"({"resample": 1})"); });
  expect_error(ErrorCode::bad_format, "three numbers", [] { read(R"({"image_std": [1]})"); });
}

TEST(Preprocessing, MakesTheTensorThatTheNetworkWants) {
  const io::Image wide = train::waves(1, 60, 30);
  Preprocessing how;
  how.shortest = 20;
  how.crop = 16;
  EXPECT_EQ(prepared(wide, how).sizes(), (std::vector<std::int64_t>{1, 3, 16, 16}));
  how.shortest = how.crop = 0;
  how.width = 24;
  how.height = 8;
  EXPECT_EQ(prepared(wide, how).sizes(), (std::vector<std::int64_t>{1, 3, 8, 24}));
  const io::Image grey{2, 2, std::vector<std::uint8_t>(12, 51)};  // 0.2
  how.width = how.height = 2;
  how.mean = {0.2, 0.1, 0.0};
  how.deviation = {0.5, 0.1, 0.1};
  const at::Tensor pixels = prepared(grey, how);
  EXPECT_NEAR(pixels[0][0][1][1].item<double>(), 0.0, 1e-6);
  EXPECT_NEAR(pixels[0][1][0][0].item<double>(), 1.0, 1e-6);
  EXPECT_NEAR(pixels[0][2][0][1].item<double>(), 2.0, 1e-6);
}

class FeatureNetworks : public testing::Test {
 protected:
  FeatureNetworks() {
    golden::write_tiny_vit(folder_ / "vit");
    golden::write_tiny_clip(folder_ / "clip");
  }
  TemporaryFolder folder_;
};

TEST_F(FeatureNetworks, OpenAndLook) {
  const FeatureNetwork vit = FeatureNetwork::open(folder_ / "vit");
  EXPECT_EQ(vit.name(), "vit");
  const at::Tensor features = vit.features({train::waves(0), train::waves(1)});
  EXPECT_EQ(features.sizes(), (std::vector<std::int64_t>{2, 16}));
  EXPECT_FALSE(at::allclose(features[0], features[1]));
  EXPECT_TRUE(at::equal(vit.features({train::waves(1)})[0], features[1]));
  expect_error(ErrorCode::unsupported, "does not read texts", [&] { vit.text_features({"a"}); });

  const FeatureNetwork clip = FeatureNetwork::open(folder_ / "clip");
  EXPECT_EQ(clip.features({train::waves(0)}).size(1), 12);
  EXPECT_EQ(clip.text_features({"a dog", "a cat"}).sizes(), (std::vector<std::int64_t>{2, 12}));
}

TEST_F(FeatureNetworks, SayWhatIsMissing) {
  expect_error(ErrorCode::not_found, "facebook/dino-vits16",
               [&] { FeatureNetwork::open(folder_ / "nothing"); });
  fs::remove(folder_ / "vit/model.safetensors");
  expect_error(ErrorCode::not_found, "model.safetensors",
               [&] { FeatureNetwork::open(folder_ / "vit"); });
  golden::write_tiny_vit(folder_ / "vit");
  auto tensors = io::load_tensors(folder_ / "vit/model.safetensors");
  tensors.erase("layernorm.bias");
  io::save_tensors(folder_ / "vit/model.safetensors", tensors);
  expect_error(ErrorCode::mismatch, "layernorm.bias",
               [&] { FeatureNetwork::open(folder_ / "vit"); });
  Json config = golden::tiny_vit_config();
  config["model_type"] = "resnet";
  std::ofstream(folder_ / "vit/config.json") << config.dump();
  expect_error(ErrorCode::unsupported, "resnet", [&] { FeatureNetwork::open(folder_ / "vit"); });
  config = golden::tiny_vit_config();
  config["num_attention_heads"] = 3;
  std::ofstream(folder_ / "vit/config.json") << config.dump();
  expect_error(ErrorCode::bad_format, "multiple", [&] { FeatureNetwork::open(folder_ / "vit"); });
  fs::remove(folder_ / "clip/vocab.json");
  EXPECT_THROW(FeatureNetwork::open(folder_ / "clip"), Error);
}

TEST(Segmenter, FindsClassesAtTheMapsSize) {
  const TemporaryFolder folder;
  golden::write_tiny_segformer(folder / "segmenter");
  const Segmenter segmenter = Segmenter::open(folder / "segmenter");
  EXPECT_EQ(segmenter.classes(), 3);
  const data::LabelMap map = segmenter.labels(train::waves(0), 20, 10);
  EXPECT_EQ(map.labels.size(), 200u);
  EXPECT_LT(*std::ranges::max_element(map.labels), 3);
  EXPECT_EQ(map.labels, segmenter.labels(train::waves(0), 20, 10).labels);

  // Against what it found itself, all is right; ADE20K's numbers are one higher, and 0 is ignored.
  for (const char* name : {"made", "true"}) fs::create_directories(folder / name);
  io::write_png(folder / "made" / "a.png", train::waves(0));
  io::Image truth{20, 10, {}};
  for (const std::uint8_t label : map.labels)
    truth.pixels.insert(truth.pixels.end(), 3, static_cast<std::uint8_t>(label + 1));
  std::fill_n(truth.pixels.begin(), 3, std::uint8_t{0});
  io::write_png(folder / "true" / "a.png", truth);
  const auto pairs = pair_by_name({folder / "true", {".png"}}, {folder / "made", {".png"}});
  const Evaluation evaluation = evaluate_segmentation(pairs, segmenter, {3, true});
  EXPECT_EQ(evaluation.metrics.front().interval.mean, 1.0);
  EXPECT_THROW(evaluate_segmentation(pairs, segmenter, {3, false}), Error);  // a label of 3
  EXPECT_EQ(evaluate_segmentation(pairs, segmenter, {3, true, 8}).protocol.back().second,
            "squares of 8");
  expect_error(ErrorCode::not_found, "nvidia/segformer",
               [&] { Segmenter::open(folder / "nothing"); });
}

class SubjectEvaluation : public FeatureNetworks {
 protected:
  void pictures(const std::string& folder, int first, int count) const {
    fs::create_directories(folder_ / folder);
    for (int i = 0; i < count; ++i)
      io::write_png(folder_ / folder / ("p0-s" + std::to_string(i) + ".png"),
                    train::waves(first + i), {{"parameters", "a sks dog in snow\nSteps: 3"}});
  }
  const Measured& metric(const Evaluation& evaluation, const std::string& name) const {
    const auto found = std::ranges::find(evaluation.metrics, name, &Measured::name);
    EXPECT_NE(found, evaluation.metrics.end()) << name;
    return *found;
  }
};

TEST_F(SubjectEvaluation, MeasuresOneSubject) {
  pictures("real", 0, 2);
  pictures("made", 0, 2);
  const FeatureNetwork vit = FeatureNetwork::open(folder_ / "vit");
  const FeatureNetwork clip = FeatureNetwork::open(folder_ / "clip");
  const auto [made, real] = read_subjects(folder_ / "made", folder_ / "real", "sks");
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(made[0].prompt, "a dog in snow");
  const Evaluation evaluation = evaluate_subjects(made, real, {&vit, &clip});
  // The mean of two ones and two times the same cosine.
  const double cosine = 1.0 - metric(evaluation, "DIV by DINO").interval.mean;
  EXPECT_NEAR(metric(evaluation, "DINO").interval.mean, (1.0 + cosine) / 2.0, 1e-9);
  EXPECT_EQ(metric(evaluation, "CLIP-T").samples.size(), 2u);
  EXPECT_EQ(metric(evaluation, "CLIP-I").interval.units, 1u);  // one prompt
  // Its own prompt among others, itself left out.
  const Measured nearest = caption_accuracy(clip, made, {"a dog in snow"});
  EXPECT_EQ(nearest.interval.mean, 1.0);
  const double share = caption_accuracy(clip, made, {"a cat", "a red car", "x"}).interval.mean;
  EXPECT_TRUE(share == 0.0 || share == 0.5 || share == 1.0) << share;
  expect_error(ErrorCode::invalid_argument, "at least one feature network",
               [&, made = made, real = real] { evaluate_subjects(made, real, {}); });

  const NamedNetwork by = main_network({&vit, &clip});
  const Measured drift = prior_drift(by, folder_ / "made", folder_ / "real");
  EXPECT_EQ(drift.name, "prior drift by DINO");
  EXPECT_NEAR(drift.interval.mean, 0.0, 1e-9);
  pictures("base", 5, 1);
  for (const auto& [with, without] : {std::pair("made", "base"), std::pair("base", "made")})
    expect_error(ErrorCode::mismatch, "no matching picture", [&, with = with, without = without] {
      prior_drift(by, folder_ / with, folder_ / without);
    });
  const Measured kept = prior_preservation(by, folder_ / "base", real);
  EXPECT_EQ(kept.name, "PRES by DINO");
  EXPECT_LT(kept.interval.mean, 1.0);
  // Numbers of networks do not compare, and so have no name in common.
  EXPECT_EQ(prior_preservation(main_network({nullptr, &clip}), folder_ / "base", real).name,
            "PRES by CLIP-I");
  EXPECT_EQ(identity_of_pictures(folder_ / "made"), identity_of_pictures(folder_ / "real"));
  EXPECT_NE(identity_of_pictures(folder_ / "made"), identity_of_pictures(folder_ / "base"));
  const Evaluation sets = evaluate_sets(folder_ / "made", folder_ / "real", vit);
  EXPECT_NEAR(metric(sets, "Frechet distance (vit)").interval.mean, 0.0, 1e-6);
}

TEST_F(SubjectEvaluation, DiversityByLpips) {
  golden::write_lpips(folder_ / "lpips");
  const PerceptualDistance lpips = PerceptualDistance::open(folder_ / "lpips");
  EXPECT_EQ(lpips.name(), "LPIPS (AlexNet)");
  EXPECT_NE(lpips.identity(), "");
  const auto wide = [](int number) { return train::waves(number, 64, 64); };
  EXPECT_EQ(lpips(wide(0), wide(0)), 0.0);
  EXPECT_GT(lpips(wide(0), wide(1)), 0.0);
  EXPECT_EQ(lpips(wide(0), wide(1)), lpips(wide(1), wide(0)));
  expect_error(ErrorCode::mismatch, "different sizes", [&] { lpips(wide(0), train::waves(0)); });

  pictures("real", 0, 1);
  fs::create_directories(folder_ / "made");
  for (int i = 0; i < 3; ++i)
    io::write_png(folder_ / "made" / ("p0-s" + std::to_string(i) + ".png"), wide(i),
                  {{"parameters", "a dog\nSteps: 3"}});
  const auto made = read_subjects(folder_ / "made", folder_ / "real", "").first;
  const auto diversity = perceptual_diversity(lpips, made);
  ASSERT_TRUE(diversity.has_value());
  EXPECT_NEAR(diversity->interval.mean,
              (lpips(wide(0), wide(1)) + lpips(wide(0), wide(2)) + lpips(wide(1), wide(2))) / 3.0,
              1e-9);
  EXPECT_FALSE(perceptual_diversity(lpips, {made.front()}).has_value());
  io::save_tensors(folder_ / "lpips/linear.safetensors",
                   io::load_tensors(folder_ / "lpips/linear.safetensors"), {{"of", "others"}});
  EXPECT_NE(PerceptualDistance::open(folder_ / "lpips").identity(), lpips.identity());
  fs::remove(folder_ / "lpips/linear.safetensors");
  expect_error(ErrorCode::not_found, "linear.safetensors",
               [&] { PerceptualDistance::open(folder_ / "lpips"); });
}

TEST_F(SubjectEvaluation, MeansOverSubjectsAreEvenly) {
  pictures("real/dog", 0, 1);
  pictures("real/cat", 3, 1);
  pictures("made/dog", 0, 3);
  pictures("made/cat", 3, 1);
  const FeatureNetwork vit = FeatureNetwork::open(folder_ / "vit");
  const auto [made, real] = read_subjects(folder_ / "made", folder_ / "real", "");
  const Evaluation evaluation = evaluate_subjects(made, real, {&vit, nullptr});
  const Measured& dino = metric(evaluation, "DINO");
  EXPECT_EQ(dino.interval.units, 2u);
  double dog = 0.0, cat = 0.0;
  for (const Sample& sample : dino.samples) (sample.unit == "dog" ? dog : cat) += sample.value;
  EXPECT_NEAR(dino.interval.mean, (dog / 3.0 + cat) / 2.0, 1e-12);
  EXPECT_NE(evaluation.notes.front().find("pooled"), std::string::npos);
  // Pictures of a class are compared with their own subject, whose pictures these are.
  EXPECT_NEAR(prior_preservation({"DINO", vit}, folder_ / "real", real).interval.mean, 1.0, 1e-9);
  fs::create_directories(folder_ / "made/horse");
  expect_error(ErrorCode::mismatch, "no real pictures",
               [&] { read_subjects(folder_ / "made", folder_ / "real", ""); });
  expect_error(ErrorCode::mismatch, "no real pictures", [&, real = real] {
    prior_preservation({"DINO", vit}, folder_ / "made", real);
  });
  fs::remove(folder_ / "made/horse");
  fs::remove_all(folder_ / "made/cat");
  expect_error(ErrorCode::mismatch, "no generated pictures",
               [&] { read_subjects(folder_ / "made", folder_ / "real", ""); });
  expect_error(ErrorCode::mismatch, "no pictures of the class", [&, real = real] {
    prior_preservation({"DINO", vit}, folder_ / "made", real);
  });
  expect_error(ErrorCode::mismatch, "in no subject's folder",
               [&] { read_subjects(folder_ / "made/dog", folder_ / "real", ""); });
}

TEST_F(SubjectEvaluation, PicturesAreToldApartByTheirPlace) {
  pictures("real", 0, 1);
  pictures("made/snow", 0, 1);
  pictures("made/moon", 1, 1);
  const auto made = read_subjects(folder_ / "made", folder_ / "real", "").first;
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(made[0].id, "moon/p0-s0");
  EXPECT_EQ(made[1].id, "snow/p0-s0");
  fs::copy(folder_ / "made/snow/p0-s0.png", folder_ / "made/snow/p0-s0.webp");
  expect_error(ErrorCode::mismatch, "has the name of",
               [&] { read_subjects(folder_ / "made", folder_ / "real", ""); });
}

TEST_F(SubjectEvaluation, TheTokenIsAWord) {
  pictures("real", 0, 1);
  const auto prompt = [&](const std::string& text) {
    fs::create_directories(folder_ / "made");
    io::write_png(folder_ / "made/a.png", train::waves(0), {{"parameters", text + "\nSteps: 3"}});
    return read_subjects(folder_ / "made", folder_ / "real", "cat").first.at(0).prompt;
  };
  EXPECT_EQ(prompt("a category of cat dogs, a cat"), "a category of dogs, a");
  EXPECT_EQ(prompt("bobcat and cat."), "bobcat and .");
  EXPECT_EQ(prompt("cat"), "");
}

// What others made says nothing of prompts: nothing is known to belong together.
TEST_F(SubjectEvaluation, PicturesWithoutPromptsAreNoPrompt) {
  pictures("real", 0, 2);
  fs::create_directories(folder_ / "made");
  for (int i = 0; i < 3; ++i)
    io::write_png(folder_ / "made" / (std::to_string(i) + ".png"), train::waves(i));
  const FeatureNetwork vit = FeatureNetwork::open(folder_ / "vit");
  const auto [made, real] = read_subjects(folder_ / "made", folder_ / "real", "");
  const Evaluation evaluation = evaluate_subjects(made, real, {&vit, nullptr});
  ASSERT_EQ(evaluation.metrics.size(), 1u);  // no DIV
  EXPECT_EQ(evaluation.metrics.front().interval.units, 3u);
  EXPECT_NE(evaluation.notes.back().find("3 of 3 pictures is not known"), std::string::npos)
      << evaluation.notes.back();
  golden::write_lpips(folder_ / "lpips");
  EXPECT_FALSE(perceptual_diversity(PerceptualDistance::open(folder_ / "lpips"), made).has_value());

  // The parameters of a .PNG are read as well.
  io::write_png(folder_ / "made/0.PNG", train::waves(5), {{"parameters", "a dog\nSteps: 3"}});
  fs::remove(folder_ / "made/0.png");
  EXPECT_EQ(read_subjects(folder_ / "made", folder_ / "real", "").first.front().prompt, "a dog");
}

// All pairs of a generated and a real picture count alike in OFT's average.
TEST_F(SubjectEvaluation, ThePooledAverageIsOverPairs) {
  pictures("real/dog", 0, 3);
  pictures("real/cat", 5, 1);
  pictures("made/dog", 1, 1);
  pictures("made/cat", 7, 1);
  const FeatureNetwork vit = FeatureNetwork::open(folder_ / "vit/");
  EXPECT_EQ(vit.name(), "vit");
  const auto [made, real] = read_subjects(folder_ / "made", folder_ / "real", "");
  const Evaluation evaluation = evaluate_subjects(made, real, {&vit, nullptr});
  const auto& samples = metric(evaluation, "DINO").samples;
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", (samples[0].value + 3.0 * samples[1].value) / 4.0);
  EXPECT_EQ(samples[1].unit, "dog");
  EXPECT_NE(evaluation.notes.front().find(text), std::string::npos) << evaluation.notes.front();
  EXPECT_EQ(evaluation.protocol.back().second, vit.identity());
}

TEST(DreamBoothPrompts, AreTwentyFiveEach) {
  for (const char* name : {"dreambooth-objects", "dreambooth-live"}) {
    const auto prompts = published_prompts(name);
    EXPECT_EQ(prompts.size(), 25u);
    for (const std::string& prompt : prompts) {
      EXPECT_NE(prompt.find("{}"), std::string::npos) << prompt;
      EXPECT_NE(with_subject(prompt, "sks dog").find("sks dog"), std::string::npos);
    }
  }
  EXPECT_TRUE(published_prompts("others").empty());
  EXPECT_EQ(with_subject("plain", "sks dog"), "plain");
}

}  // namespace
}  // namespace ringlet::eval
