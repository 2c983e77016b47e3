// Prior preservation: class pictures are found, made and kept.
#include <array>
#include <fstream>
#include <memory>
#include <set>

#include "ringlet/io/image.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/tiny_fine_tune_test.h"
#include "tests/two_ranks.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

class ClassPictures : public FineTuning {
 protected:
  FineTuneOptions options_with(std::int64_t count, const std::string& out = "run") const {
    FineTuneOptions o = options(out);
    o.trainer.steps = 2;
    o.class_prompt = "a photo of a pet";
    o.class_count = count;
    return o;
  }
  static std::set<std::string> names_in(const fs::path& folder) {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder))
      names.insert(entry.path().filename().string());
    return names;
  }
};

TEST_F(ClassPictures, AreMadeAndKept) {
  FineTuneOptions o = options_with(5);
  EXPECT_EQ(FineTune(o).plan().class_to_make, 5u);
  run(o);
  const fs::path folder = o.out / "class_images";
  EXPECT_EQ(names_in(folder),
            (std::set<std::string>{"class-00001.png", "class-00002.png", "class-00003.png",
                                   "class-00004.png", "class-00005.png"}));
  EXPECT_EQ(io::read_image(folder / "class-00003.png").width, 16);
  std::set<std::string> contents;
  for (const auto& entry : fs::directory_iterator(folder))
    contents.insert(file_content(entry.path()));
  EXPECT_EQ(contents.size(), 5u);
  // Another run uses them.
  FineTuneOptions again = options_with(5, "again/run");
  again.class_images = folder;
  EXPECT_EQ(FineTune(again).plan().class_pictures, 5u);
  EXPECT_EQ(FineTune(again).plan().class_to_make, 0u);
  run(again);
  EXPECT_EQ(file_content(again.out / "adapter.safetensors"),
            file_content(o.out / "adapter.safetensors"));
  EXPECT_FALSE(fs::exists(again.out / "class_images"));
}

TEST_F(ClassPictures, AMissingOneIsMadeAgainAndNoneIsOverwritten) {
  const FineTuneOptions o = options_with(5);
  run(o);
  const fs::path folder = o.out / "class_images";
  const std::string lost = file_content(folder / "class-00002.png");
  const std::string last = file_content(folder / "class-00005.png");
  fs::remove(folder / "class-00002.png");
  FineTuneOptions again = options_with(5, "again/run");
  again.class_images = folder;
  EXPECT_EQ(FineTune(again).plan().class_to_make, 1u);
  run(again);
  EXPECT_EQ(file_content(folder / "class-00002.png"), lost);
  EXPECT_EQ(file_content(folder / "class-00005.png"), last);
  EXPECT_EQ(entry_count(folder), 5u);
}

// Made pictures stand between a user's own, in the order of a resumed run from the first step on.
TEST_F(ClassPictures, ThoseBesideAUsersOwnKeepResumeBitExact) {
  const auto with_own = [&](const std::string& out) {
    FineTuneOptions o = options_with(4, out + "/run");
    o.trainer.steps = 4;
    o.class_images = folder_ / (out + "-class");
    fs::create_directories(o.class_images);
    io::write_png(o.class_images / "a.png", waves(7));
    io::write_png(o.class_images / "z.png", waves(8));
    return o;
  };
  const FineTuneOptions whole = with_own("whole");
  run(whole);
  FineTuneOptions o = with_own("parts");
  run(o, 1);
  EXPECT_EQ(names_in(o.class_images),
            (std::set<std::string>{"a.png", "class-00001.png", "class-00002.png", "z.png"}));
  o.resume = true;
  run(o);
  expect_same_metrics(o, whole);
  EXPECT_EQ(file_content(o.out / "adapter.safetensors"),
            file_content(whole.out / "adapter.safetensors"));
}

TEST_F(ClassPictures, ChangedOnesAreRefused) {
  FineTuneOptions o = options_with(3);
  run(o, 1);
  io::write_png(o.out / "class_images/class-00002.png", waves(3));
  o.resume = true;
  expect_error(ErrorCode::mismatch, "class pictures was", [&] { run(o); });
  o.class_count = 4;
  expect_error(ErrorCode::mismatch, "class count was 3, now 4", [&] { FineTune{o}; });
  EXPECT_EQ(entry_count(o.out / "class_images"), 3u);
}

TEST_F(ClassPictures, OneOfSeveralRanksMakesThemAndTheLatents) {
  FineTuneOptions o = options_with(3);
  o.cache = folder_ / "cache";
  TwoRanks ranks;
  std::array<std::unique_ptr<FineTune>, 2> runs;
  for (std::size_t rank = 0; rank < 2; ++rank) {
    o.trainer.data_parallel = {static_cast<std::int64_t>(rank), 2, ranks.reduction(rank)};
    runs[rank] = std::make_unique<FineTune>(o);
  }
  std::array<std::set<std::string>, 2> stages;
  std::size_t cached = 0;
  as_two_ranks([&](std::size_t rank) {
    runs[rank]->run({.progress =
                         [&](const std::string& stage, std::size_t, std::size_t) {
                           if (rank == 1 && stages[1].empty()) cached = entry_count(o.cache);
                           stages[rank].insert(stage);
                           return true;
                         },
                     .step = {}});
  });
  EXPECT_TRUE(stages[0].contains("making class pictures"));
  EXPECT_FALSE(stages[1].contains("making class pictures"));
  EXPECT_TRUE(stages[1].contains("encoding class pictures"));  // reads the cache
  EXPECT_EQ(cached, entry_count(o.cache));
  EXPECT_EQ(entry_count(o.out / "class_images"), 3u);
}

TEST_F(ClassPictures, AnInterruptionKeepsThoseMadeSoFar) {
  const FineTuneOptions o = options_with(6);
  expect_error(ErrorCode::cancelled, "kept", [&] {
    FineTune(o).run(
        {.progress = [](const std::string&, std::size_t done, std::size_t) { return done < 2; },
         .step = {}});
  });
  const std::size_t made = entry_count(o.out / "class_images");
  EXPECT_GE(made, 2u);
  EXPECT_LT(made, 6u);
  // What a killed program leaves beside them is no picture.
  std::ofstream(o.out / "class_images/.class-00006.png.42-0.tmp") << "half";
  EXPECT_EQ(FineTune(o).plan().class_to_make, 6 - made);
  run(o);
  const FineTuneOptions whole = options_with(6, "whole/run");
  run(whole);
  for (int i = 1; i <= 6; ++i) {
    const std::string name = "class-0000" + std::to_string(i) + ".png";
    EXPECT_EQ(file_content(o.out / "class_images" / name),
              file_content(whole.out / "class_images" / name));
  }
}

TEST_F(ClassPictures, AFolderWithoutPicturesIsFilled) {
  const FineTuneOptions o = options_with(2);
  fs::create_directories(o.out / "class_images");
  std::ofstream(o.out / "class_images/.class-00001.png.42-0.tmp") << "half";
  EXPECT_EQ(FineTune(o).plan().class_to_make, 2u);
  run(o);
}

TEST_F(ClassPictures, SurplusOnesAreNotUsed) {
  FineTuneOptions o = options_with(2);
  o.class_images = folder_ / "pictures";
  EXPECT_EQ(FineTune(o).plan().class_pictures, 2u);
  EXPECT_EQ(FineTune(o).plan().class_to_make, 0u);
}

}  // namespace
}  // namespace ringlet::train
