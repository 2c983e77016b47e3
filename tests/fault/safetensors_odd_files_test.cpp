// Files that look wrong but are right, and files that try to cost memory or time.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ringlet/core/error.h"
#include "ringlet/io/safetensors.h"
#include "tests/fault/safetensors_image.h"
#include "tests/temporary_folder.h"

namespace ringlet::io {
namespace {

using namespace std::string_literals;

TEST(SafetensorsOddFile, EmptyHeaderWithoutData) {
  const SafetensorsHeader header = parse(file_image("{}"));
  EXPECT_TRUE(header.tensors.empty());
  EXPECT_TRUE(header.metadata.empty());
  EXPECT_EQ(header.data_begin, 10u);
}

TEST(SafetensorsOddFile, SpacesAroundTheHeader) {
  EXPECT_EQ(parse(file_image(" \t\r\n{" + entry("a", "\"U8\"", "[ 4 ]", "[ 0 , 4 ]") + "}    ", 4))
                .tensors.size(),
            1u);
}

TEST(SafetensorsOddFile, ScalarAndEmptyTensors) {
  const std::string header = "{" + entry("none", "\"F32\"", "[0]", "[0,0]") + "," +
                             entry("scalar", "\"F64\"", "[]", "[0,8]") + "," +
                             entry("middle", "\"F32\"", "[3,0,2]", "[8,8]") + "," +
                             entry("wide", "\"I64\"", "[0,9223372036854775807]", "[8,8]") + "," +
                             entry("one", "\"U8\"", "[1,1,1]", "[8,9]") + "," +
                             entry("last", "\"F4\"", "[0]", "[9,9]") + "}";
  const SafetensorsHeader parsed = parse(file_image(header, 9));
  ASSERT_EQ(parsed.tensors.size(), 6u);
  EXPECT_EQ(parsed.tensors[0].name, "none");
  EXPECT_EQ(parsed.tensors[1].elements(), 1);
  EXPECT_EQ(parsed.tensors[2].name, "middle");  // empty tensors at one place: by name
  EXPECT_EQ(parsed.tensors[3].elements(), 0);
}

TEST(SafetensorsOddFile, NamesAreOnlyNames) {
  const std::string header = "{" + entry("../../etc/passwd", "\"U8\"", "[1]", "[0,1]") + "," +
                             entry("line\\nbreak", "\"U8\"", "[1]", "[1,2]") + "," +
                             entry("", "\"U8\"", "[1]", "[2,3]") + "," +
                             entry("nul\\u0000", "\"U8\"", "[1]", "[3,4]") + "," +
                             entry("\\ud83d\\ude00", "\"U8\"", "[1]", "[4,5]") + "," +
                             entry("__METADATA__", "\"U8\"", "[1]", "[5,6]") + "}";
  const TemporaryFolder folder;
  write_image(folder / "names.safetensors", file_image(header, 6));
  const auto file = SafetensorsFile::open(folder / "names.safetensors");
  for (const std::string& name :
       {"../../etc/passwd"s, "line\nbreak"s, ""s, "nul\0"s, "\xF0\x9F\x98\x80"s, "__METADATA__"s})
    EXPECT_NE(file->find(name), nullptr) << name;
  EXPECT_EQ(file->find("nul"), nullptr);
}

TEST(SafetensorsOddFile, TensorsInAnyOrderAndUnknownFields) {
  const std::string header =
      "{" + entry("b", "\"U8\"", "[2]", "[2,4]") +
      ",\"a\":{\"data_offsets\":[0,2],\"note\":{\"x\":[1,-2.5,null,{\"y\":true}]},\"shape\":[2],"
      "\"more\":\"text\",\"dtype\":\"U8\"}}";
  const SafetensorsHeader parsed = parse(file_image(header, 4));
  ASSERT_EQ(parsed.tensors.size(), 2u);
  EXPECT_EQ(parsed.tensors[0].name, "a");
  EXPECT_EQ(parsed.tensors[1].name, "b");
}

TEST(SafetensorsOddFile, MetadataNullEmptyAndText) {
  EXPECT_TRUE(parse(file_image("{\"__metadata__\":null}")).metadata.empty());
  EXPECT_TRUE(parse(file_image("{\"__metadata__\":{}}")).metadata.empty());
  EXPECT_EQ(parse(file_image(R"({"__metadata__":{"":"","k":"\u0000"}})")).metadata,
            (Metadata{{"", ""}, {"k", "\0"s}}));
}

TEST(SafetensorsOddFile, SixtyFourDimensions) {
  std::string shape = "[2";
  for (int i = 0; i < 63; ++i) shape += ",1";
  EXPECT_EQ(parse(with_shape(shape + "]")).tensors[0].shape.size(), 64u);
}

/// A header's length is the file's first bytes: some lengths spell another format's first bytes.
TEST(SafetensorsOddFile, HeaderLengthThatSpellsAnotherFormat) {
  const TemporaryFolder folder;
  for (const std::size_t length : {0x3Cu, 0x0280u, 0x0480u, 0x10280u}) {  // "<", pickles
    std::string header = "{" + entry("a", "\"U8\"", "[4]", "[0,4]") + "}";
    header.resize(length, ' ');
    write_image(folder / "good.safetensors", file_image(header, 4));
    EXPECT_EQ(SafetensorsFile::open(folder / "good.safetensors")->tensors().size(), 1u) << length;
  }
}

/// kB of physical memory that the calling process has had at most.
long peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmHWM:") {
      long value = 0;
      status >> value;
      return value;
    }
  return -1;
}

