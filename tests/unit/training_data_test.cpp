// Training runs on data as users have it: buckets, several data sets, variants of captions, masks.
#include <fstream>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "ringlet/train/text_to_image/loss_mask.h"
#include "ringlet/train/text_to_image/picture_buckets.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

class TrainingData : public FineTuning {
 protected:
  TrainingData() {
    write_pictures(folder_ / "pictures", 5);
    write("pictures/a.txt", "red, big, {old|new}, round");
  }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  /// A run with all that this file is about, besides what draws random numbers anyway.
  FineTuneOptions whole_data(const std::string& out) const {
    FineTuneOptions o = all_options(out);
    o.train_text_encoder = false;
    o.trainer.part_rates.clear();  // that of the text encoder
    o.data.captions = {.prefix = "x,",
                       .wildcards = true,
                       .keep_tokens = 1,
                       .shuffle = true,
                       .tag_dropout = 0.2,
                       .dropout_every_epochs = 3,
                       .variants = 3};
    o.data.masks = data::MaskSource::files;
    o.data.mask = {0.25, true};
    io::write_png(folder_ / "pictures/b_mask.png", waves(9, 48, 32));
    return o;
  }
  static PictureSize latents(const EncodedPicture& picture) {
    const at::Tensor& mean = picture.crops.front().mean;
    return {mean.size(2), mean.size(1)};
  }
};

TEST_F(TrainingData, BatchesComeFromBucketsAndNothingIsLeftOut) {
  FineTuneOptions o = options();
  o.crop.size = {32, 32};
  o.batch_size = 2;
  const FineTunePlan plan = FineTune(o).plan();
  const BucketCounts expected = {{{32, 32}, 2}, {{40, 24}, 2}, {{28, 36}, 1}};
  EXPECT_EQ(plan.buckets, expected);
  EXPECT_NEAR(plan.epochs, 3.0 * 2 / 6, 1e-12);  // the lone picture fills a batch of its own
  EXPECT_TRUE(run(o));
  o = options("off");
  o.data.buckets.rule = data::BucketRule::off;
  EXPECT_EQ(FineTune(o).plan().buckets, (BucketCounts{{{16, 16}, 5}}));
}

TEST_F(TrainingData, ResumeIsBitExactWithBucketsMasksAndVariants) {
  const FineTuneOptions whole = whole_data("whole/run");
  EXPECT_GT(FineTune(whole).plan().buckets.size(), 1u);
  EXPECT_GT(FineTune(whole).plan().variants, 5u);
  EXPECT_TRUE(run(whole));
  for (const std::int64_t k : {1, 4}) {
    SCOPED_TRACE(k);
    FineTuneOptions o = whole_data("parts" + std::to_string(k) + "/run");
    EXPECT_FALSE(run(o, k));
    o.resume = true;
    EXPECT_TRUE(run(o));
    expect_same_metrics(o, whole);
    EXPECT_TRUE(file_content(o.out / "adapter.safetensors") ==
                file_content(whole.out / "adapter.safetensors"));
  }
  FineTuneOptions other = whole_data("parts1/run");
  other.resume = true;
  other.trainer.steps = 6;
  const auto refused = [&](const char* words, const auto& change) {
    FineTuneOptions changed = other;
    change(changed);
    expect_error(ErrorCode::mismatch, words, [&] { FineTune{changed}; });
  };
  refused("aspect buckets was \"area\", now \"off\"",
          [](auto& o) { o.data.buckets.rule = data::BucketRule::off; });
  refused("training data was", [](auto& o) { o.data.captions.tag_dropout = 0.3; });
  refused("training data was", [&](auto& o) {
    fs::create_directories(folder_ / "others");
    io::write_png(folder_ / "others/b.png", waves(4, 48, 32));
    o.data.mask_images = folder_ / "others";
  });
  refused("\"mask outside\":0.5", [](auto& o) { o.data.mask.outside = 0.5; });
}

TEST_F(TrainingData, ARunFromBeforeBucketsResumesWithoutThem) {
  EXPECT_NO_THROW(
      check_settings({{"crop", "centre"}}, {{"crop", "centre"}, {"aspect buckets", "off"}}, "old"));
  expect_error(ErrorCode::mismatch, "aspect buckets was \"off\", now \"area\"", [] {
    check_settings({{"crop", "centre"}}, {{"crop", "centre"}, {"aspect buckets", "area"}}, "old");
  });
}

