// Control metrics over folders: which files make pairs, and how maps and landmarks are read.
#include "ringlet/eval/control_evaluation.h"

#include <fstream>

#include <gtest/gtest.h>
#include <opencv2/imgcodecs.hpp>

#include "tests/expect_error.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

class ControlFiles : public testing::Test {
 protected:
  void text(const std::string& name, const std::string& content) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << content;
  }
  /// A grey PNG of one row; T is its width in bits.
  template <typename T>
  void labels(const std::string& name, std::vector<T> values) const {
    fs::create_directories((folder_ / name).parent_path());
    const int type = sizeof(T) == 1 ? CV_8U : CV_16U;
    cv::imwrite((folder_ / name).string(),
                cv::Mat(1, static_cast<int>(values.size()), type, values.data()));
  }
  std::vector<ControlPair> pairs() const {
    return pair_by_name({folder_ / "real", {".png", ".jpg"}}, {folder_ / "made", {".png"}});
  }
  Evaluation maps(const LabelReading& reading) const {
    return evaluate_label_maps(pairs(), reading);
  }
  TemporaryFolder folder_;
};

class PairByName : public ControlFiles {
 protected:
  void files(const std::string& folder, const std::vector<std::string>& names) const {
    fs::create_directories(folder_ / folder);
    for (const std::string& name : names) text(folder + "/" + name, "x");
  }
};

TEST_F(PairByName, FindsSamplesOfAReference) {
  files("real", {"a.png", "b-s1.png", "notes.txt"});
  files("made", {"a-s1.png", "a_s12.png", "b-s1.png", "b-s1-s2.png"});
  const auto found = pairs();
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].id, "a-s1");
  EXPECT_EQ(found[0].unit, "a");
  EXPECT_EQ(found[2].unit, "b-s1");
  EXPECT_EQ(found[3].unit, "b-s1");
}

TEST_F(PairByName, LeavesOutWhatIsNoPictureAndSaysSo) {
  files("real", {"a.png", "._a.png", "b.heic"});
  files("made", {"a.png", "Thumbs.db"});
  const LogCapture log;
  EXPECT_EQ(pairs().size(), 1u);
  EXPECT_NE(log.warnings().find("real: 1 file of an unsupported type: .heic"), std::string::npos)
      << log.warnings();
}

TEST_F(PairByName, CountsWhatHasNoPartner) {
  expect_error(ErrorCode::not_found, "does not exist", [&] { pairs(); });
  files("real", {"a.png", "b.png"});
  files("made", {});
  expect_error(ErrorCode::not_found, "nothing to evaluate", [&] { pairs(); });
  files("made", {"a-s1.png"});
  expect_error(ErrorCode::mismatch, "without a generated picture (1: b)", [&] { pairs(); });
  files("made", {"b.png", "c.png", "d.png", "e.png", "f.png"});
  expect_error(ErrorCode::mismatch, "(4: c, d, e, …)", [&] { pairs(); });
}

// What a program made itself is known before it is there, wherever its references lie.
TEST_F(PairByName, KnownPairsTakeOtherReferences) {
  const std::vector<ControlPair> known = {{"a-s1", "a", "photos/1/a.jpg", "made/a-s1.png"},
                                          {"a-s2", "a", "photos/1/a.jpg", "made/a-s2.png"},
                                          {"b-s1", "b", "photos/2/b.jpg", "made/b-s1.png"}};
  files("labels", {"a.png"});
  const FilesIn labels = {folder_ / "labels", {".png"}};
  expect_error(ErrorCode::mismatch, "(1: b)", [&] { with_references(known, labels); });
  expect_error(ErrorCode::mismatch, "photos/1", [&] { with_references(known, labels); });
  files("labels", {"b.png"});
  const auto pairs = with_references(known, labels);
  EXPECT_EQ(pairs[1].reference, folder_ / "labels/a.png");
  EXPECT_EQ(pairs[2].generated, "made/b-s1.png");
  files("labels", {"c.png"});
  expect_error(ErrorCode::mismatch, "without a generated picture (1: c)",
               [&] { with_references(known, labels); });

  files("found", {"a-s1.json", "a-s2.json", "a-s3.json", "generation.json"});
  const FilesIn found = {folder_ / "found", {".json"}};
  expect_error(ErrorCode::mismatch, "generated pictures (1: b-s1)",
               [&] { with_found(known, found); });
  files("found", {"b-s1.json"});
  EXPECT_EQ(with_found(known, found)[2].generated, folder_ / "found/b-s1.json");
  EXPECT_EQ(with_found(known, found)[2].unit, "b");
}

