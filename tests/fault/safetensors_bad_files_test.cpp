// Hand-made bad files: each is refused with its own words. Good but odd files are accepted.
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "ringlet/core/error.h"
#include "ringlet/io/safetensors.h"
#include "tests/expect_error.h"
#include "tests/fault/safetensors_image.h"
#include "tests/temporary_folder.h"

namespace ringlet::io {
namespace {

using namespace std::string_literals;

struct BadFile {
  std::string name;
  std::string image;
  ErrorCode code;
  std::string words;
};
void PrintTo(const BadFile& file, std::ostream* stream) { *stream << file.name; }

constexpr ErrorCode kBad = ErrorCode::bad_format;
constexpr ErrorCode kUnsupported = ErrorCode::unsupported;

std::string f32(const std::string& name, int begin, int end) {
  return entry(name, "\"F32\"", "[" + std::to_string((end - begin) / 4) + "]",
               "[" + std::to_string(begin) + "," + std::to_string(end) + "]");
}

std::string repeated(const std::string& text, int count) {
  std::string all;
  all.reserve(text.size() * static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

/// Ten tensors that all claim the same bytes ("json_attack" of the safetensors package).
std::string json_attack() {
  std::string header = "{";
  for (int i = 0; i < 10; ++i)
    header +=
        (i > 0 ? "," : "") + entry("weight_" + std::to_string(i), "\"F32\"", "[2,2]", "[0,16]");
  return file_image(header + "}", 16);
}

std::vector<BadFile> lengths() {
  const std::string good = "{" + f32("a", 0, 8) + "}";
  const std::string body = good + std::string(8, '\0');
  const auto with_length = [&](std::uint64_t length) { return length_field(length) + body; };
  return {
      {"EmptyFile", "", kBad, "is an empty file"},
      {"OneByte", "x", kBad, "is too short (1 bytes)"},
      {"SevenBytes", "\x02\0\0\0\0\0\0"s, kBad, "is too short (7 bytes)"},
      {"LengthFieldOnly", length_field(2), kBad, "header claims 2 bytes, but the file holds 0"},
      {"HeaderLengthZero", with_length(0), kBad, "its header is not valid JSON"},
      {"HeaderOneByteTooShort", with_length(good.size() - 1), kBad, "its header is not valid JSON"},
      {"HeaderOneByteTooLong", with_length(good.size() + 1), kBad, "a NUL byte"},
      {"HeaderBeyondTheFile", with_length(body.size() + 1), kBad, "but the file holds"},
      {"HeaderOverTheLimit", with_length(100'000'001), kBad,
       "claims 100000001 bytes; the limit is 100 MB"},
      {"HeaderAtTheLimitBeyondTheFile", with_length(100'000'000), kBad, "but the file holds"},
      {"HeaderLength2To63", with_length(std::uint64_t{1} << 63), kBad,
       "claims 9223372036854775808 bytes"},
      {"HeaderLength2To64Minus1", with_length(~std::uint64_t{0}), kBad,
       "claims 18446744073709551615 bytes"},
      {"HeaderLength2To64Minus8", with_length(~std::uint64_t{7}), kBad,
       "claims 18446744073709551608 bytes"},
      {"HeaderLengthBigEndian", "\0\0\0\0\0\0\0\x34"s + body, kBad, "the limit is 100 MB"},
      {"TwoBytesMissing", file_image(good, 6), kBad,
       "is cut short: the tensors need 8 bytes, but only 6 follow"},
      {"ThirtyFourExtraBytes", file_image(good, 42), kBad, "34 bytes follow the last tensor"},
      {"EmptyHeaderWithData", file_image("{}", 4), kBad, "4 bytes follow the last tensor"},
  };
}

std::vector<BadFile> texts() {
  const auto named = [](const std::string& name) {
    return file_image("{" + f32(name, 0, 8) + "}", 8);
  };
  const std::string good = "{" + f32("a", 0, 8) + "}";
  return {
      {"Utf8LoneContinuation", named("\x80"), kBad, "not UTF-8"},
      {"Utf8Overlong", named("\xC0\xAF"), kBad, "not UTF-8"},
      {"Utf8OverlongThreeBytes", named("\xE0\x80\xAF"), kBad, "not UTF-8"},
      {"Utf8Surrogate", named("\xED\xA0\x80"), kBad, "not UTF-8"},
      {"Utf8BeyondUnicode", named("\xF4\x90\x80\x80"), kBad, "not UTF-8"},
      {"Utf8InvalidByte", named("\xFF"), kBad, "not UTF-8"},
      {"Utf8Truncated", named("\xE2\x82"), kBad, "not UTF-8"},
      {"Utf8TruncatedAtTheEnd", file_image("{}\xE2\x82"), kBad, "not UTF-8"},
      {"Utf16Header", file_image("{\0}\0"s), kBad, "a NUL byte"},
      {"EscapedLoneSurrogate", named("\\ud800"), kBad, "not valid JSON"},
      {"NotJson", file_image("hello, weights"), kBad, "not valid JSON (near byte 1)"},
      {"UnclosedObject", file_image("{" + f32("a", 0, 8), 8), kBad, "not valid JSON"},
      {"TrailingComma", file_image("{" + f32("a", 0, 8) + ",}", 8), kBad, "not valid JSON"},
      {"SingleQuotes", file_image("{'a':{}}"), kBad, "not valid JSON"},
      {"Comment", file_image("{/* no */}"), kBad, "not valid JSON"},
      {"NaNInHeader", with_shape("[NaN]"), kBad, "not valid JSON"},
      {"LeadingZero", with_shape("[02]"), kBad, "not valid JSON"},
      {"HexNumber", with_shape("[0x2]"), kBad, "not valid JSON"},
      {"NumberOutOfRange", with_shape("[1e999]"), kBad, "not valid JSON"},
      {"RawNewlineInName", named("a\nb"), kBad, "not valid JSON"},
      {"BadEscape", named("\\x"), kBad, "not valid JSON"},
      {"OnlySpaces", file_image("        "), kBad, "not valid JSON"},
      {"TrailingText", file_image(good + "x", 8), kBad, "not valid JSON"},
      {"SecondObject", file_image(good + "{}", 8), kBad, "not valid JSON"},
      {"ByteOrderMark", file_image("\xEF\xBB\xBF" + good, 8), kBad, "a byte order mark"},
      {"NulAfterTheHeader", file_image(good + "\0"s, 8), kBad, "a NUL byte"},
      {"NulInAName", named("a\0b"s), kBad, "a NUL byte"},
      {"NulHidesText", file_image(good + "\0{\"b\":1}"s, 8), kBad, "a NUL byte"},
      {"ArrayHeader", file_image("[]"), kBad, "not a JSON object"},
      {"NumberHeader", file_image("12345678"), kBad, "not a JSON object"},
      {"StringHeader", file_image("\"header\""), kBad, "not a JSON object"},
      {"NullHeader", file_image("null"), kBad, "not a JSON object"},
      {"TrueHeader", file_image("true"), kBad, "not a JSON object"},
  };
}

std::vector<BadFile> fields() {
  const auto tensor = [](const std::string& value) {
    return file_image("{\"a\":" + value + "}", 8);
  };
  return {
      {"EntryEmpty", tensor("{}"), kBad, "tensor \"a\": dtype is missing"},
      {"EntryNull", tensor("null"), kBad, "tensor \"a\": its entry is not an object"},
      {"EntryNumber", tensor("8"), kBad, "its entry is not an object"},
      {"EntryString", tensor("\"F32\""), kBad, "its entry is not an object"},
      {"EntryList", tensor("[\"F32\",[2],[0,8]]"), kBad, "its entry is not an object"},
      {"DtypeMissing", tensor("{\"shape\":[2],\"data_offsets\":[0,8]}"), kBad, "dtype is missing"},
      {"ShapeMissing", tensor("{\"dtype\":\"F32\",\"data_offsets\":[0,8]}"), kBad,
       "shape is missing"},
      {"OffsetsMissing", tensor("{\"dtype\":\"F32\",\"shape\":[2]}"), kBad,
       "data_offsets is missing"},
      {"FieldNamesInUpperCase", tensor("{\"DTYPE\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"),
       kBad, "dtype is missing"},
      {"DtypeUnknown", with_dtype("\"F33\""), kBad, "dtype \"F33\" is not known"},
      {"DtypeLowerCase", with_dtype("\"f32\""), kBad, "dtype \"f32\" is not known"},
      {"DtypeEmpty", with_dtype("\"\""), kBad, "dtype \"\" is not known"},
      {"DtypeWithSpace", with_dtype("\"F32 \""), kBad, "dtype \"F32 \" is not known"},
      {"DtypeNumber", with_dtype("32"), kBad, "dtype 32 is not known"},
      {"DtypeNull", with_dtype("null"), kBad, "dtype null is not known"},
      {"DtypeList", with_dtype("[\"F32\"]"), kBad, "dtype a list is not known"},
      {"DtypeObject", with_dtype("{\"F32\":null}"), kBad, "dtype an object is not known"},
      {"ShapeNumber", with_shape("2"), kBad, "shape is not a list"},
      {"ShapeString", with_shape("\"2\""), kBad, "shape is not a list"},
      {"ShapeNull", with_shape("null"), kBad, "shape is not a list"},
      {"ShapeObject", with_shape("{\"0\":2}"), kBad, "shape is not a list"},
      {"ShapeNested", with_shape("[[2]]"), kBad, "shape holds a list"},
      {"ShapeOfString", with_shape("[\"2\"]"), kBad, "shape holds \"2\""},
      {"ShapeOfNull", with_shape("[null]"), kBad, "shape holds null"},
      {"ShapeOfTrue", with_shape("[true,2]"), kBad, "shape holds true"},
      {"ShapeNegative", with_shape("[-2]"), kBad, "shape holds -2, not a non-negative integer"},
      {"ShapeNegativeZero", with_shape("[-0]"), kBad, "shape holds 0, not a non-negative integer"},
      {"ShapeFloat", with_shape("[2.0]"), kBad, "shape holds 2.0"},
      {"ShapeExponent", with_shape("[2e0]"), kBad, "shape holds 2e0"},
      {"ShapeHugeFloat", with_shape("[1e20]"), kBad, "shape holds 1e20"},
      {"Shape2To64", with_shape("[18446744073709551616]"), kBad,
       "shape holds 18446744073709551616, not"},
      {"Shape2To63", with_shape("[9223372036854775808]"), kBad, "too large to be real"},
      {"OffsetsNumber", with_offsets("8"), kBad, "data_offsets is not a list"},
      {"OffsetsString", with_offsets("\"0,8\""), kBad, "data_offsets is not a list"},
      {"OffsetsObject", with_offsets("{\"begin\":0,\"end\":8}"), kBad,
       "data_offsets is not a list"},
      {"OffsetsEmpty", with_offsets("[]"), kBad, "data_offsets does not hold two numbers"},
      {"OffsetsOneNumber", with_offsets("[0]"), kBad, "data_offsets does not hold two numbers"},
      {"OffsetsThreeNumbers", with_offsets("[0,8,8]"), kBad,
       "data_offsets does not hold two numbers"},
      {"OffsetsNegative", with_offsets("[-1,7]"), kBad, "data_offsets holds -1"},
      {"OffsetsFraction", with_offsets("[0,1.5]"), kBad, "data_offsets holds 1.5"},
      {"OffsetsHugeFloat", with_offsets("[0,1e20]"), kBad, "data_offsets holds 1e20"},
      {"Offsets2To64", with_offsets("[0,18446744073709551616]"), kBad,
       "data_offsets holds 18446744073709551616"},
      {"OffsetsNull", with_offsets("[0,null]"), kBad, "data_offsets holds null"},
      {"OffsetsNested", with_offsets("[[0,8]]"), kBad, "data_offsets holds a list"},
  };
}

std::vector<BadFile> layouts() {
  const auto two = [](int a_begin, int a_end, int b_begin, int b_end, std::size_t bytes) {
    return file_image("{" + f32("a", a_begin, a_end) + "," + f32("b", b_begin, b_end) + "}", bytes);
  };
  const auto typed = [](const std::string& dtype, const std::string& shape, std::size_t bytes) {
    return file_image("{" + entry("a", dtype, shape, "[0," + std::to_string(bytes) + "]") + "}",
                      bytes);
  };
  return {
      {"JsonAttack", json_attack(), kBad, "overlaps another tensor's"},
      {"ProductOverflow", with_shape("[2,18446744073709551614]"), kBad, "too large to be real"},
      {"BytesOverflow", with_shape("[2,9223372036854775807]"), kBad, "too large to be real"},
      {"BitsOverflowToZero", typed("\"U8\"", "[2305843009213693952]", 0), kBad,
       "too large to be real"},
      {"ProductOverflowToTheSpan", with_shape("[4294967296,4294967296,2]"), kBad,
       "too large to be real"},
      {"OverflowBeforeAZero", with_shape("[4611686018427387904,4611686018427387904,0]"), kBad,
       "too large to be real"},
      {"OffsetsReversed", with_offsets("[8,0]"), kBad, "data_offsets run backwards"},
      {"SpanTooSmall", with_shape("[3]"), kBad, "data_offsets span 8 bytes, but its shape and"},
      {"SpanTooLarge", with_shape("[1]"), kBad, "need 4"},
      {"ScalarWithTwoElements", with_shape("[]"), kBad, "need 4"},
      {"EmptyTensorWithData", with_shape("[0]"), kBad, "need 0"},
      {"Offsets2To64Minus1", with_offsets("[18446744073709551607,18446744073709551615]"), kBad,
       "there is a hole before its data"},
      {"Overlap", two(0, 8, 4, 12, 12), kBad, "tensor \"b\": its data overlaps"},
      {"SameBytes", two(0, 8, 0, 8, 8), kBad, "overlaps"},
      {"Contained", two(0, 16, 4, 8, 16), kBad, "tensor \"b\": its data overlaps"},
      {"EmptyTensorInsideAnother", two(0, 8, 4, 4, 8), kBad, "tensor \"b\": its data overlaps"},
      {"Hole", two(0, 4, 8, 12, 12), kBad, "tensor \"b\": there is a hole before its data"},
      {"FirstNotAtZero", with_offsets("[4,12]"), kBad, "tensor \"a\": there is a hole before"},
      {"EmptyTensorBeyondTheEnd", two(0, 8, 12, 12, 8), kBad, "there is a hole"},
      {"NotReachingTheEnd", two(0, 4, 4, 8, 12), kBad, "4 bytes follow the last tensor"},
      {"BeyondTheEnd", two(0, 4, 4, 16, 12), kBad, "the tensors need 16 bytes, but only 12"},
      {"F4EndsInsideAByte", typed("\"F4\"", "[3]", 1), kBad, "its data ends inside a byte"},
      {"F6EndsInsideAByte", typed("\"F6_E2M3\"", "[3]", 2), kBad, "its data ends inside a byte"},
      {"F6ScalarEndsInsideAByte", typed("\"F6_E3M2\"", "[]", 1), kBad, "ends inside a byte"},
  };
}

std::vector<BadFile> keys() {
  const std::string a = f32("a", 0, 8);
  const auto metadata = [&](const std::string& value) {
    return file_image("{\"__metadata__\":" + value + "," + f32("a", 0, 8) + "}", 8);
  };
  const auto twice = [](const std::string& first, const std::string& second) {
    return file_image("{\"a\":{" + first + "," + second + "}}", 8);
  };
  const std::string dtype = "\"dtype\":\"F32\"", rest = "\"shape\":[2],\"data_offsets\":[0,8]";
  return {
      {"DuplicateTensor", file_image("{" + a + "," + a + "}", 8), kBad, "key \"a\" appears twice"},
      {"DuplicateTensorElsewhere", file_image("{" + a + "," + f32("a", 8, 16) + "}", 16), kBad,
       "key \"a\" appears twice"},
      {"DuplicateTensorEscaped", file_image("{" + a + "," + f32("\\u0061", 8, 16) + "}", 16), kBad,
       "key \"a\" appears twice"},
      {"DuplicateEmptyName", file_image("{" + f32("", 0, 4) + "," + f32("", 4, 8) + "}", 8), kBad,
       "key \"\" appears twice"},
      {"DuplicateMetadata", file_image("{\"__metadata__\":{},\"__metadata__\":{}}"), kBad,
       "key \"__metadata__\" appears twice"},
      {"DuplicateMetadataNull", file_image("{\"__metadata__\":null,\"__metadata__\":{}}"), kBad,
       "key \"__metadata__\" appears twice"},
      {"DuplicateMetadataKey", metadata(R"({"k":"1","\u006b":"2"})"), kBad,
       "__metadata__ key \"k\" appears twice"},
      {"DuplicateDtype", twice(dtype, dtype + "," + rest), kBad, "key \"dtype\" appears twice"},
      {"DuplicateShape", twice("\"shape\":[2]", dtype + "," + rest), kBad,
       "key \"shape\" appears twice"},
      {"DuplicateOffsets", twice("\"data_offsets\":[0,4]", dtype + "," + rest), kBad,
       "key \"data_offsets\" appears twice"},
      {"DuplicateShapeEscaped", twice("\"\\u0073hape\":[2]", dtype + "," + rest), kBad,
       "key \"shape\" appears twice"},
      {"MetadataString", metadata("\"pt\""), kBad, "__metadata__ is not an object"},
      {"MetadataList", metadata("[\"format\",\"pt\"]"), kBad, "__metadata__ is not an object"},
      {"MetadataNumber", metadata("1"), kBad, "__metadata__ is not an object"},
      {"MetadataValueNumber", metadata("{\"rank\":4}"), kBad, "entry \"rank\" is not a string"},
      {"MetadataValueNull", metadata("{\"rank\":null}"), kBad, "entry \"rank\" is not a string"},
      {"MetadataValueObject", metadata("{\"a\":{\"b\":\"c\"}}"), kBad,
       "entry \"a\" is not a string"},
      {"MetadataValueList", metadata("{\"a\":[\"b\"]}"), kBad, "entry \"a\" is not a string"},
      {"MetadataOfATensor", metadata("{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}"),
       kBad, "entry \"shape\" is not a string"},
      {"ControlCharactersAreShownEscaped", file_image("{\"a\\n\\u001b[31m\":1}"), kBad,
       "tensor \"a\\n\\u001b[31m\": its entry"},
      {"LongNamesAreCut", file_image("{\"" + repeated("\xE2\x82\xAC", 5000) + "\":1}"), kBad,
       "tensor \"" + repeated("\xE2\x82\xAC", 33) + "\": its entry"},
  };
}

std::vector<BadFile> attacks() {
  const auto field = [](const std::string& value) {
    return file_image(
        "{\"a\":{\"x\":" + value + ",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
  };
  return {
      {"DeepHeader", file_image(repeated("[", 100'000)), kBad, "not a JSON object"},
      {"DeepEntry", file_image("{\"a\":" + repeated("[", 100'000)), kBad, "is not an object"},
      {"DeepObjects", file_image(repeated("{\"a\":", 100'000)), kBad, "more than 64 deep"},
      {"DeepShape", with_shape(repeated("[", 100'000) + repeated("]", 100'000)), kBad,
       "shape holds a list"},
      {"DeepUnknownField", field(repeated("[", 100'000) + repeated("]", 100'000)), kBad,
       "is nested more than 64 deep"},
      {"DeepUnknownObjects", field(repeated("{\"b\":", 100'000)), kBad,
       "is nested more than 64 deep"},
      {"DeepMetadata", file_image("{\"__metadata__\":" + repeated("{\"a\":", 100'000)), kBad,
       "entry \"a\" is not a string"},
      {"TenThousandDimensions", with_shape("[2" + repeated(",1", 9'999) + "]"), kBad,
       "its shape has more than 64 dimensions"},
      {"SixtyFiveDimensions", with_shape("[2" + repeated(",1", 64) + "]"), kBad,
       "its shape has more than 64 dimensions"},
      {"MillionOffsets", with_offsets("[0" + repeated(",8", 1'000'000) + "]"), kBad,
       "data_offsets does not hold two numbers"},
  };
}

std::vector<BadFile> foreign_files() {
  return {
      {"LfsPointer",
       "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3438167540\n",
       kUnsupported, "is a Git LFS pointer"},
      {"HtmlPage", "<!DOCTYPE html><html><body>Not found</body></html>", kUnsupported,
       "is a web page or an error message"},
      {"JsonError", "{\"error\":\"Repository not found\"}", kUnsupported, "is a web page"},
      {"HubMessage", "Entry not found", kUnsupported, "is a web page or an error message"},
      {"PickleInAZip", "PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0archive/data.pkl"s, kUnsupported,
       "is a pickle checkpoint"},
      {"RawPickle", "\x80\x02}q\0(X\x06\0\0\0weight"s, kUnsupported, "is a pickle checkpoint"},
      {"RawPickleProtocol4", "\x80\x04\x95\x20\0\0\0\0\0\0\0}\x94"s, kUnsupported,
       "is a pickle checkpoint"},
      {"Gguf", "GGUF\x03\0\0\0\x10\0\0\0\0\0\0\0"s, kUnsupported, "is a GGUF file"},
      {"PlainText", "These are not the weights.", kBad, "the limit is 100 MB"},
      {"PngFile", "\x89PNG\r\n\x1A\n\0\0\0\rIHDR"s, kBad, "the limit is 100 MB"},
      {"AllZero", std::string(64, '\0'), kBad, "not valid JSON"},
  };
}

class SafetensorsBadFile : public testing::TestWithParam<BadFile> {};

TEST_P(SafetensorsBadFile, IsRefused) {
  const TemporaryFolder folder;
  write_image(folder / "bad.safetensors", GetParam().image);
  expect_error(GetParam().code, GetParam().words,
               [&] { SafetensorsFile::open(folder / "bad.safetensors"); });
  expect_error(GetParam().code, (folder / "bad.safetensors").string(),
               [&] { SafetensorsFile::open(folder / "bad.safetensors"); });
}

std::string case_name(const testing::TestParamInfo<BadFile>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Lengths, SafetensorsBadFile, testing::ValuesIn(lengths()), case_name);
INSTANTIATE_TEST_SUITE_P(Texts, SafetensorsBadFile, testing::ValuesIn(texts()), case_name);
INSTANTIATE_TEST_SUITE_P(Fields, SafetensorsBadFile, testing::ValuesIn(fields()), case_name);
INSTANTIATE_TEST_SUITE_P(Layouts, SafetensorsBadFile, testing::ValuesIn(layouts()), case_name);
INSTANTIATE_TEST_SUITE_P(Keys, SafetensorsBadFile, testing::ValuesIn(keys()), case_name);
INSTANTIATE_TEST_SUITE_P(Attacks, SafetensorsBadFile, testing::ValuesIn(attacks()), case_name);
INSTANTIATE_TEST_SUITE_P(Foreign, SafetensorsBadFile, testing::ValuesIn(foreign_files()),
                         case_name);

TEST(SafetensorsPath, MissingFilesAndThingsThatAreNoFilesAreRefused) {
  const TemporaryFolder folder;
  write_image(folder / "file", file_image("{}"));
  expect_error(ErrorCode::not_found, "No such file",
               [&] { SafetensorsFile::open(folder / "missing.safetensors"); });
  expect_error(ErrorCode::not_found, "Not a directory",
               [&] { SafetensorsFile::open(folder / "file/inside.safetensors"); });
  expect_error(ErrorCode::io, "is not a regular file",
               [&] { SafetensorsFile::open(folder.path()); });
  expect_error(ErrorCode::io, "is not a regular file", [&] { SafetensorsFile::open("/dev/zero"); });
  std::filesystem::create_symlink("loop", folder / "loop");
  expect_error(ErrorCode::io, "symbolic links", [&] { SafetensorsFile::open(folder / "loop"); });
  expect_error(ErrorCode::io, "name too long",
               [&] { SafetensorsFile::open(folder / std::string(300, 'x')); });
}

/// A FIFO without a writer would block a plain open() for ever.
TEST(SafetensorsPath, FifoIsRefusedWithoutWaiting) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  expect_error(ErrorCode::io, "is not a regular file",
               [&] { SafetensorsFile::open(folder / "fifo"); });
}

}  // namespace
}  // namespace ringlet::io
