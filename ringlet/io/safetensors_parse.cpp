// The header of a safetensors file: everything is checked before anything is believed.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/text.h"
#include "ringlet/io/safetensors.h"

namespace ringlet::io {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::uint64_t kLengthBytes = 8;

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  int bits;
};
constexpr std::array<DtypeRow, 22> kDtypes{{
    {Dtype::f4, "F4", 4},
    {Dtype::f6_e2m3, "F6_E2M3", 6},
    {Dtype::f6_e3m2, "F6_E3M2", 6},
    {Dtype::f8_e5m2, "F8_E5M2", 8},
    {Dtype::f8_e4m3, "F8_E4M3", 8},
    {Dtype::f8_e8m0, "F8_E8M0", 8},
    {Dtype::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {Dtype::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {Dtype::boolean, "BOOL", 8},
    {Dtype::u8, "U8", 8},
    {Dtype::i8, "I8", 8},
    {Dtype::u16, "U16", 16},
    {Dtype::i16, "I16", 16},
    {Dtype::f16, "F16", 16},
    {Dtype::bf16, "BF16", 16},
    {Dtype::u32, "U32", 32},
    {Dtype::i32, "I32", 32},
    {Dtype::f32, "F32", 32},
    {Dtype::u64, "U64", 64},
    {Dtype::i64, "I64", 64},
    {Dtype::f64, "F64", 64},
    {Dtype::c64, "C64", 64},
}};

const DtypeRow& row(Dtype dtype) { return *std::ranges::find(kDtypes, dtype, &DtypeRow::dtype); }

[[noreturn]] void bad(const std::string& where, const std::string& message,
                      const std::string& hint = {}) {
  throw Error(ErrorCode::bad_format, where, message, hint);
}

[[noreturn]] void bad_tensor(const std::string& where, const std::string& name,
                             const std::string& message) {
  bad(where, "tensor \"" + name.substr(0, 200) + "\": " + message,
      "the file is damaged or was not written by a safetensors library");
}

/// The non-negative integers of a JSON array.
std::vector<std::uint64_t> unsigned_list(const Json& json, const std::string& where,
                                         const std::string& name, const char* field) {
  if (!json.is_array()) bad_tensor(where, name, std::string(field) + " is not a list");
  std::vector<std::uint64_t> values;
  for (const Json& item : json) {
    if (!item.is_number_unsigned())
      bad_tensor(where, name,
                 std::string(field) + " holds " + item.dump().substr(0, 40) +
                     ", not a non-negative integer");
    values.push_back(item.get<std::uint64_t>());
  }
  return values;
}

/// Bytes of a tensor, or an error when the product of its shape does not fit or ends inside a byte.
std::uint64_t tensor_bytes(const TensorInfo& info, const std::string& where) {
  std::uint64_t bits_total = static_cast<std::uint64_t>(bits(info.dtype));
  for (const std::int64_t extent : info.shape)
    if (__builtin_mul_overflow(bits_total, static_cast<std::uint64_t>(extent), &bits_total))
      bad_tensor(where, info.name, "its shape is too large to be real");
  if (bits_total % 8 != 0) bad_tensor(where, info.name, "its data ends inside a byte");
  return bits_total / 8;
}

TensorInfo read_tensor(const std::string& name, const Json& json, const std::string& where) {
  if (!json.is_object()) bad_tensor(where, name, "its entry is not an object");
  for (const char* field : {"dtype", "shape", "data_offsets"})
    if (!json.contains(field)) bad_tensor(where, name, std::string(field) + " is missing");

  TensorInfo info;
  info.name = name;
  const Json& type = json["dtype"];
  const auto known = std::ranges::find_if(kDtypes, [&](const DtypeRow& candidate) {
    return type.is_string() && type == candidate.name;
  });
  if (known == kDtypes.end())
    bad_tensor(where, name, "dtype " + type.dump().substr(0, 40) + " is not known");
  info.dtype = known->dtype;

  for (const std::uint64_t extent : unsigned_list(json["shape"], where, name, "shape")) {
    if (extent > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      bad_tensor(where, name, "its shape is too large to be real");
    info.shape.push_back(static_cast<std::int64_t>(extent));
  }
  const auto offsets = unsigned_list(json["data_offsets"], where, name, "data_offsets");
  if (offsets.size() != 2) bad_tensor(where, name, "data_offsets does not hold two numbers");
  info.begin = offsets[0];
  info.end = offsets[1];
  if (info.end < info.begin) bad_tensor(where, name, "data_offsets run backwards");
  const std::uint64_t expected = tensor_bytes(info, where);
  if (info.end - info.begin != expected)
    bad_tensor(where, name,
               "data_offsets span " + std::to_string(info.end - info.begin) +
                   " bytes, but its shape and dtype need " + std::to_string(expected));
  return info;
}

Metadata read_metadata(const Json& json, const std::string& where) {
  Metadata metadata;
  if (json.is_null()) return metadata;
  if (!json.is_object()) bad(where, "__metadata__ is not an object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string())
      bad(where, "__metadata__ entry \"" + key.substr(0, 200) + "\" is not a string");
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

/// Tensors must tile the data section: no hole, no overlap, nothing left over.
void check_layout(const SafetensorsHeader& header, std::uint64_t data_bytes,
                  const std::string& where) {
  std::uint64_t expected_begin = 0;
  for (const TensorInfo& info : header.tensors) {
    if (info.begin < expected_begin)
      bad_tensor(where, info.name, "its data overlaps another tensor's");
    if (info.begin > expected_begin)
      bad_tensor(where, info.name, "there is a hole before its data");
    expected_begin = info.end;
  }
  if (expected_begin > data_bytes)
    bad(where,
        "is cut short: the tensors need " + std::to_string(expected_begin) + " bytes, but only " +
            std::to_string(data_bytes) + " follow the header",
        "the download or copy is incomplete; fetch the file again");
  if (expected_begin < data_bytes)
    bad(where, std::to_string(data_bytes - expected_begin) + " bytes follow the last tensor",
        "the file is damaged or carries foreign data");
}

std::uint64_t little_endian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  return value;
}

}  // namespace

std::string_view to_string(Dtype dtype) { return row(dtype).name; }
int bits(Dtype dtype) { return row(dtype).bits; }

std::int64_t TensorInfo::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

ForeignFile recognise_foreign_file(std::span<const std::byte> file) {
  const std::string_view start(reinterpret_cast<const char*>(file.data()),
                               std::min<std::size_t>(file.size(), 64));
  if (start.empty()) return {"an empty file", "the download or copy failed; fetch the file again"};
  if (start.starts_with("version https://git-lfs"))
    return {"a Git LFS pointer, not the weights themselves",
            "run \"git lfs pull\" in the folder, or download the file itself"};
  if (start.starts_with("<") || start.starts_with("{\"error") ||
      start.starts_with("Entry not found"))
    return {"a web page or an error message, not weights",
            "the download failed; fetch the file again"};
  if (start.starts_with("PK\x03\x04") || start.starts_with("\x80\x02") ||
      start.starts_with("\x80\x04"))
    return {
        "a pickle checkpoint (.ckpt, .bin, .pt), which can run code when it is opened",
        "convert it with a tool you trust: in Python, safetensors.torch.save_file(torch.load(FILE, "
        "weights_only=True)[\"state_dict\"], \"model.safetensors\")"};
  if (start.starts_with("GGUF")) return {"a GGUF file", "ringlet reads safetensors files"};
  return {};
}

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where) {
  if (file.size() < kLengthBytes)
    bad(where, "is too short (" + std::to_string(file.size()) + " bytes) for a safetensors file");
  const std::uint64_t length = little_endian(file);
  if (length > kMaxHeaderBytes)
    bad(where, "its header claims " + std::to_string(length) + " bytes; the limit is 100 MB",
        "this is not a safetensors file");
  if (length > file.size() - kLengthBytes)
    bad(where,
        "its header claims " + std::to_string(length) + " bytes, but the file holds " +
            std::to_string(file.size() - kLengthBytes),
        "the download or copy is incomplete; fetch the file again");

  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  if (!is_utf8(text)) bad(where, "its header is not UTF-8 text");
  const Json json = parse_json(text, where, {.max_bytes = kMaxHeaderBytes, .max_depth = 64});
  if (!json.is_object()) bad(where, "its header is not a JSON object");

  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__")
      header.metadata = read_metadata(entry, where);
    else
      header.tensors.push_back(read_tensor(name, entry, where));
  }
  std::ranges::sort(header.tensors, {},
                    [](const TensorInfo& info) { return std::pair(info.begin, info.end); });
  check_layout(header, file.size() - header.data_begin, where);
  return header;
}

}  // namespace ringlet::io