TEST_F(ControlFiles, PairsFindUpperCaseAndRefuseTwoOfOneName) {
  text("real/a.PNG", "x");
  text("made/a-s1.Png", "x");
  EXPECT_EQ(pairs().size(), 1u);
  text("real/a.jpg", "x");
  expect_error(ErrorCode::mismatch, "two files of one name", [&] { pairs(); });
}

// Generated pictures are squares: what lies beside them in the reference is not in them.
TEST_F(ControlFiles, MapsAreComparedInTheSquareThatPicturesShow) {
  fs::create_directories(folder_ / "real");
  fs::create_directories(folder_ / "made");
  const auto map = [&](const std::string& name, int rows, int columns, int left, int right) {
    cv::Mat labels(rows, columns, CV_8U, cv::Scalar(1));
    labels.colRange(left, right) = cv::Scalar(0);
    cv::imwrite((folder_ / name).string(), labels);
  };
  map("real/a.png", 4, 8, 2, 4);  // the centre square is 0 0 1 1
  map("made/a.png", 2, 2, 0, 1);
  expect_error(ErrorCode::mismatch, "", [&] { maps({2, false}); });
  const Evaluation evaluation = maps({2, false, 2});
  EXPECT_EQ(evaluation.metrics[2].interval.mean, 1.0);  // aAcc
  EXPECT_EQ(evaluation.protocol.back(),
            std::make_pair(std::string("size"), std::string("squares of 2")));
  map("made/a.png", 2, 2, 1, 2);
  EXPECT_EQ(maps({2, false, 2}).metrics[2].interval.mean, 0.0);
}

// As mmsegmentation's reduce_zero_label: of the truth alone.
TEST_F(ControlFiles, OnlyTrueMapsCountFromOne) {
  labels<std::uint8_t>("real/a.png", {1, 2, 2, 0, 255});
  labels<std::uint8_t>("made/a.png", {0, 1, 0, 1, 1});
  const Evaluation evaluation = maps({2, true});
  EXPECT_NEAR(evaluation.metrics[2].interval.mean, 2.0 / 3.0, 1e-12);  // aAcc
  EXPECT_NEAR(evaluation.metrics[0].interval.mean, 0.5, 1e-12);        // mIoU
}

// One map without a label that counts says nothing, and ends nothing.
TEST_F(ControlFiles, PicturesWithoutALabelThatCountsAreLeftOut) {
  labels<std::uint8_t>("real/a.png", {1, 2});
  labels<std::uint8_t>("made/a.png", {0, 0});
  labels<std::uint8_t>("real/b.png", {0, 255});
  labels<std::uint8_t>("made/b.png", {0, 1});
  const Evaluation evaluation = maps({2, true});
  EXPECT_EQ(evaluation.metrics[2].interval.mean, 0.5);
  EXPECT_EQ(evaluation.metrics[2].interval.samples, 1u);
  EXPECT_EQ(evaluation.metrics[2].interval.units, 1u);
  EXPECT_EQ(evaluation.metrics[3].samples.size(), 1u);
  ASSERT_EQ(evaluation.notes.size(), 1u);
  EXPECT_NE(evaluation.notes.front().find("ignored (1: b)"), std::string::npos)
      << evaluation.notes.front();
  labels<std::uint8_t>("real/a.png", {0, 0});
  expect_error(ErrorCode::invalid_argument, "every pixel of the true maps is ignored", [&] {
    maps({2, true});
  });
}

