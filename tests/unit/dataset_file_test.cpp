#include "ringlet/data/dataset_file.h"

#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::data {
namespace {

class DatasetFile : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) const {
    std::ofstream(folder_ / "sets.toml", std::ios::binary) << text;
    return folder_ / "sets.toml";
  }
  std::vector<Dataset> tables(const std::string& text, const Dataset& usual = {}) const {
    return read_dataset_tables(write(text), usual);
  }
  DatasetConfig kohya(const std::string& text, const Dataset& usual = {}) const {
    return read_kohya_datasets(write(text), usual);
  }
  void tables_refused(const std::string& words, const std::string& text) const {
    expect_error(ErrorCode::invalid_argument, words, [&] { tables(text); });
  }
  void kohya_refused(const std::string& words, const std::string& text,
                     ErrorCode code = ErrorCode::invalid_argument) const {
    expect_error(code, words, [&] { kohya(text); });
  }
  /// A subset with these lines, from line 3 on.
  static std::string subset(const std::string& lines) {
    return "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\n" + lines;
  }

  TemporaryFolder folder_;
};

TEST_F(DatasetFile, TablesTakeTheOptionsOfTheRunForWhatTheyLeaveOut) {
  Dataset usual;
  usual.prompt = "a dog";
  usual.flip = true;
  usual.captions.shuffle = true;
  const auto sets = tables(
      "steps = 3\n[[dataset]]\ninstance-images = \"a\"\nrepeats = 4\nresolution = 512\n"
      "[[dataset]]\nclass_images = \"b\"\nclass-prompt = \"a pet\"\nflip = false\n"
      "aspect-buckets = \"kohya\"\nbucket-max = 2048\ncrop = \"random\"\nkeep-tokens = 2\n"
      "caption-dropout = 0.5\nmasks = \"alpha\"\nsubfolders = false\n",
      usual);
  ASSERT_EQ(sets.size(), 2u);
  EXPECT_EQ(sets[0].folder, "a");
  EXPECT_FALSE(sets[0].is_class());
  EXPECT_EQ(sets[0].prompt, "a dog");
  EXPECT_EQ(sets[0].repeats, 4);
  EXPECT_EQ(sets[0].resolution, PictureSize::square(512));
  EXPECT_TRUE(sets[0].flip);
  EXPECT_TRUE(sets[1].is_class());
  EXPECT_EQ(sets[1].pictures(), "b");
  EXPECT_FALSE(sets[1].flip);
  EXPECT_TRUE(sets[1].random_crop);
  EXPECT_EQ(sets[1].buckets.rule, BucketRule::kohya);
  EXPECT_EQ(sets[1].buckets.most, 2048);
  EXPECT_EQ(sets[1].captions.keep_tokens, 2);
  EXPECT_EQ(sets[1].caption_dropout, 0.5);
  EXPECT_EQ(sets[1].masks, MaskSource::alpha);
  EXPECT_TRUE(tables("steps = 3\n").empty());
}

TEST_F(DatasetFile, WrongTablesAreExplainedWithTheirLine) {
  tables_refused("sets.toml:3: a data set has no key \"repeat\"\n  did you mean \"repeats\"?",
                 "[[dataset]]\ninstance-images = \"a\"\nrepeat = 3\n");
  tables_refused("sets.toml:2: \"flip\" cannot be 3: it has another type",
                 "[[dataset]]\nflip = 3\ninstance-images = \"a\"\n");
  tables_refused("sets.toml:3: \"repeats\": must be larger than 0",
                 "[[dataset]]\ninstance-images = \"a\"\nrepeats = 0\n");
  tables_refused("sets.toml:1: data sets are an array", "[dataset]\ninstance-images = \"a\"\n");
  tables_refused("sets.toml:1: \"instance-images\": the folder with the pictures is missing",
                 "[[dataset]]\nrepeats = 2\n");
  tables_refused("this folder or `class_images`, not both",
                 "[[dataset]]\ninstance-images = \"a\"\nclass-images = \"b\"\n");
  tables_refused("sets.toml:3: \"keep-tokens\": it has no effect",
                 "[[dataset]]\ninstance-images = \"a\"\nkeep-tokens = 1\n");
  tables_refused("\"mask-images\": it has no effect without `masks=files`",
                 "[[dataset]]\ninstance-images = \"a\"\nmask-images = \"m\"\n");
  tables_refused("sets.toml:3: \"caption-extension\": \"tags\" does not begin with a dot",
                 "[[dataset]]\ninstance-images = \"a\"\ncaption-extension = \"tags\"\n");
  tables_refused("sets.toml:3: \"aspect-buckets\"",
                 "[[dataset]]\ninstance-images = \"a\"\naspect-buckets = \"khoya\"\n");
  expect_error(ErrorCode::bad_format, "sets.toml:2:", [&] { tables("[[dataset]]\nflip = \n"); });
}

