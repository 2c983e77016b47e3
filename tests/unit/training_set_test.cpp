#include "ringlet/train/text_to_image/training_set.h"

#include <fstream>
#include <functional>
#include <limits>
#include <set>

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/data/crop.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/pipeline/image_tensor.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/golden/tiny_model.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

using Tensors = std::map<std::string, at::Tensor>;

class Encoding : public testing::Test {
 protected:
  Encoding() {
    golden::write_folder(folder_ / "model", "sd1");
    write_pictures(folder_ / "pictures");
  }

  pipeline::StableDiffusion model() const {
    return pipeline::StableDiffusion::open(folder_ / "model");
  }
  std::vector<data::Picture> pictures() const {
    return data::read_picture_folder(folder_ / "pictures").pictures;
  }
  TrainingSet encode(const CropOptions& options, bool cached = false) const {
    return encode_pictures(model(), pictures(), options, cached ? cache() : fs::path());
  }
  fs::path cache() const { return folder_ / "cache"; }

  /// The cached files, by content.
  std::vector<fs::path> cached_files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(cache())) files.push_back(entry.path());
    return files;
  }

  static bool same(const TrainingSet& a, const TrainingSet& b) {
    if (a.pictures.size() != b.pictures.size() || a.order != b.order) return false;
    for (std::size_t i = 0; i < a.pictures.size(); ++i) {
      const EncodedPicture &x = a.pictures[i], &y = b.pictures[i];
      if (x.crops.size() != y.crops.size() || x.caption != y.caption || x.size != y.size)
        return false;
      for (std::size_t n = 0; n < x.crops.size(); ++n)
        if (!same_bits(x.crops[n].mean, y.crops[n].mean) ||
            !same_bits(x.crops[n].deviation, y.crops[n].deviation) ||
            x.crops[n].left != y.crops[n].left || x.crops[n].top != y.crops[n].top)
          return false;
    }
    return true;
  }

  TemporaryFolder folder_;
};

TEST_F(Encoding, IsTheAutoencodersScaledPosterior) {
  const auto model = this->model();
  const TrainingSet set = encode({.size = {32, 32}});
  ASSERT_EQ(set.pictures.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    ASSERT_EQ(set.pictures[i].crops.size(), 1u);
    const at::NoGradGuard no_grad;
    const io::Image image = io::read_image(pictures()[i].path);
    const auto posterior =
        model.vae().encode(pipeline::image_to_tensor(data::covering_crop(image, {32, 32}).image));
    const EncodedCrop& crop = set.pictures[i].crops[0];
    EXPECT_EQ(crop.mean.sizes(), (nn::Shape{4, 16, 16}));
    EXPECT_TRUE(at::allclose(crop.mean, 0.18215 * posterior.mean[0]));
    EXPECT_TRUE(at::allclose(crop.deviation, 0.18215 * (0.5 * posterior.log_variance[0]).exp()));
    EXPECT_FALSE(crop.mean.requires_grad());
  }
  EXPECT_EQ(set.pictures[1].size, (PictureSize{48, 32}));
  EXPECT_EQ(set.pictures[1].crops[0].left, 8);
  EXPECT_EQ(set.pictures[2].crops[0].top, 4);
}

TEST_F(Encoding, CropsNeedNotBeSquare) {
  const TrainingSet set = encode({.size = {48, 32}, .random = true});
  EXPECT_EQ(set.pictures[0].crops.size(), static_cast<std::size_t>(kRandomCrops));
  EXPECT_EQ(set.pictures[1].crops.size(), 1u);  // in its proportions there is one place
  for (const EncodedPicture& picture : set.pictures)
    for (const EncodedCrop& crop : picture.crops)
      EXPECT_EQ(crop.mean.sizes(), (nn::Shape{4, 16, 24}));
  EXPECT_TRUE(same(encode({.size = {48, 32}}, true), encode({.size = {48, 32}})));
  EXPECT_TRUE(same(encode({.size = {48, 16}}, true), encode({.size = {48, 16}})));  // not cached
}

