#include "ringlet/data/picture_folder.h"

#include <fstream>

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

class PictureFolders : public testing::Test {
 protected:
  /// A file with this content; of pictures only the names are looked at.
  void write(const std::string& name, const std::string& content = "x") const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const Picture& picture : read_picture_folder(folder_.path()).pictures)
      out.push_back(picture.path.lexically_relative(folder_.path()).string());
    return out;
  }
  std::string caption(const std::string& name) const {
    for (const Picture& picture : read_picture_folder(folder_.path()).pictures)
      if (picture.path.filename() == name) return picture.caption;
    return "not found";
  }
  TemporaryFolder folder_;
};

using Names = std::vector<std::string>;

TEST_F(PictureFolders, FindPicturesByTheirExtension) {
  for (const char* name : {"d.webp", "a.PNG", "b.jpg", "c.JpEg", "e.gif", "f.txt", "g", "h.png.bak",
                           ".hidden.png", "sub/z.png", "sub/deeper/y.jpeg"})
    write(name);
  EXPECT_EQ(names(),
            (Names{"a.PNG", "b.jpg", "c.JpEg", "d.webp", "sub/deeper/y.jpeg", "sub/z.png"}));
  const PictureFolder found = read_picture_folder(folder_.path());
  EXPECT_EQ(found.captions, 0u);
  EXPECT_EQ(found.rule, "pictures of the folder and its subfolders");
  for (const Picture& picture : found.pictures) {
    EXPECT_EQ(picture.caption, "");
    EXPECT_EQ(picture.repeats, 1);
  }
}

// Copies that notebooks and file managers keep are no training pictures.
TEST_F(PictureFolders, HiddenFoldersArePassedOver) {
  for (const char* name : {"a.png", ".ipynb_checkpoints/a-checkpoint.png", ".thumbnails/b.png"})
    write(name);
  EXPECT_EQ(names(), (Names{"a.png"}));
}

TEST_F(PictureFolders, AFolderNamedLikeAPictureIsAFolder) {
  write("a.png/b.png");
  EXPECT_EQ(names(), (Names{"a.png/b.png"}));
}

TEST_F(PictureFolders, LinksAreFollowedUnlessTheyLeadBack) {
  write("real/a.png");
  write("pictures/b.png");
  fs::create_directory_symlink(folder_ / "real", folder_ / "pictures/linked");
  fs::create_directory_symlink(folder_ / "pictures", folder_ / "pictures/back");
  fs::create_directory_symlink("self", folder_ / "pictures/self");
  Names found;
  for (const Picture& picture : read_picture_folder(folder_ / "pictures").pictures)
    found.push_back(picture.path.lexically_relative(folder_ / "pictures").string());
  EXPECT_EQ(found, (Names{"b.png", "linked/a.png"}));
}

TEST_F(PictureFolders, CaptionsStandBeside) {
  for (const char* name : {"a.png", "b.png", "c.v2.jpg", "d.png"}) write(name);
  write("a.txt", "a red dog");
  write("b.caption", "a blue dog\n");
  write("c.v2.txt", "\n \t\r\n  a green dog \t\r\nmore words\n");
  EXPECT_EQ(caption("a.png"), "a red dog");
  EXPECT_EQ(caption("b.png"), "a blue dog");
  EXPECT_EQ(caption("c.v2.jpg"), "a green dog");
  EXPECT_EQ(caption("d.png"), "");
  EXPECT_EQ(read_picture_folder(folder_.path()).captions, 3u);
}

TEST_F(PictureFolders, TxtWinsOverCaption) {
  write("a.png");
  write("a.caption", "second");
  write("a.txt", "first");
  EXPECT_EQ(caption("a.png"), "first");
  write("a.txt", " \n\n");  // says nothing
  EXPECT_EQ(caption("a.png"), "second");
}

