// The safetensors container: a validating memory-mapped reader and an atomic, deterministic writer.
// Format: 8-byte little-endian header length, JSON header, tensor bytes (huggingface/safetensors).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ringlet::io {

// clang-format off
enum class Dtype {
  f4, f6_e2m3, f6_e3m2, f8_e5m2, f8_e4m3, f8_e8m0, f8_e4m3fnuz, f8_e5m2fnuz,
  boolean, u8, i8, u16, i16, f16, bf16, u32, i32, f32, u64, i64, f64, c64,
};
// clang-format on

std::string_view to_string(Dtype dtype);  ///< the name in the file: "F16", "BF16", …
int bits(Dtype dtype);                    ///< storage bits of one element

struct TensorInfo {
  std::string name;
  Dtype dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  ///< first byte, relative to the start of the tensor data
  std::uint64_t end = 0;    ///< one past the last byte

  std::int64_t elements() const;
};

using Metadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< in the order of their bytes
  Metadata metadata;
  std::uint64_t data_begin = 0;  ///< file offset of the tensor data
};

// The format's own limit, and ringlet's: with them a hostile header costs no more memory than the
// file, five times the header, and 64 MiB. The largest models have some 10,000 tensors.
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
inline constexpr std::size_t kMaxTensors = 1u << 17;
inline constexpr std::size_t kMaxMetadataEntries = 1u << 16;
inline constexpr std::size_t kMaxDimensions = 64;  // LibTorch's limit, too

/// Validates a whole file image and returns its header. Nothing is trusted before it is checked:
/// header size (<= 100 MB and <= file), UTF-8, duplicate keys, dtypes, checked products of shapes,
/// offsets contiguous from 0 with no hole or overlap, end of data = end of file. Stricter than the
/// Python package in what docs/formats.md lists (duplicate keys, for one).
/// Throws Error(bad_format) that names `where` and the tensor; Error(unsupported) over the limits.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where);

/// What a file that is no safetensors file seems to be ("a Git LFS pointer", …) and how to fix it;
/// both empty when nothing is recognised.
struct ForeignFile {
  std::string what;
  std::string hint;
};
ForeignFile recognise_foreign_file(std::span<const std::byte> file);

/// A validated, memory-mapped file (copy-on-write mapping: nothing can write through it).
class SafetensorsFile {
 public:
  /// Throws Error(not_found | io | bad_format | unsupported). A Git LFS pointer, an HTML page or a
  /// pickle in place of weights is recognised and named.
  static std::shared_ptr<const SafetensorsFile> open(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const Metadata& metadata() const { return header_.metadata; }
  const TensorInfo* find(std::string_view name) const;  ///< nullptr when absent
  std::span<const std::byte> bytes(const TensorInfo& info) const;
  std::span<const std::byte> all_tensor_bytes() const;  ///< everything after the header

  /// Drops the pages read so far from this process; the next access reads them again. Nobody may
  /// have written to them.
  void release() const;

 private:
  SafetensorsFile() = default;
  std::filesystem::path path_;
  SafetensorsHeader header_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::byte* data_ = nullptr;  // the whole mapping
  std::size_t size_ = 0;
};

struct TensorBytes {
  std::string name;
  Dtype dtype;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Called with the SHA-256 of a whole file, as 64 digits, when its bytes are on the disk and before
/// it gets its name: what the call writes is there whenever the file is.
using BeforeRename = std::function<void(const std::string& sha256)>;

/// Writes tensors and metadata atomically. The bytes depend on the content only: tensors are laid
/// out by descending alignment, then name; metadata by key. Saving onto a file that is mapped (by
/// this or another process) is safe. Throws Error(invalid_argument | io | no_space).
void write_safetensors(const std::filesystem::path& path, std::vector<TensorBytes> tensors,
                       const Metadata& metadata = {}, const BeforeRename& before_rename = {});

}  // namespace ringlet::io
