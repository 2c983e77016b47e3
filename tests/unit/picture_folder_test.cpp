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
  /// What the folder's notes say, one a line.
  std::string notes(const PictureFolderOptions& options = {}) const {
    std::string all;
    for (const FolderNote& note : read_picture_folder(folder_.path(), options).notes)
      all += text_of(note) + "\n";
    return all;
  }
  TemporaryFolder folder_;
};

using Names = std::vector<std::string>;

TEST_F(PictureFolders, FindPicturesByTheirExtension) {
  for (const char* name : {"d.webp", "a.PNG", "b.jpg", "c.JpEg", "e.gif", "f.txt", "g", "h.png.bak",
                           ".hidden.png", "sub/z.png", "sub/deeper/y.jpeg", "i.BMP", "j.jfif"})
    write(name);
  EXPECT_EQ(names(), (Names{"a.PNG", "b.jpg", "c.JpEg", "d.webp", "i.BMP", "j.jfif",
                            "sub/deeper/y.jpeg", "sub/z.png"}));
  const PictureFolder found = read_picture_folder(folder_.path());
  EXPECT_EQ(found.captions, 0u);
  EXPECT_EQ(found.rule, "pictures of the folder and its subfolders (2 in sub)");
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
  expect_error(ErrorCode::bad_format, "not valid UTF-8; it may be Latin-1", [&] { names(); });
  write("b.png");
  write("b.TXT", "na\xEFve");
  expect_error(ErrorCode::bad_format, "2 captions cannot be read", [&] { names(); });
  expect_error(ErrorCode::bad_format, "b.TXT", [&] { names(); });
  // Where they are not the pictures' captions, nobody minds.
  EXPECT_EQ(read_picture_folder(folder_.path(), {.captions = Captions::unused}).captions, 0u);
}

TEST_F(PictureFolders, CaptionsInUtf16AreRead) {
  using namespace std::literals;
  write("a.png");
  write("a.txt",
        "\xFF\xFE"
        "a\0 \0d\0o\0g\0\r\0\n\0"s);
  EXPECT_EQ(caption("a.png"), "a dog");
  write("a.txt",
        "\xFE\xFF"
        "\0c\0a\0f\0\xE9\0 \xD8\x3D\xDC\x15"s);
  EXPECT_EQ(caption("a.png"), "caf\xC3\xA9 \xF0\x9F\x90\x95");
  for (const auto& [bytes, words] : std::vector<std::pair<std::string, std::string>>{
           {"\xFF\xFE"
            "a"s,
            "ends within a character"},
           {"\xFF\xFE\x3D\xD8"s, "damaged UTF-16"},
           {"\xFF\xFE\x15\xDC"s
            "a\0"s,
            "damaged UTF-16"},
           {"\xFF\xFE\0\0a\0\0\0"s, "UTF-32"},
           {"a\0 \0d\0"s, "without a byte order mark"}}) {
    write("a.txt", bytes);
    expect_error(ErrorCode::bad_format, words, [&] { names(); });
  }
}

TEST_F(PictureFolders, CaptionFilesMayBeCapitalised) {
  for (const char* name : {"a.png", "b.png", "c.png"}) write(name);
  write("a.TXT", "a red dog");
  write("b.Caption", "a blue dog");
  write("c.TXT", "not this");
  write("c.txt", "a green dog");
  EXPECT_EQ(caption("a.png"), "a red dog");
  EXPECT_EQ(caption("b.png"), "a blue dog");
  EXPECT_EQ(caption("c.png"), "a green dog");
  EXPECT_EQ(notes(),
            "1 caption file is not used: its picture has another, which comes first: c.TXT\n");
}

TEST_F(PictureFolders, SayWhatTheyDoNotUse) {
  for (const char* name :
       {"a.png", "b.png", "x.gif", "y.heic", "z.HEIC", "w.tif", "y.txt", "metadata.jsonl",
        "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/b.png", "Thumbs.db", ".DS_Store", "._a.png",
        ".ipynb_checkpoints/a-checkpoint.png"})
    write(name);
  write("a.txt", "a dog\n\nand more\n");
  write("b.txt", " \n");
  EXPECT_EQ(names(), (Names{"a.png", "b.png"}));
  EXPECT_EQ(notes(),
            "4 files of unsupported types: .gif .heic .tif; convert to PNG, JPEG or WebP\n"
            "6 files and folders of other programs are skipped: .DS_Store, ._a.png, "
            ".ipynb_checkpoints, @eaDir, Thumbs.db and 1 more\n"
            "1 file is neither a picture nor a caption: metadata.jsonl\n"
            "1 caption file is empty: b.txt\n"
            "1 caption has more than one line; only the first is used: a.txt\n"
            "1 caption file belongs to no picture that is read: y.txt\n");
  EXPECT_NE(notes({.captions = Captions::unused})
                .find("3 caption files are not used: a.txt, b.txt, y.txt\n"),
            std::string::npos);
  EXPECT_EQ(notes({.captions = Captions::ignored}).find("caption file"), std::string::npos);
  // Other verbs show no plan.
  const LogCapture log;
  EXPECT_EQ(read_pictures(folder_.path()).size(), 2u);
  EXPECT_NE(log.warnings().find(": 4 files of unsupported types"), std::string::npos);
  EXPECT_EQ(log.warnings().find("metadata.jsonl"), std::string::npos) << log.warnings();
}