TEST_F(Encoding, AnEpochShowsEachPictureAsOftenAsItRepeats) {
  std::vector<data::Picture> all = pictures();
  all[0].repeats = 2;
  all[2].repeats = 3;
  const TrainingSet set = encode_pictures(model(), all, {.size = {16, 16}}, {});
  EXPECT_EQ(set.order, (std::vector<std::size_t>{0, 0, 1, 2, 2, 2}));
}

TEST_F(Encoding, MirroredPicturesComeOnTop) {
  const TrainingSet plain = encode({.size = {16, 16}}),
                    both = encode({.size = {16, 16}, .flip = true});
  ASSERT_EQ(both.pictures[0].crops.size(), 2u);
  EXPECT_TRUE(same_bits(both.pictures[0].crops[0].mean, plain.pictures[0].crops[0].mean));
  const io::Image image = data::covering_crop(io::read_image(pictures()[0].path), {16, 16}).image;
  io::write_png(folder_ / "pictures/a.png", data::mirrored(image));
  const TrainingSet mirror = encode({.size = {16, 16}});
  EXPECT_TRUE(same_bits(both.pictures[0].crops[1].mean, mirror.pictures[0].crops[0].mean));
}

TEST_F(Encoding, RandomPlacesFollowTheSeed) {
  const TrainingSet set = encode({.size = {16, 16}, .random = true, .seed = 5});
  EXPECT_EQ(set.pictures[0].crops.size(), 1u);  // square: there is one place
  ASSERT_EQ(set.pictures[1].crops.size(), static_cast<std::size_t>(kRandomCrops));
  std::set<std::int64_t> places;
  for (const EncodedCrop& crop : set.pictures[1].crops) {
    EXPECT_GE(crop.left, 0);
    EXPECT_LE(crop.left, 8);
    EXPECT_EQ(crop.top, 0);
    places.insert(crop.left);
  }
  EXPECT_GT(places.size(), 2u);
  EXPECT_TRUE(same(set, encode({.size = {16, 16}, .random = true, .seed = 5})));
  EXPECT_FALSE(same(set, encode({.size = {16, 16}, .random = true, .seed = 6})));
}

TEST_F(Encoding, AStopIsAnError) {
  int calls = 0;
  expect_error(ErrorCode::cancelled, "stopped", [&] {
    encode_pictures(model(), pictures(), {.size = {16, 16}}, {}, [&] { return ++calls < 2; });
  });
  EXPECT_EQ(calls, 2);
}

TEST_F(Encoding, ADamagedPictureIsNamed) {
  std::ofstream(folder_ / "pictures/b.png") << "no picture";
  expect_error(ErrorCode::unsupported, "b.png", [&] { encode({.size = {16, 16}}); });
}

// --- the cache ---

TEST_F(Encoding, TheCacheChangesNothing) {
  const CropOptions options{.size = {16, 16}, .random = true, .flip = true};
  const TrainingSet without = encode(options);
  EXPECT_FALSE(fs::exists(cache()));
  EXPECT_TRUE(same(encode(options, true), without));  // filled
  const std::size_t files = entry_count(cache());
  // Some of the random places coincide.
  EXPECT_GT(files, 6u);
  EXPECT_LE(files, 2u * (1 + 2 * kRandomCrops));
  EXPECT_TRUE(same(encode(options, true), without));  // read
  EXPECT_EQ(entry_count(cache()), files);
}

TEST_F(Encoding, CachedLatentsAreUsed) {
  encode({.size = {16, 16}}, true);
  for (const fs::path& file : cached_files())
    io::save_tensors(file,
                     {{"mean", at::full({4, 8, 8}, 7.0)}, {"deviation", at::full({4, 8, 8}, 0.5)}});
  const TrainingSet set = encode({.size = {16, 16}}, true);
  for (const EncodedPicture& picture : set.pictures) {
    EXPECT_TRUE(at::equal(picture.crops[0].mean, at::full({4, 8, 8}, 7.0)));
    EXPECT_TRUE(at::equal(picture.crops[0].deviation, at::full({4, 8, 8}, 0.5)));
  }
  EXPECT_EQ(set.pictures[1].crops[0].left, 4);  // not of the file
}