// Rounding to 8 bits made all these classes 0, and a wholly wrong map right.
TEST_F(ControlFiles, SixteenBitMapsAreReadAsTheyAre) {
  labels<std::uint16_t>("real/a.png", {0, 1, 2, 3});
  labels<std::uint16_t>("made/a.png", {3, 2, 1, 0});
  EXPECT_EQ(maps({4, false}).metrics[2].interval.mean, 0.0);
  labels<std::uint16_t>("made/a.png", {3, 2, 1, 300});
  expect_error(ErrorCode::unsupported, "label 300", [&] { maps({4, false}); });
}

TEST_F(ControlFiles, ColouredMapsAreRefused) {
  labels<std::uint8_t>("real/a.png", {0, 1});
  fs::create_directories(folder_ / "made");
  io::write_png(folder_ / "made/a.png", {2, 1, {0, 0, 0, 1, 1, 1}});  // grey as RGB
  EXPECT_EQ(maps({2, false}).metrics[2].interval.mean, 1.0);
  io::write_png(folder_ / "made/a.png", {2, 1, {0, 0, 0, 1, 1, 0}});
  expect_error(ErrorCode::unsupported, "not a label map", [&] { maps({2, false}); });
  std::ofstream(folder_ / "made/a.png") << "no picture";
  EXPECT_THROW(maps({2, false}), Error);
}

class LandmarkFiles : public ControlFiles {
 protected:
  LandmarkFiles() {
    for (const char* name : {"a", "b"})
      text("real/" + std::string(name) + ".json", "[[0,0],[4,3]]");
    for (const char* name : {"a-s1", "a-s2", "b-s1"})
      text("made/" + std::string(name) + ".png", "x");
    text("found/a-s1.json", "[[0, 0], [0, 0]]");
    text("found/generation.json", "{}");  // where they lie beside the pictures
  }
  Evaluation landmarks() const {
    return evaluate_landmarks(
        pair_by_name({folder_ / "real", {".json"}}, {folder_ / "made", {".png"}}),
        {folder_ / "found", {".json", ".pts"}});
  }
};

TEST_F(LandmarkFiles, EverySampleWithoutDetectionCounts) {
  text("found/b-s1.json", "[]");
  const Evaluation evaluation = landmarks();
  EXPECT_DOUBLE_EQ(evaluation.metrics[0].interval.mean, 2.5);
  EXPECT_EQ(evaluation.metrics[0].samples.size(), 1u);
  EXPECT_DOUBLE_EQ(evaluation.metrics[1].interval.mean, 0.25);  // half of a's, none of b's
  EXPECT_NE(evaluation.notes.front().find("2 of 3"), std::string::npos) << evaluation.notes.front();
}

// Points of a photo of 40 x 20 lie elsewhere in the square that was generated from it.
TEST_F(ControlFiles, LandmarksMoveWithTheSquares) {
  for (const char* folder : {"photos", "made"}) fs::create_directories(folder_ / folder);
  io::write_png(folder_ / "photos/a.png", train::waves(0, 40, 20));
  io::write_png(folder_ / "made/a-s1.png", train::waves(0, 10, 10));
  io::write_png(folder_ / "made/a-s2.png", train::waves(0, 20, 20));
  text("real/a.json", "[[20, 10]]");
  text("found/a-s1.json", "[[4.75, 4.75]]");
  text("found/a-s2.json", "[[10, 10]]");
  const auto pairs = pair_by_name({folder_ / "real", {".json"}}, {folder_ / "made", {".png"}});
  const auto pictures = pair_by_name({folder_ / "photos", {".png"}}, {folder_ / "made", {".png"}});
  const auto error = [&](const LandmarkPixels& pixels) {
    return evaluate_landmarks(pairs, {folder_ / "found", {".json"}}, pixels);
  };
  const Evaluation moved = error({10, pictures});
  for (const Sample& sample : moved.metrics.front().samples) EXPECT_NEAR(sample.value, 0.0, 1e-9);
  EXPECT_EQ(moved.protocol.back().second, "squares of 10");
  EXPECT_GT(error({}).metrics.front().interval.mean, 1.0);
  expect_error(ErrorCode::mismatch, "squares of 10", [&] { compare(moved, error({})); });
  expect_error(ErrorCode::mismatch, "is unknown", [&] { error({10, {}}); });
}