TEST_F(PictureFolders, WhatOnlyLooksLikeACaptionIsNone) {
  for (const char* name : {"a.png", "a.txt/notes.md", "._a.txt"}) write(name);
  EXPECT_EQ(caption("a.png"), "");
  EXPECT_EQ(notes(),
            "1 file or folder of other programs is skipped: ._a.txt\n"
            "1 file is neither a picture nor a caption: a.txt/notes.md\n");
}

TEST_F(PictureFolders, MasksBesideTheirPictureAreNone) {
  for (const char* name :
       {"a.png", "a-masklabel.png", "a-condlabel.png", "b.jpg", "b_mask.png", "mask_b.png",
        "lone_mask.png", "sub/c.png", "sub/c.MASK.png", "masks/a.png", "masks/d.png",
        "conditioning/b_mask.jpg", "mask/carnival.png"})
    write(name);
  EXPECT_EQ(names(), (Names{"a.png", "b.jpg", "lone_mask.png", "mask/carnival.png", "sub/c.png"}));
  const PictureFolder found = read_picture_folder(folder_.path());
  ASSERT_EQ(found.notes.size(), 1u);
  EXPECT_EQ(found.notes[0].kind, NoteKind::mask);
  EXPECT_STREQ(name_of(found.notes[0].kind), "mask");
  EXPECT_EQ(found.notes[0].files,
            (std::vector<fs::path>{"a-condlabel.png", "a-masklabel.png", "b_mask.png",
                                   "conditioning", "mask_b.png", "masks", "sub/c.MASK.png"}));
}

// As "images" and "masks" lie beside each other in many data sets.
TEST_F(PictureFolders, FoldersOfMasksMayLieBesideThatOfThePictures) {
  for (const char* name : {"images/a.png", "masks/a.png", "data_mask/a.png"}) write(name);
  EXPECT_EQ(names(), (Names{"images/a.png"}));
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
  write("lost.heic");
  const PictureFolder found = read_picture_folder(folder_.path());
  EXPECT_EQ(found.rule, "subfolders REPEATS_words, 2 to 10 repeats");
  EXPECT_NE(notes().find("2 subfolders are skipped, since their names are not REPEATS_words: "
                         "0_never, notes; name them like 1_words to use them\n"),
            std::string::npos)
      << notes();
  EXPECT_NE(notes().find("skipped: .thumbnails\n"), std::string::npos) << notes();
  EXPECT_NE(notes().find("1 file of an unsupported type: .heic"), std::string::npos) << notes();
  EXPECT_EQ(found.captions, 1u);
  ASSERT_EQ(found.pictures.size(), 3u);
  EXPECT_EQ(found.pictures[0].caption, "sks dog");
  EXPECT_EQ(found.pictures[0].repeats, 10);
  EXPECT_EQ(found.pictures[1].caption, "b of its own");
  EXPECT_EQ(found.pictures[1].repeats, 10);
  EXPECT_EQ(found.pictures[2].caption, "style");
  EXPECT_EQ(found.pictures[2].repeats, 2);
}

TEST_F(PictureFolders, KohyaFoldersAloneNeedNoNote) {
  write("2023_summer/a.png");
  EXPECT_EQ(read_picture_folder(folder_.path()).rule, "subfolders REPEATS_words, 2023 repeats");
  EXPECT_EQ(notes(), "");
}

TEST_F(PictureFolders, APictureBesideThemMakesItAFlatFolder) {
  write("10_sks dog/a.png");
  write("b.png");
  const PictureFolder found = read_picture_folder(folder_.path());
  EXPECT_EQ(found.rule, "pictures of the folder and its subfolders (1 in 10_sks dog)");
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
  expect_error(ErrorCode::not_found, "1 file of an unsupported type: .gif", [&] { names(); });
  EXPECT_TRUE(read_picture_folder(folder_.path(), {.may_be_empty = true}).pictures.empty());
  expect_error(ErrorCode::not_found, "does not exist",
               [&] { read_picture_folder(folder_ / "nope"); });
  expect_error(ErrorCode::not_found, "this is not a folder",
               [&] { read_picture_folder(folder_ / "a.gif"); });
  expect_error(ErrorCode::not_found, "does not exist",
               [&] { read_picture_folder(folder_ / std::string(5000, 'x')); });
}

}  // namespace
}  // namespace ringlet::data
