// Builds safetensors files by hand, good and bad.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/io/safetensors.h"

namespace ringlet::io {

/// A length field of 8 little-endian bytes.
inline std::string length_field(std::uint64_t length) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes;
}

/// Length, header and `data_bytes` counting bytes of data.
inline std::string file_image(const std::string& header, std::size_t data_bytes = 0) {
  std::string image = length_field(header.size()) + header;
  for (std::size_t i = 0; i < data_bytes; ++i) image += static_cast<char>(i * 7);
  return image;
}

/// `"name":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`; `name` as it stands in the file.
inline std::string entry(const std::string& name, const std::string& dtype,
                         const std::string& shape, const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":" + dtype + ",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

/// A header of one F32 tensor "a" with 8 bytes, in which one field's value is replaced.
inline std::string with_dtype(const std::string& dtype) {
  return file_image("{" + entry("a", dtype, "[2]", "[0,8]") + "}", 8);
}
inline std::string with_shape(const std::string& shape) {
  return file_image("{" + entry("a", "\"F32\"", shape, "[0,8]") + "}", 8);
}
inline std::string with_offsets(const std::string& offsets) {
  return file_image("{" + entry("a", "\"F32\"", "[2]", offsets) + "}", 8);
}

inline void write_image(const std::filesystem::path& path, std::string_view image) {
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream.write(image.data(), static_cast<std::streamsize>(image.size()));
}

inline SafetensorsHeader parse(std::string_view image) {
  return parse_safetensors(std::as_bytes(std::span(image)), "test.safetensors");
}

}  // namespace ringlet::io
