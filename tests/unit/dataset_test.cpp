#include "ringlet/data/dataset.h"

#include <fstream>

#include <gtest/gtest.h>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

#include "ringlet/data/metadata_file.h"
#include "ringlet/io/alpha_channel.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

class DatasetFolder : public testing::Test {
 protected:
  DatasetFolder() { train::write_pictures(folder_ / "p", 3); }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  Dataset set() const {
    Dataset dataset;
    dataset.folder = folder_ / "p";
    dataset.prompt = "a dog";
    return dataset;
  }
  std::vector<std::string> captions(const Dataset& dataset) const {
    std::vector<std::string> found;
    for (const Picture& picture : read_dataset(dataset).pictures)
      found.push_back(picture.path.stem().string() + ": " + picture.caption);
    return found;
  }
  static bool has_note(const PictureFolder& folder, NoteKind kind) {
    return std::ranges::find(folder.notes, kind, &FolderNote::kind) != folder.notes.end();
  }

  TemporaryFolder folder_;
};

TEST_F(DatasetFolder, HasItsOwnCaptionsAndRepeats) {
  write("p/a.tags", "one\n two\n");
  write("p/b.txt", "text");
  write("p/deep/d.txt", "x");
  Dataset dataset = set();
  dataset.caption_extension = ".tags";
  dataset.repeats = 3;
  dataset.flip = true;
  dataset.subfolders = false;
  const PictureFolder found = read_dataset(dataset);
  EXPECT_EQ(found.pictures.size(), 3u);
  EXPECT_EQ(found.pictures[0].caption, "one");
  EXPECT_EQ(found.pictures[1].caption, "a dog");
  EXPECT_EQ(found.pictures[2].repeats, 3);
  EXPECT_TRUE(found.pictures[2].use.flip.value());
  EXPECT_EQ(found.captions, 1u);
  EXPECT_TRUE(has_note(found, NoteKind::unused_caption));  // b.txt
  EXPECT_TRUE(has_note(found, NoteKind::unsearched));
  EXPECT_TRUE(has_note(found, NoteKind::longer_caption));
  dataset.captions.wildcards = true;  // of several lines one is drawn
  EXPECT_EQ(captions(dataset)[0], "a: one\ntwo");
  EXPECT_FALSE(has_note(read_dataset(dataset), NoteKind::longer_caption));
}

TEST_F(DatasetFolder, MetadataSayCaptions) {
  write("p/a.txt", "from a file");
  write("p/metadata.jsonl",
        "{\"file_name\": \"a.png\", \"text\": \"unused\"}\n\n"
        "{\"file_name\": \"b.png\", \"text\": \"from metadata\"}\n");
  EXPECT_EQ(captions(set()),
            (std::vector<std::string>{"a: from a file", "b: from metadata", "c: a dog"}));
  EXPECT_FALSE(has_note(read_dataset(set()), NoteKind::other_file));
  write("meta.json",
        "{\"b\": {\"tags\": \"x, y\", \"train_resolution\": [512, 512]},"
        " \"c\": {\"caption\": \"a cat\", \"tags\": \"z\"}}");
  Dataset dataset = set();
  dataset.metadata = folder_ / "meta.json";
  EXPECT_EQ(captions(dataset), (std::vector<std::string>{"b: x, y", "c: a cat, z"}));
  EXPECT_TRUE(has_note(read_dataset(dataset), NoteKind::unlisted));  // a.png
  write("meta.json", "{\"" + (folder_ / "p/a").string() + "\": {\"caption\": \"far\"}}");
  dataset.folder = "";
  EXPECT_EQ(captions(dataset), std::vector<std::string>{"a: far"});
}

TEST_F(DatasetFolder, WrongMetadataAreExplained) {
  Dataset dataset = set();
  const auto refused = [&](ErrorCode code, const char* words, const std::string& file,
                           const std::string& text) {
    write(file, text);
    dataset.metadata = folder_ / file;
    expect_error(code, words, [&] { read_dataset(dataset); });
  };
  refused(ErrorCode::bad_format, "m.jsonl:2", "m.jsonl",
          "{\"file_name\": \"a.png\", \"text\": \"x\"}\n{broken\n");
  refused(ErrorCode::bad_format, "m.jsonl:1: the line has no \"file_name\"", "m.jsonl",
          "{\"text\": \"x\"}\n");
  refused(ErrorCode::not_found, "m.jsonl:1: the picture \"z.png\" is not in", "m.jsonl",
          "{\"file_name\": \"z.png\", \"text\": \"x\"}\n");
  refused(ErrorCode::bad_format, "the picture \"a\" has no table of its own", "m.json",
          "{\"a\": \"x\"}");
  refused(ErrorCode::bad_format, "names no picture", "m.json", "{}");
  refused(ErrorCode::unsupported, "is not a metadata file", "m.csv", "a,b");
}

TEST_F(DatasetFolder, MasksLieBesideThePictures) {
  io::write_png(folder_ / "p/a-masklabel.png", train::waves(1));
  fs::create_directories(folder_ / "p/masks");
  io::write_png(folder_ / "p/masks/b.png", train::waves(1, 48, 32));
  Dataset dataset = set();
  dataset.masks = MaskSource::files;
  const PictureFolder found = read_dataset(dataset);
  ASSERT_EQ(found.pictures.size(), 3u);
  EXPECT_EQ(found.pictures[0].use.mask.filename(), "a-masklabel.png");
  EXPECT_EQ(found.pictures[1].use.mask, folder_ / "p/masks/b.png");
  EXPECT_TRUE(found.pictures[2].use.mask.empty());
  EXPECT_FALSE(has_note(found, NoteKind::mask));
  EXPECT_TRUE(has_note(read_dataset(set()), NoteKind::mask));
  dataset.mask_images = folder_ / "p/masks";
  EXPECT_TRUE(read_dataset(dataset).pictures[0].use.mask.empty());
  dataset.mask_images = folder_ / "none";
  expect_error(ErrorCode::not_found, "none of the pictures has a mask",
               [&] { read_dataset(dataset); });
  expect_error(ErrorCode::mismatch, "the mask is 48x32, its picture 32x32", [&] {
    read_mask(folder_ / "p/masks/b.png", {32, 32});
  });
}

TEST_F(DatasetFolder, AlphaIsAMaskOfItsOwn) {
  EXPECT_FALSE(io::read_alpha(folder_ / "p/a.png"));
  cv::Mat picture(4, 6, CV_8UC4, cv::Scalar(1, 2, 3, 77));
  picture.at<cv::Vec4b>(3, 5)[3] = 255;
  cv::imwrite((folder_ / "p/alpha.png").string(), picture);
  const auto alpha = io::read_alpha(folder_ / "p/alpha.png");
  ASSERT_TRUE(alpha);
  EXPECT_EQ(alpha->size(), (PictureSize{6, 4}));
  EXPECT_EQ(alpha->pixels.front(), 77);
  EXPECT_EQ(alpha->pixels.back(), 255);
  Dataset dataset = set();
  dataset.masks = MaskSource::alpha;
  EXPECT_TRUE(read_dataset(dataset).pictures[0].use.masked_by_alpha);
}

}  // namespace
}  // namespace ringlet::data
