#include "ringlet/io/tensor_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include "ringlet/core/error.h"

namespace ringlet::io {
namespace {

constexpr std::array<std::pair<Dtype, at::ScalarType>, 18> kScalarTypes{{
    {Dtype::f8_e5m2, at::kFloat8_e5m2},
    {Dtype::f8_e4m3, at::kFloat8_e4m3fn},
    {Dtype::f8_e8m0, at::kFloat8_e8m0fnu},
    {Dtype::f8_e4m3fnuz, at::kFloat8_e4m3fnuz},
    {Dtype::f8_e5m2fnuz, at::kFloat8_e5m2fnuz},
    {Dtype::boolean, at::kBool},
    {Dtype::u8, at::kByte},
    {Dtype::i8, at::kChar},
    {Dtype::u16, at::kUInt16},
    {Dtype::i16, at::kShort},
    {Dtype::f16, at::kHalf},
    {Dtype::bf16, at::kBFloat16},
    {Dtype::u32, at::kUInt32},
    {Dtype::i32, at::kInt},
    {Dtype::f32, at::kFloat},
    {Dtype::u64, at::kUInt64},
    {Dtype::i64, at::kLong},
    {Dtype::f64, at::kDouble},
}};

std::optional<at::ScalarType> scalar_type(Dtype dtype) {
  const auto found =
      std::ranges::find(kScalarTypes, dtype, &std::pair<Dtype, at::ScalarType>::first);
  if (found == kScalarTypes.end()) return std::nullopt;
  return found->second;
}

Dtype file_dtype(at::ScalarType type, const std::string& name) {
  const auto found =
      std::ranges::find(kScalarTypes, type, &std::pair<Dtype, at::ScalarType>::second);
  if (found == kScalarTypes.end())
    throw Error(ErrorCode::unsupported, name,
                std::string("tensors of type ") + at::toString(type) + " cannot be written");
  return found->first;
}

}  // namespace

at::Tensor view_tensor(const std::shared_ptr<const SafetensorsFile>& file, const TensorInfo& info) {
  const std::optional<at::ScalarType> type = scalar_type(info.dtype);
  if (!type)
    throw Error(ErrorCode::unsupported, file->path().string(),
                "tensor \"" + info.name + "\" has type " + std::string(to_string(info.dtype)) +
                    ", which ringlet does not compute with",
                "convert the file to F16, BF16 or F32 first");
  const std::span<const std::byte> bytes = file->bytes(info);
  const auto element = static_cast<std::uintptr_t>(c10::elementSize(*type));
  const bool aligned = reinterpret_cast<std::uintptr_t>(bytes.data()) % element == 0;
  if (aligned && !bytes.empty())
    // The mapping is copy-on-write: even an accidental write could not reach the file.
    return at::from_blob(
        const_cast<std::byte*>(bytes.data()), info.shape, [file](void*) {},
        at::TensorOptions(*type));
  at::Tensor copy = at::empty(info.shape, at::TensorOptions(*type));
  if (!bytes.empty()) std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
  return copy;
}

std::map<std::string, at::Tensor> load_tensors(const std::filesystem::path& path) {
  const std::shared_ptr<const SafetensorsFile> file = SafetensorsFile::open(path);
  std::map<std::string, at::Tensor> tensors;
  for (const TensorInfo& info : file->tensors())
    tensors.emplace(info.name, view_tensor(file, info));
  return tensors;
}

void save_tensors(const std::filesystem::path& path,
                  const std::map<std::string, at::Tensor>& tensors, const Metadata& metadata,
                  const BeforeRename& before_rename) {
  std::vector<at::Tensor> alive;  // contiguous copies live until the file is written
  std::vector<TensorBytes> entries;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor& plain = alive.emplace_back(tensor.detach().cpu().contiguous());
    entries.push_back({name,
                       file_dtype(plain.scalar_type(), name),
                       plain.sizes().vec(),
                       {static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes()}});
  }
  write_safetensors(path, std::move(entries), metadata, before_rename);
}

}  // namespace ringlet::io