TEST_F(DatasetFile, KohyasLevelsOverrideEachOther) {
  const DatasetConfig config = kohya(
      "[general]\nenable_bucket = true\nshuffle_caption = true\nkeep_tokens = 1\n"
      "num_repeats = 2\nflip_aug = true\ncaption_extension = '.txt'\n"
      "[[datasets]]\nresolution = [768, 512]\nbatch_size = 4\nkeep_tokens = 2\n"
      "max_bucket_reso = 2048\n"
      "[[datasets.subsets]]\nimage_dir = 'a'\nkeep_tokens = 3\nclass_tokens = 'sks dog'\n"
      "[[datasets.subsets]]\nimage_dir = 'b'\nis_reg = true\nclass_tokens = 'dog'\n"
      "num_repeats = 1\nflip_aug = false\n"
      "[[datasets]]\nresolution = 640\nbatch_size = 4\nenable_bucket = false\n"
      "[[datasets.subsets]]\nimage_dir = 'c'\ncaption_dropout_rate = 0.1\n"
      "caption_tag_dropout_rate = 0.2\ncaption_dropout_every_n_epochs = 3\n"
      "caption_prefix = 'p'\ncaption_suffix = 's'\nrandom_crop = true\nenable_wildcard = true\n"
      "keep_tokens_separator = '|||'\nsecondary_separator = ';;;'\nalpha_mask = true\n"
      "color_aug = false\n");
  ASSERT_EQ(config.datasets.size(), 3u);
  EXPECT_EQ(config.batch_size, 4);
  const Dataset &a = config.datasets[0], &b = config.datasets[1], &c = config.datasets[2];
  EXPECT_EQ(a.folder, "a");
  EXPECT_EQ(a.prompt, "sks dog");
  EXPECT_EQ(a.captions.keep_tokens, 3);
  EXPECT_TRUE(a.captions.shuffle && a.flip);
  EXPECT_EQ(a.repeats, 2);
  EXPECT_EQ(a.caption_extension, ".txt");
  EXPECT_EQ(a.resolution, (PictureSize{768, 512}));
  EXPECT_EQ(a.buckets, (BucketOptions{.rule = BucketRule::kohya, .most = 2048}));
  EXPECT_FALSE(a.subfolders);
  EXPECT_EQ(b.class_folder, "b");
  EXPECT_EQ(b.class_prompt, "dog");
  EXPECT_EQ(b.captions.keep_tokens, 2);
  EXPECT_EQ(b.repeats, 1);
  EXPECT_FALSE(b.flip);
  EXPECT_EQ(c.resolution, PictureSize::square(640));
  EXPECT_EQ(c.buckets.rule, BucketRule::off);
  EXPECT_EQ(c.caption_dropout, 0.1);
  EXPECT_EQ(c.captions.tag_dropout, 0.2);
  EXPECT_EQ(c.captions.dropout_every_epochs, 3);
  EXPECT_EQ(c.captions.prefix + c.captions.suffix, "ps");
  EXPECT_TRUE(c.random_crop && c.captions.wildcards);
  EXPECT_EQ(c.captions.keep_tokens_separator + c.captions.secondary_separator, "|||;;;");
  EXPECT_EQ(c.masks, MaskSource::alpha);
  // Without a word: kohya's defaults, and the resolution of the run.
  Dataset usual;
  usual.resolution = PictureSize::square(320);
  const Dataset plain = kohya(subset(""), usual).datasets.front();
  EXPECT_EQ(plain.caption_extension, ".caption");
  EXPECT_EQ(plain.resolution, PictureSize::square(320));
  EXPECT_EQ(plain.buckets.rule, BucketRule::off);
  EXPECT_FALSE(kohya(subset("")).batch_size);
}

