// Mapping a safetensors file, and writing one.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/io/mapped_pages.h"
#include "ringlet/io/safetensors.h"

namespace ringlet::io {
namespace {

/// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

[[noreturn]] void fail(const std::filesystem::path& path, int error_number) {
  throw Error(
      error_number == ENOENT || error_number == ENOTDIR ? ErrorCode::not_found : ErrorCode::io,
      path.string(), std::error_code(error_number, std::generic_category()).message());
}

/// All mappings by their first address: end.
struct Mappings {
  std::mutex mutex;
  std::map<std::uintptr_t, std::uintptr_t> ends;
};

Mappings& mappings() {
  static auto* const all = new Mappings;  // files may be closed by other static objects
  return *all;
}

void add_mapping(const std::byte* data, std::size_t size) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  std::lock_guard lock(mappings().mutex);
  mappings().ends[begin] = begin + size;
}

void remove_mapping(const std::byte* data) {
  std::lock_guard lock(mappings().mutex);
  mappings().ends.erase(reinterpret_cast<std::uintptr_t>(data));
}

std::size_t alignment(Dtype dtype) {
  return static_cast<std::size_t>(std::max(bits(dtype), 8)) / 8;
}

void check_entry(const TensorBytes& tensor) {
  if (tensor.name == "__metadata__" || !is_utf8(tensor.name))
    throw Error(ErrorCode::invalid_argument, tensor.name, "is not a valid tensor name");
  std::uint64_t size = static_cast<std::uint64_t>(bits(tensor.dtype));
  bool possible = tensor.shape.size() <= kMaxDimensions;
  for (const std::int64_t extent : tensor.shape)
    possible = possible && extent >= 0 &&
               !__builtin_mul_overflow(size, static_cast<std::uint64_t>(extent), &size);
  if (!possible || size % 8 != 0 || size / 8 != tensor.bytes.size())
    throw Error(
        ErrorCode::invalid_argument, tensor.name,
        "its " + std::to_string(tensor.bytes.size()) + " bytes do not fit its shape and type");
}

/// Written piece by piece: an ordered JSON object would search all its keys at every insertion.
std::string header_text(const std::vector<TensorBytes>& tensors, const Metadata& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    for (const auto& [key, value] : metadata)
      if (!is_utf8(key) || !is_utf8(value))
        throw Error(ErrorCode::invalid_argument, "metadata", "holds text that is not UTF-8");
    text += "\"__metadata__\":" + Json(metadata).dump();
  }
  std::uint64_t offset = 0;
  for (const TensorBytes& tensor : tensors) {
    const std::uint64_t end = offset + tensor.bytes.size();
    if (text.size() > 1) text += ',';
    text += Json(tensor.name).dump() + ":{\"dtype\":\"" + std::string(to_string(tensor.dtype)) +
            "\",\"shape\":" + Json(tensor.shape).dump() + ",\"data_offsets\":[" +
            std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');  // keeps 8-byte types aligned in the mapped file
  return text;
}

}  // namespace

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor.get() < 0) fail(path, errno);
  struct stat status {};
  if (::fstat(descriptor.get(), &status) != 0) fail(path, errno);
  if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::io, path.string(), "is not a regular file");

  const std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  file->size_ = static_cast<std::size_t>(status.st_size);
  if (file->size_ > 0) {
    void* mapping = ::mmap(nullptr, file->size_, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_NORESERVE, descriptor.get(), 0);
    if (mapping == MAP_FAILED) fail(path, errno);
    file->data_ = static_cast<std::byte*>(mapping);
    add_mapping(file->data_, file->size_);
  }
  const std::span<const std::byte> image(file->data_, file->size_);
  if (const ForeignFile foreign = recognise_foreign_file(image); !foreign.what.empty())
    throw Error(ErrorCode::unsupported, path.string(), "is " + foreign.what, foreign.hint);
  file->header_ = parse_safetensors(image, path.string());
  for (std::size_t i = 0; i < file->header_.tensors.size(); ++i)
    file->index_.emplace(file->header_.tensors[i].name, i);
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (data_ == nullptr) return;
  remove_mapping(data_);
  ::munmap(data_, size_);
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& info) const {
  return all_tensor_bytes().subspan(info.begin, info.end - info.begin);
}

std::span<const std::byte> SafetensorsFile::all_tensor_bytes() const {
  return {data_ + header_.data_begin, size_ - header_.data_begin};
}

void SafetensorsFile::release() const { ::madvise(data_, size_, MADV_DONTNEED); }

bool is_mapped(const void* address) {
  const auto place = reinterpret_cast<std::uintptr_t>(address);
  std::lock_guard lock(mappings().mutex);
  const auto after = mappings().ends.upper_bound(place);
  return after != mappings().ends.begin() && place < std::prev(after)->second;
}

void give_back_pages(const void* begin, std::size_t bytes) {
  if (!is_mapped(begin)) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const std::uintptr_t first = (address + page - 1) / page * page;
  const std::uintptr_t last = (address + bytes) / page * page;
  if (first < last)
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);  // NOLINT
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorBytes> tensors,
                       const Metadata& metadata, const BeforeRename& before_rename) {
  std::set<std::string_view> names;
  for (const TensorBytes& tensor : tensors) {
    check_entry(tensor);
    if (!names.insert(tensor.name).second)
      throw Error(ErrorCode::invalid_argument, tensor.name, "is given twice");
  }
  std::ranges::sort(tensors, [](const TensorBytes& a, const TensorBytes& b) {
    const std::size_t left = alignment(a.dtype), right = alignment(b.dtype);
    return left != right ? left > right : a.name < b.name;
  });

  const std::string header = header_text(tensors, metadata);
  if (header.size() > kMaxHeaderBytes || tensors.size() > kMaxTensors ||
      metadata.size() > kMaxMetadataEntries)
    throw Error(ErrorCode::invalid_argument, path.string(),
                "holds too many or too long names for a safetensors file");
  std::uint64_t total = 8 + header.size();
  for (const TensorBytes& tensor : tensors) total += tensor.bytes.size();

  AtomicFile file(path, total);
  std::array<std::byte, 8> length{};
  for (std::size_t i = 0; i < length.size(); ++i)
    length[i] = static_cast<std::byte>(header.size() >> (8 * i));
  Sha256 hash;
  const auto write = [&](std::span<const std::byte> bytes) {
    file.write(bytes);
    if (before_rename) hash.update(bytes);
  };
  write(length);
  write(std::as_bytes(std::span(header)));
  for (const TensorBytes& tensor : tensors) write(tensor.bytes);
  if (before_rename) {
    file.flush();
    before_rename(hash.hex());
  }
  file.commit();
}

}  // namespace ringlet::io