struct Cost {
  double seconds = 0;
  long growth = 0;  // kB
};

/// Opens the file in a process of its own, because a peak cannot be lowered.
Cost cost_of_opening(const std::filesystem::path& path) {
  int ends[2];
  if (::pipe(ends) != 0) return {1e9, 1 << 30};
  std::fflush(nullptr);  // what is buffered would be printed by both processes
  const pid_t child = ::fork();
  if (child == 0) {
    // Starts the peak anew from the present size.
    std::ofstream("/proc/self/clear_refs") << "5";
    Cost cost;
    const long before = peak_memory();
    const auto start = std::chrono::steady_clock::now();
    try {
      SafetensorsFile::open(path);
    } catch (const Error&) {
    }
    cost.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    cost.growth = peak_memory() - before;
    ::_exit(::write(ends[1], &cost, sizeof cost) == sizeof cost ? 0 : 1);
  }
  ::close(ends[1]);
  Cost cost{1e9, 1 << 30};
  if (::read(ends[0], &cost, sizeof cost) != sizeof cost) ADD_FAILURE() << "the child has died";
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  return cost;
}

struct Greedy {
  const char* name;
  std::string before;
  std::function<std::string(int)> item;
  int count;
  std::string after;
};

std::string greedy_header(const Greedy& greedy) {
  std::string header = greedy.before;
  for (int i = 0; i < greedy.count; ++i) header += greedy.item(i);
  return header + greedy.after;
}

/// Headers of up to 60 MB that a reader with a document tree turns into gigabytes. Accepted or
/// refused, each must cost no more memory than the file, five times the header (what the JSON
/// lexer's buffers may take), and 64 MiB; and little time.
TEST(SafetensorsOddFile, GreedyHeadersCostLittle) {
  const auto numbered = [](const char* value) {
    return [value](int i) { return (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":" + value; };
  };
  const auto same = [](const char* text) { return [text](int) { return std::string(text); }; };
  const char* empty_tensor = R"({"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  const std::string field = R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":)";
  const Greedy all[] = {
      {"a million tensors", "{", numbered(empty_tensor), 1'000'000, "}"},
      {"as many tensors as allowed", "{", numbered(empty_tensor), 1 << 17, "}"},
      {"metadata entries", R"({"__metadata__":{)", numbered("\"\""), 4'000'000, "}}"},
      {"metadata as allowed", R"({"__metadata__":{)", numbered("\"\""), 1 << 16, "}}"},
      {"unknown field with lists", field + "[0", same(",[]"), 15'000'000, "]}}"},
      {"unknown field with keys", field + "{", numbered("{}"), 4'000'000, "}}}"},
      {"one long name", "{\"", same("aaaaaaaaaaaaaaaa"), 1'000'000, "\":1}"},
      {"a long shape", R"({"a":{"shape":[1)", same(",1"), 20'000'000, "]}}"},
      {"brackets", "", same("[[[[[[[["), 2'000'000, ""},
  };
  const TemporaryFolder folder;
  for (const Greedy& greedy : all) {
    std::size_t size = 0;
    {
      const std::string image = file_image(greedy_header(greedy));
      size = image.size();
      write_image(folder / "greedy.safetensors", image);
    }
    const Cost cost = cost_of_opening(folder / "greedy.safetensors");
    std::printf("  %-28s file %3zu MB, growth %3ld MB, %.2f s\n", greedy.name, size >> 20,
                cost.growth >> 10, cost.seconds);
    // Sanitizers keep freed memory and are slow; there only the time has a (generous) bound.
#ifndef RINGLET_SANITIZED
    EXPECT_LE(cost.growth, static_cast<long>(6 * (size >> 10)) + (64 << 10)) << greedy.name;
#endif
    EXPECT_LE(cost.seconds, 10) << greedy.name;
  }
}

}  // namespace
}  // namespace ringlet::io