// A detector has looked at all of a folder, of which not all is asked for.
TEST_F(LandmarkFiles, OtherPicturesOfTheFolderAreLeftAlone) {
  text("found/a-s3.json", "[[9, 9], [9, 9]]");
  text("made/a-s3.png", "x");
  auto pairs = pair_by_name({folder_ / "real", {".json"}}, {folder_ / "made", {".png"}});
  std::erase_if(pairs, [](const ControlPair& pair) { return pair.id == "a-s3"; });
  const Evaluation evaluation = evaluate_landmarks(pairs, {folder_ / "found", {".json"}});
  EXPECT_DOUBLE_EQ(evaluation.metrics[0].interval.mean, 2.5);
}

TEST_F(LandmarkFiles, RefusesWhatDoesNotBelong) {
  text("found/c.json", "[[0, 0], [0, 0]]");
  expect_error(ErrorCode::mismatch, "none of the generated", [&] { landmarks(); });
  fs::remove(folder_ / "found/c.json");
  text("found/b-s1.pts", "version: 1\nn_points: 1\n{\n1 1\n}\n");
  expect_error(ErrorCode::mismatch, "has 1 points", [&] { landmarks(); });
  text("found/b-s1.pts", "{\n}\n");
  text("found/a-s1.json", "[]");
  expect_error(ErrorCode::not_found, "nothing was detected", [&] { landmarks(); });
  text("real/b.json", "[]");
  expect_error(ErrorCode::bad_format, "no point", [&] { landmarks(); });
}

// A reference is read once for its samples, and anew for the next one.
TEST_F(ControlFiles, EverySampleMeetsItsOwnReference) {
  for (const char* folder : {"real", "made"}) fs::create_directories(folder_ / folder);
  for (int i = 0; i < 2; ++i) {
    const std::string name(1, static_cast<char>('a' + i));
    io::write_png(folder_ / "real" / (name + ".png"), train::waves(i));
    for (const char* sample : {"-s1", "-s2"})
      io::write_png(folder_ / "made" / (name + sample + ".png"), train::waves(i));
  }
  const Measured iou = evaluate_edges(pairs(), {10, 20}, 16).metrics.front();
  ASSERT_EQ(iou.samples.size(), 4u);
  for (const Sample& sample : iou.samples) EXPECT_EQ(sample.value, 1.0) << sample.id;
  const auto colours = evaluate_colour_segmentation(pairs(), 0);
  EXPECT_EQ(colours.metrics.front().interval.mean, 1.0);
}

TEST_F(ControlFiles, OtherProtocolsDoNotCompare) {
  fs::create_directories(folder_ / "real");
  fs::create_directories(folder_ / "made");
  for (const char* name : {"real/a.png", "made/a.png"})
    io::write_png(folder_ / name, train::waves(0));
  const Evaluation one = evaluate_edges(pairs(), {10, 20}, 0);
  EXPECT_NO_THROW(compare(one, evaluate_edges(pairs(), {10, 20}, 0)));
  expect_error(ErrorCode::mismatch, "thresholds", [&] {
    compare(one, evaluate_edges(pairs(), {10, 30}, 0));
  });
  expect_error(ErrorCode::mismatch, "squares of 8", [&] {
    compare(one, evaluate_edges(pairs(), {10, 20}, 8));
  });
  io::write_png(folder_ / "real/a.png", train::waves(1));  // another picture of the same name
  expect_error(ErrorCode::mismatch, "reference pictures", [&] {
    compare(one, evaluate_edges(pairs(), {10, 20}, 0));
  });
}

}  // namespace
}  // namespace ringlet::eval