TEST_F(PictureFolders, CaptionsAreUtf8) {
  write("a.png");
  write("a.txt", "un chien au caf\xC3\xA9 \xF0\x9F\x90\x95");
  EXPECT_EQ(caption("a.png"), "un chien au caf\xC3\xA9 \xF0\x9F\x90\x95");
  write("a.txt", "un caf\xE9");  // Latin-1
  expect_error(ErrorCode::bad_format, "a.txt", [&] { names(); });
  expect_error(ErrorCode::bad_format, "UTF-8", [&] { names(); });
  write("a.txt", std::string("\xFF\xFE"
                             "a\0 \0",
                             6));  // UTF-16
  expect_error(ErrorCode::bad_format, "UTF-8", [&] { names(); });
}

TEST_F(PictureFolders, AByteOrderMarkIsNoPartOfTheCaption) {
  write("a.png");
  write("a.txt",
        "\xEF\xBB\xBF"
        "a dog\r\n");
  EXPECT_EQ(caption("a.png"), "a dog");
  write("a.txt", "\xEF\xBB\xBF\r\n");
  EXPECT_EQ(caption("a.png"), "");
}

TEST_F(PictureFolders, KohyaFoldersRepeat) {
  write("10_sks dog/a.png");
  write("10_sks dog/b.png");
  write("10_sks dog/b.txt", "b of its own");
  write("2_style/sub/c.png");
  write("0_never/d.png");
  write("notes/e.png");
  write(".thumbnails/f.png");
  write("readme.txt");
  const LogCapture log;
  const PictureFolder found = read_picture_folder(folder_.path());
  EXPECT_EQ(found.rule, "subfolders REPEATS_words, 2 to 10 repeats");
  EXPECT_NE(log.warnings().find("others are passed over: 0_never, notes;"), std::string::npos)
      << log.warnings();
  EXPECT_EQ(found.captions, 1u);
  ASSERT_EQ(found.pictures.size(), 3u);
  EXPECT_EQ(found.pictures[0].caption, "sks dog");
  EXPECT_EQ(found.pictures[0].repeats, 10);
  EXPECT_EQ(found.pictures[1].caption, "b of its own");
  EXPECT_EQ(found.pictures[1].repeats, 10);
  EXPECT_EQ(found.pictures[2].caption, "style");
  EXPECT_EQ(found.pictures[2].repeats, 2);
}

TEST_F(PictureFolders, KohyaFoldersAloneNeedNoWarning) {
  write("2023_summer/a.png");
  const LogCapture log;
  EXPECT_EQ(read_picture_folder(folder_.path()).rule, "subfolders REPEATS_words, 2023 repeats");
  EXPECT_EQ(log.warnings(), "");
}

TEST_F(PictureFolders, APictureBesideThemMakesItAFlatFolder) {
  write("10_sks dog/a.png");
  write("b.png");
  const PictureFolder found = read_picture_folder(folder_.path());
  EXPECT_EQ(found.rule, "pictures of the folder and its subfolders");
  ASSERT_EQ(found.pictures.size(), 2u);
  EXPECT_EQ(found.pictures[0].caption, "");
  EXPECT_EQ(found.pictures[0].repeats, 1);
}

TEST_F(PictureFolders, NamesThatOnlyLookLikeKohyasAreNone) {
  for (const char* name :
       {"10", "_dog", "-3_dog", "1.5_dog", "99999999999999999999_dog", "x10_dog"})
    write(std::string(name) + "/a.png");
  const PictureFolder found = read_picture_folder(folder_.path());
  EXPECT_EQ(found.pictures.size(), 6u);
  for (const Picture& picture : found.pictures) EXPECT_EQ(picture.repeats, 1);
}

TEST_F(PictureFolders, EmptyOnesAreExplained) {
  expect_error(ErrorCode::not_found, "no pictures", [&] { names(); });
  write("a.gif");
  write("b.txt");
  expect_error(ErrorCode::not_found, "2 other entries", [&] { names(); });
  expect_error(ErrorCode::not_found, ".webp", [&] { names(); });
  expect_error(ErrorCode::not_found, "does not exist",
               [&] { read_picture_folder(folder_ / "nope"); });
  expect_error(ErrorCode::not_found, "this is no folder",
               [&] { read_picture_folder(folder_ / "a.gif"); });
  expect_error(ErrorCode::not_found, "does not exist",
               [&] { read_picture_folder(folder_ / std::string(5000, 'x')); });
}

}  // namespace
}  // namespace ringlet::data
