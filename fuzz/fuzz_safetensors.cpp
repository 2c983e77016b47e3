// libFuzzer target: no bytes make the safetensors reader crash, and what it accepts keeps the
// format's promises.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "fuzz/safetensors_mutator.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/io/safetensors.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using namespace ringlet;
using namespace ringlet::io;

void require(bool condition, const char* promise) {
  if (condition) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

void check_accepted(const SafetensorsHeader& header, std::size_t file_size) {
  std::uint64_t end = 0;
  std::set<std::string_view> names;
  for (const TensorInfo& info : header.tensors) {
    require(info.begin == end, "tensors follow each other without hole or overlap");
    require(info.end >= info.begin, "a tensor does not end before it begins");
    end = info.end;
    require(names.insert(info.name).second, "names are unique");
    require(info.name != "__metadata__", "the metadata is no tensor");
    require(is_utf8(info.name), "names are UTF-8");
    require(info.shape.size() <= kMaxDimensions, "shapes are short");
    require(std::ranges::all_of(info.shape, [](std::int64_t extent) { return extent >= 0; }),
            "extents are not negative");
    const auto elements = static_cast<std::uint64_t>(info.elements());
    const auto width = static_cast<std::uint64_t>(bits(info.dtype));
    require(elements <= ~std::uint64_t{0} / width, "the size in bits can be computed");
    require(elements * width == 8 * (info.end - info.begin), "the bytes fit shape and dtype");
  }
  require(header.data_begin >= 8 && header.data_begin <= file_size, "the header is in the file");
  require(end == file_size - header.data_begin, "the tensors fill the data");
  for (const auto& [key, value] : header.metadata)
    require(is_utf8(key) && is_utf8(value), "metadata is UTF-8");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> file = std::as_bytes(std::span(data, size));
  const ForeignFile foreign = recognise_foreign_file(file);
  try {
    const SafetensorsHeader header = parse_safetensors(file, "fuzz");
    check_accepted(header, size);
    require(foreign.what.empty(), "a safetensors file is not taken for another format");
  } catch (const Error& error) {
    require(error.code() == ErrorCode::bad_format || error.code() == ErrorCode::unsupported,
            "a refusal is about the file");
    require(is_utf8(error.what()), "messages are UTF-8");
    require(std::strlen(error.what()) < 2'000, "messages are short");
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned int seed) {
  // One mutant in eight is blind: that is what finds faults in the JSON reading itself.
  if (seed % 8 == 0) return LLVMFuzzerMutate(data, size, max_size);
  const std::string mutant =
      fuzz::mutate_safetensors({reinterpret_cast<const char*>(data), size}, seed);
  if (mutant.size() > max_size || mutant == std::string_view(reinterpret_cast<char*>(data), size))
    return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, mutant.data(), mutant.size());
  return mutant.size();
}