TEST_F(Encoding, DamagedLatentsAreMadeAnew) {
  const TrainingSet good = encode({.size = {16, 16}}, true);
  const std::vector<fs::path> files = cached_files();
  ASSERT_EQ(files.size(), 3u);
  const at::Tensor fine = at::ones({4, 8, 8});
  at::Tensor bad = fine.clone();
  bad[1][2][3] = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::function<void(const fs::path&)>> damages = {
      [](const fs::path& file) { fs::resize_file(file, fs::file_size(file) - 5); },
      [](const fs::path& file) { fs::resize_file(file, 0); },
      [](const fs::path& file) { std::ofstream(file) << "something else"; },
      [&](const fs::path& file) {
        io::save_tensors(file, {{"mean", fine}});
      },
      [&](const fs::path& file) {
        io::save_tensors(file, {{"mean", at::ones({4, 4, 4})}, {"deviation", fine}});
      },
      [&](const fs::path& file) {
        io::save_tensors(file, {{"mean", fine}, {"deviation", bad}});
      }};
  for (std::size_t i = 0; i < damages.size(); ++i) {
    SCOPED_TRACE(i);
    const std::string before = file_content(files[0]);
    damages[i](files[0]);
    const LogCapture log;
    EXPECT_TRUE(same(encode({.size = {16, 16}}, true), good));
    EXPECT_NE(log.warnings().find("damaged; encoded again"), std::string::npos) << log.warnings();
    EXPECT_EQ(file_content(files[0]), before);
    EXPECT_EQ(entry_count(cache()), 3u);
  }
}

TEST_F(Encoding, AnEditedPictureIsNotAnsweredWithOldLatents) {
  encode({.size = {16, 16}}, true);
  io::Image image = io::read_image(folder_ / "pictures/a.png");
  image.pixels[0] ^= 255;
  io::write_png(folder_ / "pictures/a.png", image);
  EXPECT_TRUE(same(encode({.size = {16, 16}}, true), encode({.size = {16, 16}})));
  EXPECT_EQ(entry_count(cache()), 4u);
  EXPECT_TRUE(
      same(encode({.size = {24, 24}}, true), encode({.size = {24, 24}})));  // nor another size
  EXPECT_EQ(entry_count(cache()), 7u);
}

TEST_F(Encoding, AnotherAutoencoderIsNotAnsweredWithOldLatents) {
  encode({.size = {16, 16}}, true);
  const fs::path weights = folder_ / "model/vae/diffusion_pytorch_model.safetensors";
  Tensors tensors;
  for (const auto& [name, tensor] : io::load_tensors(weights)) tensors[name] = tensor.clone();
  tensors.at("encoder.conv_in.bias")[0] += 0.5;
  io::save_tensors(weights, tensors);
  EXPECT_TRUE(same(encode({.size = {16, 16}}, true), encode({.size = {16, 16}})));
  EXPECT_EQ(entry_count(cache()), 6u);
  // The same weights with another scale give other latents, too.
  const fs::path config = folder_ / "model/vae/config.json";
  Json json = read_json_file(config);
  json["scaling_factor"] = 0.5;
  golden::write_json(config, json);
  EXPECT_TRUE(same(encode({.size = {16, 16}}, true), encode({.size = {16, 16}})));
  EXPECT_EQ(entry_count(cache()), 9u);
}

TEST_F(Encoding, ACacheThatCannotBeMadeIsExplained) {
  std::ofstream(cache()) << "a file";
  expect_error(ErrorCode::io, "cache", [&] { encode({.size = {16, 16}}, true); });
}

}  // namespace
}  // namespace ringlet::train
