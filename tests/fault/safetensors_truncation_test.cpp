// Cut, damaged and replaced files; what the writer promises.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "ringlet/core/error.h"
#include "ringlet/io/safetensors.h"
#include "tests/expect_error.h"
#include "tests/fault/safetensors_image.h"
#include "tests/temporary_folder.h"

namespace ringlet::io {
namespace {

std::string read_whole(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// Owns the bytes of tensors that are to be written.
class Content {
 public:
  void add(const std::string& name, Dtype dtype, std::vector<std::int64_t> shape) {
    std::int64_t total = bits(dtype);
    for (const std::int64_t extent : shape) total *= extent;
    std::vector<std::byte>& bytes = bytes_.emplace_back(static_cast<std::size_t>(total / 8));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_());
    tensors_.push_back({name, dtype, std::move(shape), {}});
  }

  std::vector<TensorBytes> tensors() const {
    std::vector<TensorBytes> all = tensors_;
    for (std::size_t i = 0; i < all.size(); ++i) all[i].bytes = bytes_[i];
    return all;
  }

 private:
  std::mt19937 random_{7};
  std::vector<TensorBytes> tensors_;
  std::vector<std::vector<std::byte>> bytes_;
};

/// An adapter-like file of about 4 kB, or more with larger `rows`.
std::string adapter_image(std::int64_t rows) {
  const TemporaryFolder folder;
  Content content;
  for (const std::string layer : {"to_q", "to_k", "to_v", "to_out.0"}) {
    content.add("unet.mid_block." + layer + ".core", Dtype::f32, {rows, 4});
    content.add("unet.mid_block." + layer + ".alpha", Dtype::f16, {});
  }
  write_safetensors(folder / "adapter.safetensors", content.tensors(),
                    {{"format", "pt"}, {"ringlet.kind", "test"}, {"note", "\"quoted\"\n"}});
  return read_whole(folder / "adapter.safetensors");
}

std::string_view start_of(const std::string& image, std::size_t size) {
  return std::string_view(image).substr(0, size);
}

void expect_bad_format(std::string_view image) {
  expect_error(ErrorCode::bad_format, "test.safetensors", [&] { parse(image); });
}

TEST(SafetensorsTruncation, EveryByteOfASmallFile) {
  const std::string image = adapter_image(48);
  ASSERT_GT(image.size(), 3'500u);
  ASSERT_LT(image.size(), 5'000u);
  EXPECT_EQ(parse(image).tensors.size(), 8u);
  const TemporaryFolder folder;
  for (std::size_t size = 0; size < image.size(); ++size) {
    expect_bad_format(start_of(image, size));
    write_image(folder / "cut.safetensors", start_of(image, size));
    expect_error(ErrorCode::bad_format, "cut.safetensors",
                 [&] { SafetensorsFile::open(folder / "cut.safetensors"); });
    if (HasFailure()) FAIL() << "cut at " << size;
  }
}

TEST(SafetensorsTruncation, ThousandPositionsOfALargeFile) {
  const std::string image = adapter_image(48'000);
  ASSERT_GT(image.size(), 3'000'000u);
  EXPECT_EQ(parse(image).tensors.size(), 8u);
  for (std::size_t i = 0; i < 1'000; ++i) {
    expect_bad_format(start_of(image, i * image.size() / 1'000));
    if (HasFailure()) FAIL() << "cut " << i;
  }
  expect_bad_format(start_of(image, image.size() - 1));
}

TEST(SafetensorsTruncation, AppendedBytesAreRefused) {
  const std::string image = adapter_image(48);
  for (std::size_t extra = 1; extra <= 64; ++extra)
    expect_bad_format(image + std::string(extra, '\0'));
}

/// Refused or read: either way no crash, and what is read still tiles the data.
TEST(SafetensorsDamage, EveryBitOfTheHeader) {
  const std::string image = adapter_image(48);
  const std::size_t header_end = parse(image).data_begin;
  int refused = 0;
  for (std::size_t bit = 0; bit < 8 * header_end; ++bit) {
    std::string damaged = image;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    try {
      const SafetensorsHeader header = parse(damaged);
      std::uint64_t end = 0;
      for (const TensorInfo& info : header.tensors) {
        EXPECT_EQ(info.begin, end);
        end = info.end;
      }
      EXPECT_EQ(header.data_begin + end, image.size());
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(error.code(), ErrorCode::bad_format) << error.what();
    }
  }
  EXPECT_GT(refused, 0);
}

std::vector<TensorBytes> tensors_of(const SafetensorsFile& file) {
  std::vector<TensorBytes> all;
  for (const TensorInfo& info : file.tensors())
    all.push_back({info.name, info.dtype, info.shape, file.bytes(info)});
  return all;
}

/// safetensors #762: saving a loaded file onto itself wrote zeros, because the target was emptied
/// under the mapping that the tensors came from.
TEST(SafetensorsSave, OntoTheMappedSourceKeepsTheBytes) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "adapter.safetensors";
  const std::string image = adapter_image(480);
  write_image(path, image);
  const auto first = SafetensorsFile::open(path);
  for (int repeat = 0; repeat < 50; ++repeat) {
    const auto file = SafetensorsFile::open(path);
    write_safetensors(path, tensors_of(*file), file->metadata());
    ASSERT_EQ(read_whole(path), image) << repeat;
    const std::span<const std::byte> data = first->all_tensor_bytes();
    ASSERT_EQ(std::memcmp(data.data(), image.data() + image.size() - data.size(), data.size()), 0);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

std::vector<std::byte> filled(std::size_t size, int value) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}

/// Each version has another size and is full of one value, so that a mixture would show.
TEST(SafetensorsSave, ReadersSeeOldOrNewNeverAMixture) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "adapter.safetensors";
  const auto save = [&](int version) {
    const std::vector<std::byte> bytes =
        filled(40'000 + 8'000 * static_cast<std::size_t>(version % 5), version);
    write_safetensors(path,
                      {{"a", Dtype::u8, {static_cast<std::int64_t>(bytes.size())}, bytes},
                       {"b", Dtype::u8, {1'000}, std::span(bytes).first(1'000)}},
                      {{"version", std::to_string(version)}});
  };
  save(0);
  std::atomic<bool> done{false};
  std::atomic<int> reads{0};
  std::thread reader([&] {
    while (!done) {
      const auto file = SafetensorsFile::open(path);
      const auto version = static_cast<std::byte>(std::stoi(file->metadata().at("version")));
      const std::span<const std::byte> bytes = file->all_tensor_bytes();
      EXPECT_EQ(std::ranges::count(bytes, version), std::ssize(bytes));
      ++reads;
    }
  });
  for (int version = 1; version <= 100 || reads < 100; ++version) save(version % 200);
  done = true;
  reader.join();
  EXPECT_GE(reads, 100);
}

Content every_dtype() {
  Content content;
  for (int type = 0; type <= static_cast<int>(Dtype::c64); ++type) {
    const auto dtype = static_cast<Dtype>(type);
    const std::string name(to_string(dtype));
    content.add(name, dtype, {2, 4, 3});
    content.add(name + ".empty", dtype, {0, 3});
    if (bits(dtype) >= 8) content.add(name + ".scalar", dtype, {});
  }
  return content;
}

TEST(SafetensorsSave, EveryDtypeSurvivesARoundTrip) {
  const TemporaryFolder folder;
  const Content content = every_dtype();
  const Metadata metadata{{"", ""}, {"k", "\xE2\x82\xAC \" \\ \n"}, {"zero", std::string(1, '\0')}};
  write_safetensors(folder / "all.safetensors", content.tensors(), metadata);
  const auto file = SafetensorsFile::open(folder / "all.safetensors");
  EXPECT_EQ(file->metadata(), metadata);
  EXPECT_EQ(file->tensors().size(), content.tensors().size());
  for (const TensorBytes& tensor : content.tensors()) {
    const TensorInfo* info = file->find(tensor.name);
    ASSERT_NE(info, nullptr) << tensor.name;
    EXPECT_EQ(info->dtype, tensor.dtype);
    EXPECT_EQ(info->shape, tensor.shape);
    EXPECT_TRUE(std::ranges::equal(file->bytes(*info), tensor.bytes)) << tensor.name;
    // What is wider than a byte is aligned in the mapping.
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file->bytes(*info).data()) %
                  static_cast<std::size_t>(std::max(bits(tensor.dtype) / 8, 1)),
              0u);
  }
}

TEST(SafetensorsSave, BytesDoNotDependOnTheOrderOfTheTensors) {
  const TemporaryFolder folder;
  const Content content = every_dtype();
  std::vector<TensorBytes> tensors = content.tensors();
  write_safetensors(folder / "first.safetensors", tensors, {{"b", "2"}, {"a", "1"}});
  const std::string expected = read_whole(folder / "first.safetensors");
  std::mt19937 random(11);
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::ranges::shuffle(tensors, random);
    write_safetensors(folder / "again.safetensors", tensors, {{"a", "1"}, {"b", "2"}});
    ASSERT_EQ(read_whole(folder / "again.safetensors"), expected);
  }
}

TEST(SafetensorsSave, NothingAtAllIsAFileToo) {
  const TemporaryFolder folder;
  write_safetensors(folder / "nothing.safetensors", {});
  EXPECT_EQ(read_whole(folder / "nothing.safetensors"), file_image("{}      "));
  EXPECT_TRUE(SafetensorsFile::open(folder / "nothing.safetensors")->tensors().empty());
}

TEST(SafetensorsSave, WhatNoReaderWouldAcceptIsRefused) {
  const TemporaryFolder folder;
  const std::vector<std::byte> bytes(8);
  const auto refuse = [&](const char* words, std::vector<TensorBytes> tensors,
                          const Metadata& metadata = {}) {
    expect_error(ErrorCode::invalid_argument, words, [&] {
      write_safetensors(folder / "bad.safetensors", std::move(tensors), metadata);
    });
  };
  const std::int64_t large = std::int64_t{1} << 62;
  refuse("is not a valid tensor name", {{"__metadata__", Dtype::u8, {8}, bytes}});
  refuse("is not a valid tensor name", {{"\xFF", Dtype::u8, {8}, bytes}});
  refuse("is given twice", {{"a", Dtype::u8, {8}, bytes}, {"a", Dtype::u8, {8}, bytes}});
  refuse("8 bytes do not fit", {{"a", Dtype::u8, {7}, bytes}});
  refuse("8 bytes do not fit", {{"a", Dtype::u8, {-2, -4}, bytes}});
  refuse("0 bytes do not fit", {{"a", Dtype::f32, {large, 4}, {}}});
  refuse("0 bytes do not fit", {{"a", Dtype::f32, {-1, 0}, {}}});
  refuse("1 bytes do not fit", {{"a", Dtype::f4, {3}, std::span(bytes).first(1)}});
  refuse("do not fit", {{"a", Dtype::u8, std::vector<std::int64_t>(65, 1), {bytes.data(), 1}}});
  refuse("not UTF-8", {}, {{"key", "\xC0\xAF"}});
  refuse("not UTF-8", {}, {{"\x80", "value"}});
  refuse("too many or too long names", {}, {{"key", std::string(kMaxHeaderBytes, 'x')}});
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace ringlet::io
