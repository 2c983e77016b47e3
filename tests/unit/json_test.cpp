#include "ringlet/core/json.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "ringlet/core/atomic_file.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

using namespace std::literals;

Json parse(std::string_view text, const JsonLimits& limits = {}) {
  return parse_json(text, "file.json", limits);
}

void expect_bad(std::string_view text, std::string_view words = "file.json") {
  SCOPED_TRACE(text.substr(0, 60));
  expect_error(ErrorCode::bad_format, words, [&] { parse(text); });
}

TEST(Json, ReadsEveryKindOfValue) {
  const Json json =
      parse(R"( {"text":"\u00e9\ud83d\ude00","list":[1,-2,1.5e3,true,null],"o":{}} )");
  EXPECT_EQ(json.at("text"), "é😀");
  EXPECT_EQ(json.at("list").dump(), "[1,-2,1500.0,true,null]");
  EXPECT_TRUE(json.at("o").is_object());
  EXPECT_EQ(parse("7"), 7);
}

// A reader that keeps the last of two values and one that keeps the first see different files.
TEST(Json, RefusesDuplicateKeys) {
  expect_bad(R"({"a":1,"b":2,"a":1})", "key \"a\" appears twice");
  expect_bad(R"({"a":1,"\u0061":2})", "key \"a\" appears twice");
  expect_bad(R"({"":1,"":2})", "appears twice");
  expect_bad(R"([{"x":{"k":1,"k":2}}])", "key \"k\" appears twice");
}

TEST(Json, TheSameKeyInDifferentObjectsIsFine) {
  EXPECT_NO_THROW(parse(R"({"a":{"a":1},"b":[{"a":1},{"a":2}],"c":{"a":3}})"));
}

TEST(Json, DepthIsLimited) {
  const auto nested = [](std::size_t depth, std::string open, std::string close) {
    std::string text;
    for (std::size_t i = 0; i < depth; ++i) text += open;
    text += "1";
    for (std::size_t i = 0; i < depth; ++i) text += close;
    return text;
  };
  EXPECT_NO_THROW(parse(nested(64, "[", "]")));
  EXPECT_NO_THROW(parse(nested(64, "{\"a\":", "}")));
  expect_bad(nested(65, "[", "]"), "more than 64 deep");
  expect_bad(nested(65, "{\"a\":", "}"), "more than 64 deep");
  expect_bad(nested(100000, "[", "]"), "more than 64 deep");
  expect_bad(std::string(100000, '['), "more than 64 deep");
}

// Depth counts what is open, not what has been opened.
TEST(Json, ManySiblingsAreNotDepth) {
  std::string text = "[";
  for (int i = 0; i < 1000; ++i) text += "[],{},";
  EXPECT_EQ(parse(text + "0]").size(), 2001u);
}

TEST(Json, SizeIsLimited) {
  EXPECT_NO_THROW(parse("[1,2,3]", {.max_bytes = 7}));
  expect_error(ErrorCode::bad_format, "limit of 6 bytes",
               [] { parse("[1,2,3]", {.max_bytes = 6}); });
}

TEST(Json, RefusesWhatParsersDisagreeAbout) {
  for (const std::string_view text :
       {""sv,        " "sv,     "{"sv,        "{\"a\":}"sv,  "{\"a\":1,}"sv, "[1,]"sv,
        "[1 2]"sv,   "{a:1}"sv, "'a'"sv,      "nul"sv,       "NaN"sv,        "[Infinity]"sv,
        "[01]"sv,    "[+1]"sv,  "[.5]"sv,     "[1.]"sv,      "[1e]"sv,       "[0x10]"sv,
        "// x\n1"sv, "/**/1"sv, "\"a\nb\""sv, "\"\\x41\""sv, "\"\\u12\""sv,  "\"abc"sv})
    expect_bad(text);
}

TEST(Json, RefusesTrailingContent) {
  expect_bad("{} {}");
  expect_bad("{}x");
  expect_bad("1 2");
  EXPECT_NO_THROW(parse("{} \n\t\r "));
}