TEST_F(DatasetFile, WhatOfKohyaHasNoEffectIsRefusedByName) {
  kohya_refused("sets.toml:4: there is no key \"num_repeat\"\n  did you mean \"num_repeats\"?",
                subset("num_repeat = 3"));
  kohya_refused("sets.toml:4: \"batch_size\" does not belong here\n  it belongs to [[datasets]]",
                subset("batch_size = 3"));
  kohya_refused("sets.toml:2: \"image_dir\" does not belong here", "[general]\nimage_dir = 'a'\n");
  kohya_refused("sets.toml:1: there is no key \"dataset\" at the top",
                "[[dataset]]\nimage_dir = 'a'\n");
  kohya_refused("there is no table [[datasets]]", "[general]\nflip_aug = true\n");
  kohya_refused("sets.toml:1: there is no table [[datasets.subsets]]", "[[datasets]]\n");
  kohya_refused("sets.toml:2: the subset has no \"image_dir\"",
                "[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 2\n");
  kohya_refused("sets.toml:4: \"num_repeats\" must be a whole number of 1 or more, not 0",
                subset("num_repeats = 0"));
  kohya_refused("\"flip_aug\" must be true or false, not \"yes\"", subset("flip_aug = 'yes'"));
  kohya_refused("\"caption_extension\" must be like \".txt\"", subset("caption_extension = 'txt'"));
  kohya_refused("sets.toml:2: the key has no effect, since \"enable_bucket\" is not given",
                "[[datasets]]\nbucket_reso_steps = 32\n[[datasets.subsets]]\nimage_dir = 'a'\n");
  kohya_refused("64 where they are not given) do not fit: 256 is above the resolution of 128",
                "[[datasets]]\nresolution = 128\nenable_bucket = true\n[[datasets.subsets]]\n"
                "image_dir = 'a'\n");
  kohya_refused("some of the subsets have a \"metadata_file\"",
                subset("[[datasets.subsets]]\nmetadata_file = 'm.json'\n"));
  for (const char* line : {"color_aug = true", "face_crop_aug_range = [1.0, 2.0]",
                           "token_warmup_step = 10", "cache_info = true"})
    kohya_refused(std::string(line).substr(0, std::string(line).find(' ')), subset(line),
                  ErrorCode::unsupported);
  kohya_refused("\"batch_size\" is 2 here and 1 above: a run has one",
                "[[datasets]]\nbatch_size = 1\n[[datasets.subsets]]\nimage_dir = 'a'\n"
                "[[datasets]]\nbatch_size = 2\n[[datasets.subsets]]\nimage_dir = 'b'\n",
                ErrorCode::unsupported);
  kohya_refused("\"conditioning_data_dir\" holds masks or control pictures",
                subset("conditioning_data_dir = 'm'"));
  std::ofstream(folder_ / "concepts.json") << "[]";
  expect_error(ErrorCode::unsupported, "OneTrainer's concepts",
               [&] { read_kohya_datasets(folder_ / "concepts.json", {}); });
  Dataset usual;
  usual.masks = MaskSource::files;
  const Dataset masked = kohya(subset("conditioning_data_dir = 'm'"), usual).datasets.front();
  EXPECT_EQ(masked.masks, MaskSource::files);
  EXPECT_EQ(masked.mask_images, "m");
}

}  // namespace
}  // namespace ringlet::data
