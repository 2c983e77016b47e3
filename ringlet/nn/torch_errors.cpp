#include "ringlet/nn/torch_errors.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "ringlet/core/text.h"

namespace ringlet::nn {

namespace {

/// What the texts of LibTorch, the CUDA runtime and cuBLAS mean for who sees them.
struct Known {
  std::vector<std::string_view> words;  ///< any of them
  ErrorCode code;
  const char* what;  ///< "" = the first line of the text
  const char* hint;
};

const std::vector<Known>& known_errors() {
  static const std::vector<Known> all = {
      {{"CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED"},
       ErrorCode::out_of_memory,
       "the GPU has not enough free memory",
       "close other programs that use it (nvidia-smi lists them); to train, take a smaller "
       "`batch_size` or resolution, or `gradient_checkpointing`; to generate, fewer images at a "
       "time or `low_memory`"},
      {{"can't allocate memory", "out of memory", "std::bad_alloc"},
       ErrorCode::out_of_memory,
       "there is not enough memory",
       "make fewer or smaller images at a time, or use `low_memory`"},
      {{"driver version is insufficient", "driver on your system is too old",
        "forward compatibility was attempted"},
       ErrorCode::unsupported,
       "the NVIDIA driver is too old for the CUDA version of this LibTorch",
       "update the NVIDIA driver, or use `device=cpu`"},
      {{"no kernel image is available", "device kernel image is invalid"},
       ErrorCode::unsupported,
       "this LibTorch has no code for this GPU's compute capability",
       "use a LibTorch that is built for it (TORCH_DIR), or `device=cpu`"},
      {{"no CUDA-capable device", "No CUDA GPUs are available", "invalid device ordinal",
        "devices are busy or unavailable"},
       ErrorCode::unsupported,
       "the GPU cannot be used",
       "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use `device=cpu`"},
      {{"does not have a deterministic implementation",
        "is not deterministic because it uses CuBLAS"},
       ErrorCode::unsupported,
       "",
       "leave out `deterministic`, or use `device=cpu`"},
      {{"device-side assert", "misaligned address", "CUDA error: invalid argument"},
       ErrorCode::internal,
       "",
       "this is a defect of ringlet; please report it with the command that led here"},
      {{"unspecified launch failure", "an illegal memory access", "uncorrectable ECC",
        "launch timed out", "hardware stack error", "GPU is lost", "CUBLAS_STATUS_EXECUTION_FAILED",
        "CUDNN_STATUS_EXECUTION_FAILED", "CUDA error:"},
       ErrorCode::io,
       "",
       "the GPU or its driver failed: look at nvidia-smi and dmesg, and start again; a run of "
       "train or tune continues from its last checkpoint with `resume`. If it happens again, set "
       "CUDA_LAUNCH_BLOCKING=1 and report the message with the command"},
  };
  return all;
}

/// How much was asked for, in LibTorch's words on the CPU ("tried to allocate 4096 bytes") or a GPU
/// ("Tried to allocate 2.00 GiB"); "" where the text does not say.
std::string asked_for(const std::string& text) {
  constexpr std::string_view kWords = "ried to allocate ";
  const std::size_t found = text.find(kWords);
  if (found == std::string::npos) return {};
  const std::size_t begin = found + kWords.size();
  const std::size_t blank = text.find(' ', begin);
  const std::size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyzKMGTBi", blank + 1);
  if (blank == std::string::npos) return {};
  const std::string number = text.substr(begin, blank - begin);
  const std::string unit = text.substr(blank + 1, end == std::string::npos ? end : end - blank - 1);
  const std::optional<double> value = read_number(number);
  if (!value || *value < 0.0) return {};
  const bool bytes = unit == "bytes" || unit == "byte";
  return bytes ? human_bytes(static_cast<std::uint64_t>(*value)) : number + " " + unit;
}

/// `Where` is a Field or a string.
template <class Where>
Error converted(const std::exception& problem, const Where& where) {
  const std::string text = problem.what();
  const std::string first_line = text.substr(0, text.find('\n'));
  for (const Known& known : known_errors())
    for (const std::string_view words : known.words)
      if (text.find(words) != std::string::npos) {
        std::string what = *known.what != '\0' ? known.what : first_line;
        if (known.code == ErrorCode::out_of_memory)
          if (const std::string size = asked_for(text); !size.empty())
            what += ": " + size + " more were asked for";
        return {known.code, where, what, known.hint};
      }
  if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&problem))
    return {ErrorCode::io, file->path1().string(), file->code().message()};
  return {ErrorCode::internal, where, first_line,
          "this is a defect of ringlet; please report it with the command that you ran"};
}

}  // namespace

Error to_error(const std::exception& problem, const std::string& where) {
  return converted(problem, where);
}

Error to_error(const std::exception& problem, const Field& where) {
  return converted(problem, where);
}

}  // namespace ringlet::nn