TEST(Json, RefusesByteOrderMarkAndNul) {
  expect_bad("\xEF\xBB\xBF{}", "byte order mark");
  expect_bad("{\"a\":1}\0"sv, "NUL");
  expect_bad("{\"a\0b\":1}"sv, "NUL");
  expect_bad("\0"sv, "NUL");
}

TEST(Json, RefusesTextThatIsNotUtf8) {
  expect_bad("\"\xff\"");
  expect_bad("\"\xc0\xaf\"");          // overlong "/"
  expect_bad("\"\xed\xa0\x80\"");      // a surrogate
  expect_bad("\"\xf4\x90\x80\x80\"");  // beyond U+10FFFF
  expect_bad("\"\xe2\x82\"");          // cut
  expect_bad("{\"\xe9\":1}");
  expect_bad(R"("\ud800")");
  expect_bad(R"("\udc00\ud800")");
}

TEST(Json, NumbersBeyondDoubleAreRefusedRatherThanInfinite) { expect_bad("[1e999]"); }

TEST(Json, TypedGettersNameTheField) {
  const Json json =
      parse(R"({"n":3,"x":1.5,"t":"text","b":true,"z":null,"l":[1,2],"m":{"a":"b"}})");
  EXPECT_EQ(json_value(json, "n", 7, "where"), 3);
  EXPECT_EQ(json_value(json, "absent", 7, "where"), 7);
  EXPECT_EQ(json_value(json, "z", 7, "where"), 7);
  EXPECT_EQ(json_value(json, "x", 0.0, "where"), 1.5);
  EXPECT_EQ(json_value(json, "n", 0.0, "where"), 3.0);
  EXPECT_EQ(json_require<std::vector<std::int64_t>>(json, "l", "where").size(), 2u);
  expect_error(ErrorCode::bad_format, "where: field \"t\" has the wrong type: \"text\"",
               [&] { json_value(json, "t", 7, "where"); });
  expect_error(ErrorCode::bad_format, "field \"n\" has the wrong type",
               [&] { json_value<std::string>(json, "n", "", "where"); });
  expect_error(ErrorCode::bad_format, "where: field \"absent\" is missing",
               [&] { json_require<int>(json, "absent", "where"); });
}

// nlohmann would turn 1.5 into 1, true into 1 and 2^63 into a negative number without a word.
TEST(Json, TypedGettersDoNotConvert) {
  const Json json = parse(R"({"x":1.5,"b":true,"big":9223372036854775808,"l":[1,2.5],"neg":-1,
                              "wide":3000000000})");
  const auto expect_wrong = [&](const char* key, auto fallback) {
    expect_error(ErrorCode::bad_format, std::string("field \"") + key + "\" has the wrong type",
                 [&] { json_value(json, key, fallback, "where"); });
  };
  expect_wrong("x", std::int64_t{0});
  expect_wrong("b", std::int64_t{0});
  expect_wrong("b", 0.0);
  expect_wrong("x", false);
  expect_wrong("big", std::int64_t{0});
  expect_wrong("l", std::vector<std::int64_t>{});
  expect_wrong("neg", std::uint64_t{0});
  expect_wrong("wide", int{0});
}

TEST(Json, FilesAreChecked) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "good.json", R"({"a":[1]})");
  EXPECT_EQ(read_json_file(folder / "good.json").dump(), R"({"a":[1]})");
  write_file_atomically(folder / "empty.json", "");
  expect_error(ErrorCode::bad_format, "empty.json", [&] { read_json_file(folder / "empty.json"); });
  expect_error(ErrorCode::not_found, "none.json", [&] { read_json_file(folder / "none.json"); });
  expect_error(ErrorCode::io, "not a regular file", [&] { read_json_file(folder.path()); });
  expect_error(ErrorCode::bad_format, "too large",
               [&] { read_json_file(folder / "good.json", {.max_bytes = 3}); });
  std::filesystem::create_symlink("good.json", folder / "link.json");
  EXPECT_NO_THROW(read_json_file(folder / "link.json"));  // download caches link their files
}

// A device never ends; reading it whole would fill the memory.
TEST(Json, DevicesAreRefused) {
  expect_error(ErrorCode::io, "regular", [] { read_json_file("/dev/zero"); });
}

}  // namespace
}  // namespace ringlet