TEST_F(TrainingData, SeveralDataSetsHaveTheirOwnSizesCaptionsAndClassPictures) {
  write_pictures(folder_ / "others", 2);
  write_pictures(folder_ / "class", 3);
  FineTuneOptions o = options();
  o.batch_size = 2;
  o.trainer.steps = 6;
  data::Dataset first = usual_dataset(o), second = first, reg = first;
  first.folder = folder_ / "pictures";
  first.prompt = "first";
  first.repeats = 2;
  second.folder = folder_ / "others";
  second.prompt = "second";
  second.resolution = {24, 24};
  second.buckets.rule = data::BucketRule::off;
  second.flip = true;
  reg.class_folder = folder_ / "class";
  reg.class_prompt = "a pet";
  o.instance_images.clear();
  o.data.sets = {first, second, reg};
  FineTune fine_tune(o);
  const FineTunePlan plan = fine_tune.plan();
  EXPECT_EQ(plan.sets.size(), 3u);
  EXPECT_NE(plan.sets[2].find("3 class pictures"), std::string::npos);
  EXPECT_EQ(plan.pictures, 7u);
  EXPECT_EQ(plan.buckets.back(), (std::pair{PictureSize{24, 24}, std::int64_t{2}}));
  EXPECT_EQ(plan.examples.at(1).first, "first");
  EXPECT_TRUE(fine_tune.run({}));
  // A resumed run must have the same ones.
  o.resume = true;
  o.trainer.steps = 8;
  EXPECT_TRUE(run(o));
  o.data.sets[1].flip = false;
  expect_error(ErrorCode::mismatch, "training data was", [&] { FineTune{o}; });
  o.resume = false;
  o.out = folder_ / "other";
  const auto refused = [&](const char* words, const auto& change) {
    FineTuneOptions changed = o;
    change(changed);
    expect_error(ErrorCode::invalid_argument, words, [&] { FineTune{changed}; });
  };
  refused("the data sets have their own folders",
          [&](auto& c) { c.instance_images = folder_ / "pictures"; });
  refused("all data sets hold class pictures", [&](auto& c) { c.data.sets = {reg}; });
  refused("the data sets hold class pictures already", [](auto& c) { c.class_prompt = "a pet"; });
  refused("resolution of 17 does not fit", [](auto& c) { c.data.sets[1].resolution = {17, 17}; });
}

TEST_F(TrainingData, ClassPicturesAreThereForEveryBucket) {
  std::vector<data::Picture> class_pictures;
  for (const char* name : {"a", "b", "d"})
    class_pictures.push_back({folder_ / "pictures" / (std::string(name) + ".png"), "a pet"});
  const BucketCounts buckets = {{{40, 24}, 2}, {{24, 40}, 1}};
  const auto placed = class_pictures_for(buckets, class_pictures, {32, 32});
  std::map<std::int64_t, int> by_width;
  for (const data::Picture& picture : placed) ++by_width[picture.use.place->bucket.width];
  EXPECT_GE(by_width[40], 1);
  EXPECT_GE(by_width[24], 1);
  EXPECT_EQ(class_pictures_for({{{32, 32}, 5}}, class_pictures, {32, 32}).size(), 3u);
}

TEST_F(TrainingData, MirroredCropsAreRecordedWhereTheyLie) {
  const auto model = pipeline::StableDiffusion::open(folder_ / "model");
  data::Picture picture{folder_ / "pictures/b.png", "b"};  // 48 x 32
  picture.use.place = data::BucketPlace{{32, 32}, {48, 32}};
  picture.use.flip = true;
  picture.use.random_crop = true;
  const TrainingSet set = encode_pictures(model, {picture}, {.size = {16, 16}, .seed = 3}, {});
  const auto& crops = set.pictures[0].crops;
  ASSERT_EQ(crops.size(), 2u * kRandomCrops);
  for (std::size_t i = 0; i < crops.size(); i += 2)
    EXPECT_EQ(crops[i].left + crops[i + 1].left, 16);
  EXPECT_EQ(latents(set.pictures[0]), (PictureSize{16, 16}));  // 32 / 2
}

