// Reads file paths from standard input and prints one line for each: "ok DIGEST" or "error
// MESSAGE". The digest covers names, dtypes, shapes, bytes and metadata; fuzz/differential.py
// computes the same from what the Python package reads.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>

#include "ringlet/core/error.h"
#include "ringlet/io/safetensors.h"

namespace {

using namespace ringlet;
using namespace ringlet::io;

/// FNV-1a, 64 bits: easy to write again in Python. Each part is preceded by its length.
class Digest {
 public:
  void add(std::string_view part) {
    mix(std::to_string(part.size()) + ":");
    mix(part);
  }
  std::uint64_t value() const { return value_; }

 private:
  void mix(std::string_view text) {
    for (const char c : text) value_ = (value_ ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  }
  std::uint64_t value_ = 0xCBF29CE484222325;
};

std::uint64_t digest(const SafetensorsFile& file) {
  std::map<std::string, const TensorInfo*> by_name;
  for (const TensorInfo& info : file.tensors()) by_name.emplace(info.name, &info);
  Digest digest;
  for (const auto& [name, info] : by_name) {
    digest.add(name);
    digest.add(to_string(info->dtype));
    std::string shape;
    for (const std::int64_t extent : info->shape) shape += std::to_string(extent) + ",";
    digest.add(shape);
    const std::span<const std::byte> bytes = file.bytes(*info);
    digest.add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  for (const auto& [key, value] : file.metadata()) {
    digest.add(key);
    digest.add(value);
  }
  return digest.value();
}

}  // namespace

int main() {
  for (std::string path; std::getline(std::cin, path);) {
    try {
      std::printf("ok %016llx\n",
                  static_cast<unsigned long long>(digest(*SafetensorsFile::open(path))));
    } catch (const Error& error) {
      std::string message = error.message();
      std::ranges::replace(message, '\n', ' ');
      std::printf("error %s\n", message.c_str());
    }
  }
}
