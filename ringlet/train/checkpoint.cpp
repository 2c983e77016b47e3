#include "ringlet/train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>

#include "ringlet/core/error.h"
#include "ringlet/io/tensor_file.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "ringlet.train_state";
constexpr const char* kVersion = "1";

/// Checkpoints of a folder, oldest first.
std::vector<fs::path> checkpoints_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator(folder, problem)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && name.ends_with(".safetensors")) found.push_back(entry.path());
  }
  std::ranges::sort(found);  // the names' numbers have leading zeros
  return found;
}

std::int64_t count_from(const io::Metadata& metadata, const std::string& key,
                        const std::string& where) {
  const auto found = metadata.find(key);
  std::int64_t count = -1;
  if (found != metadata.end())
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), count);
  if (count < 0)
    throw Error(ErrorCode::bad_format, where, "metadata \"" + key + "\" is missing or no number");
  return count;
}

}  // namespace

CheckpointFolder::CheckpointFolder(fs::path folder, int keep)
    : folder_(std::move(folder)), keep_(keep) {}

fs::path CheckpointFolder::save(const TrainState& state) const {
  for (const auto& [name, tensor] : state.tensors)
    if (!tensor.isfinite().all().item<bool>())
      throw Error(ErrorCode::non_finite, name, "the tensor holds NaN or infinite values",
                  "nothing was written; the checkpoint before is intact");
  std::error_code problem;
  fs::create_directories(folder_, problem);
  if (problem)
    throw Error(ErrorCode::io, folder_.string(), "the folder cannot be made: " + problem.message());
  char name[40];
  std::snprintf(name, sizeof name, "step-%08lld.safetensors", static_cast<long long>(state.step));
  io::save_tensors(folder_ / name, state.tensors,
                   {{"format", kFormat},
                    {"version", kVersion},
                    {"step", std::to_string(state.step)},
                    {"updates", std::to_string(state.updates)},
                    {"skipped", std::to_string(state.skipped)},
                    {"settings", state.settings.dump()}});
  std::vector<fs::path> all = checkpoints_in(folder_);
  const auto surplus = static_cast<std::ptrdiff_t>(all.size()) - keep_;
  for (std::ptrdiff_t i = 0; i < surplus; ++i)
    fs::remove(all[static_cast<std::size_t>(i)], problem);
  return folder_ / name;
}

std::optional<fs::path> CheckpointFolder::latest() const {
  const std::vector<fs::path> all = checkpoints_in(folder_);
  if (all.empty()) return std::nullopt;
  return all.back();
}

TrainState CheckpointFolder::load(const fs::path& path) {
  const auto file = io::SafetensorsFile::open(path);
  const io::Metadata& metadata = file->metadata();
  const std::string where = path.string();
  const auto value = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  if (value("format") != kFormat)
    throw Error(ErrorCode::unsupported, where, "this is no training checkpoint of ringlet",
                "give a file of OUT/checkpoints");
  if (value("version") != kVersion)
    throw Error(ErrorCode::unsupported, where,
                "the checkpoint has version " + value("version") + " and this ringlet reads 1",
                "use the ringlet that wrote it");
  TrainState state;
  state.step = count_from(metadata, "step", where);
  state.updates = count_from(metadata, "updates", where);
  state.skipped = count_from(metadata, "skipped", where);
  state.settings = parse_json(value("settings"), where);
  for (const io::TensorInfo& info : file->tensors())
    state.tensors.emplace(info.name, io::view_tensor(file, info));
  return state;
}

void restore_tensors(const std::map<std::string, at::Tensor>& own,
                     const std::map<std::string, at::Tensor>& loaded, const std::string& where) {
  for (const auto& [name, tensor] : own) {
    const auto found = loaded.find(name);
    if (found == loaded.end())
      throw Error(ErrorCode::mismatch, where, "tensor \"" + name + "\" is missing",
                  "resume with the method, targets and options that the run was started with");
    if (found->second.sizes() != tensor.sizes())
      throw Error(ErrorCode::mismatch, where, "tensor \"" + name + "\" has another shape",
                  "resume with the method, targets and options that the run was started with");
  }
  for (const auto& entry : loaded)
    if (!own.contains(entry.first))
      throw Error(ErrorCode::mismatch, where, "tensor \"" + entry.first + "\" has no place here",
                  "resume with the method, targets and options that the run was started with");
  at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : own) tensor.detach().copy_(loaded.at(name));
}

}  // namespace ringlet::train
