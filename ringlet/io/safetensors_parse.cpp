// The layout of a safetensors file: everything is checked before anything is believed.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "ringlet/io/safetensors.h"
#include "ringlet/io/safetensors_header.h"

namespace ringlet::io {
namespace {

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

/// Tensors must tile the data section: no hole, no overlap, nothing left over.
void check_layout(const SafetensorsHeader& header, std::uint64_t data_bytes,
                  const std::string& where) {
  std::uint64_t expected_begin = 0;
  for (const TensorInfo& info : header.tensors) {
    if (info.begin < expected_begin)
      fail_tensor(where, info.name, "its data overlaps another tensor's");
    if (info.begin > expected_begin)
      fail_tensor(where, info.name, "there is a hole before its data");
    expected_begin = info.end;
  }
  if (expected_begin > data_bytes)
    fail_format(where,
                "is cut short: the tensors need " + std::to_string(expected_begin) +
                    " bytes, but only " + std::to_string(data_bytes) + " follow the header",
                "the download or copy is incomplete; fetch the file again");
  if (expected_begin < data_bytes)
    fail_format(where,
                std::to_string(data_bytes - expected_begin) + " bytes follow the last tensor",
                "the file is damaged or carries foreign data");
}

std::uint64_t little_endian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  return value;
}

/// The length of a real header can begin with the bytes of another format: 640 with those of a
/// pickle, 60 with "<". Its upper bytes and the text behind it tell them apart.
bool starts_like_safetensors(std::span<const std::byte> file) {
  if (file.size() <= kLengthBytes || little_endian(file) > kMaxHeaderBytes) return false;
  const char first = static_cast<char>(file[kLengthBytes]);
  return first == '{' || first == ' ' || first == '\t' || first == '\n' || first == '\r';
}

}  // namespace

std::string_view to_string(Dtype dtype) { return row(dtype).name; }
int bits(Dtype dtype) { return row(dtype).bits; }

std::int64_t TensorInfo::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

std::optional<Dtype> dtype_named(std::string_view name) {
  const auto found = std::ranges::find(kDtypes, name, &DtypeRow::name);
  if (found == kDtypes.end()) return std::nullopt;
  return found->dtype;
}

ForeignFile recognise_foreign_file(std::span<const std::byte> file) {
  if (starts_like_safetensors(file)) return {};
  const std::string_view start(reinterpret_cast<const char*>(file.data()),
                               std::min<std::size_t>(file.size(), 64));
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
  if (start.starts_with("GGUF"))
    return {
        "a GGUF file",
        "ringlet reads safetensors files; use the one that this was made from (in bf16, fp16 or "
        "fp8)"};
  return {};
}

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where) {
  if (file.empty())
    fail_format(where, "is an empty file", "the download or copy failed; fetch the file again");
  if (file.size() < kLengthBytes)
    fail_format(where,
                "is too short (" + std::to_string(file.size()) + " bytes) for a safetensors file");
  const std::uint64_t length = little_endian(file);
  if (length > kMaxHeaderBytes)
    fail_format(where,
                "its header claims " + std::to_string(length) + " bytes; the limit is 100 MB",
                "this is not a safetensors file");
  if (length > file.size() - kLengthBytes)
    fail_format(where,
                "its header claims " + std::to_string(length) + " bytes, but the file holds " +
                    std::to_string(file.size() - kLengthBytes),
                "the download or copy is incomplete; fetch the file again");

  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  read_header_text({reinterpret_cast<const char*>(file.data()) + kLengthBytes, length}, where,
                   header);
  // Stable: empty tensors at one place stay ordered by name.
  std::ranges::stable_sort(header.tensors, {},
                           [](const TensorInfo& info) { return std::pair(info.begin, info.end); });
  check_layout(header, file.size() - header.data_begin, where);
  return header;
}

}  // namespace ringlet::io
