// The types that frozen weights can be kept in while a network computes in another one.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>

namespace ringlet {
struct Option;
class OptionList;
}  // namespace ringlet

namespace ringlet::nn {

/// How a frozen weight is kept in memory. It is widened for the duration of a call; weights that
/// learn are never narrowed.
enum class WeightStorage : std::uint8_t {
  as_stored,  ///< the checkpoint's own type
  fp32,
  bf16,
  fp8,   ///< e4m3, with one scale per row
  int8,  ///< with one scale per row
  nf4,   ///< 4-bit normal floats with a scale per block (Dettmers et al. 2023, QLoRA)
};

/// As options call them.
inline constexpr std::array<std::pair<const char*, WeightStorage>, 6> kWeightStorageNames = {{
    {"as-stored", WeightStorage::as_stored},
    {"fp32", WeightStorage::fp32},
    {"bf16", WeightStorage::bf16},
    {"fp8", WeightStorage::fp8},
    {"int8", WeightStorage::int8},
    {"nf4", WeightStorage::nf4},
}};
std::string weight_storage_name(WeightStorage storage);

/// The option `base_storage` of programs that open a network to train beside it, or to run it.
Option& describe(OptionList& list, WeightStorage& storage);

/// Bytes that a number takes, with its share of the scales; 0 for as_stored, which depends.
double bytes_per_number(WeightStorage storage);

/// Whether weights are kept as codes with scales, which no operator computes with directly.
constexpr bool is_coded(WeightStorage storage) { return storage >= WeightStorage::fp8; }

}  // namespace ringlet::nn