TEST_F(TrainingData, TheMaskIsAWeightOfTheSquares) {
  io::Image mask{8, 8, {}};
  for (int i = 0; i < 64; ++i) {
    const auto value = static_cast<std::uint8_t>(i % 8 < 2 ? 255 : 0);
    for (int channel = 0; channel < 3; ++channel) mask.pixels.push_back(channel == 0 ? value : 99);
  }
  const at::Tensor plain = loss_mask(mask, {4, 2, 2}, {}, "a.png");
  EXPECT_TRUE(at::equal(plain, at::tensor({0.5f, 0.0f, 0.5f, 0.0f}).view({1, 2, 2})));
  const at::Tensor outside = loss_mask(mask, {4, 2, 2}, {0.1, true}, "a.png");
  EXPECT_NEAR(outside.mean().item<double>(), 1.0, 1e-6);  // OneTrainer's normalised area
  EXPECT_NEAR((outside[0][0][1] / outside[0][0][0]).item<double>(), 0.2, 1e-6);
  mask.pixels.assign(mask.pixels.size(), 0);
  expect_error(ErrorCode::invalid_argument, "the mask is black", [&] {
    loss_mask(mask, {4, 2, 2}, {}, "a.png");
  });

  const auto model = pipeline::StableDiffusion::open(folder_ / "model");
  TrainingSet set =
      encode_pictures(model, {{folder_ / "pictures/a.png", "a"}}, {.size = {16, 16}}, {});
  const at::NoGradGuard no_grad;
  const auto loss = [&](const at::Tensor& weights) {
    TrainingSet masked = set;
    masked.pictures[0].crops[0].mask = weights;
    return DiffusionLoss(model, masked, {}, {.seed = 1})(0).item<double>();
  };
  const at::Tensor ones = at::ones({1, 8, 8});
  at::Tensor left = ones.clone(), right = ones.clone();
  left.narrow(2, 4, 4).zero_();
  right.narrow(2, 0, 4).zero_();
  EXPECT_NEAR(loss(at::Tensor()), loss(ones), 1e-12);
  EXPECT_NEAR(loss(left) + loss(right), loss(ones), 1e-6);  // kohya: nothing is renormalised
}

TEST_F(TrainingData, CachedTextHasAllVariants) {
  FineTuneOptions o = options();
  o.data.captions = {.wildcards = true, .shuffle = true, .variants = 4};
  o.data.buckets.rule = data::BucketRule::off;
  FineTune fine_tune(o);
  EXPECT_EQ(fine_tune.plan().variants, 4u + 4u);  // a.txt has tags, the others one tag each
  EXPECT_TRUE(fine_tune.run({}));
  FineTuneOptions same = o;
  same.out = folder_ / "again";
  EXPECT_TRUE(run(same));
  expect_same_metrics(o, same);
}

TEST_F(TrainingData, BadPicturesAreLeftOutOnRequestAndNamed) {
  fs::resize_file(folder_ / "pictures/b.png", 99);
  write("pictures/c.png", "no picture");
  FineTuneOptions o = options();
  expect_error(ErrorCode::bad_format, "2 of 5 pictures cannot be used", [&] { FineTune{o}; });
  o.data.skip_bad_pictures = true;
  const LogCapture log;
  FineTune fine_tune(o);
  EXPECT_EQ(fine_tune.plan().left_out.size(), 2u);
  EXPECT_EQ(fine_tune.plan().pictures, 3u);
  for (const char* words : {"left out: ", "b.png: the image is truncated", "c.png"})
    EXPECT_NE(log.warnings().find(words), std::string::npos) << log.warnings();
  EXPECT_TRUE(fine_tune.run({}));
  for (const char* name : {"a", "d", "e"})
    write(std::string("pictures/") + name + ".png", "no picture");
  o.out = folder_ / "none";
  expect_error(ErrorCode::bad_format, "none of the pictures can be read", [&] { FineTune{o}; });
}

}  // namespace
}  // namespace ringlet::train
