#include "ringlet/train/checkpoint.h"

#include <charconv>
#include <cstdio>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/io/tensor_file.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "ringlet.train_state";
constexpr const char* kVersion = "1";

constexpr std::string_view kPrefix = "step-", kSuffix = ".safetensors";

/// The step in a checkpoint's name, or nothing for other names.
std::optional<std::int64_t> step_in(const std::string& name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size() - kSuffix.size();
  const auto [last, problem] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return problem == std::errc() && last == end && step >= 0 ? std::optional(step) : std::nullopt;
}

/// Checkpoints of a folder by step.
std::map<std::int64_t, fs::path> checkpoints_in(const fs::path& folder) {
  std::map<std::int64_t, fs::path> found;
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator(folder, problem))
    if (const auto step = step_in(entry.path().filename().string())) found[*step] = entry.path();
  return found;
}

/// What saves that were killed have left: AtomicFile's temporary files. A folder has one run.
void remove_unfinished(const fs::path& folder) {
  std::error_code problem;
  std::vector<fs::path> unfinished;
  for (const auto& entry : fs::directory_iterator(folder, problem)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("." + std::string(kPrefix)) && name.ends_with(".tmp"))
      unfinished.push_back(entry.path());
  }
  for (const fs::path& path : unfinished) fs::remove(path, problem);
}

std::int64_t count_from(const io::Metadata& metadata, const std::string& key,
                        const std::string& where) {
  const auto found = metadata.find(key);
  std::int64_t count = -1;
  if (found != metadata.end())
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), count);
  if (count < 0)
    throw Error(ErrorCode::bad_format, where,
                "metadata \"" + key + "\" is missing or not a number");
  return count;
}

/// One question for all tensors of a device: the host waits once, not for each.
void refuse_not_finite(const std::map<std::string, at::Tensor>& tensors) {
  std::map<std::string, std::vector<at::Tensor>> answers;  // by device
  std::map<std::string, std::vector<std::string>> names;
  for (const auto& [name, tensor] : tensors) {
    answers[tensor.device().str()].push_back(tensor.isfinite().all());
    names[tensor.device().str()].push_back(name);
  }
  for (const auto& [device, finite] : answers) {
    const at::Tensor all = at::stack(finite).cpu();
    for (std::size_t i = 0; i < finite.size(); ++i)
      if (!all.const_data_ptr<bool>()[i])
        throw Error(ErrorCode::non_finite, names.at(device)[i],
                    "the tensor holds NaN or infinite values",
                    "nothing was written; the checkpoint before is intact");
  }
}

/// Whether a tensor of a checkpoint fits one of the run: of its type, or narrower than the fp32
/// that all weights learn in now (earlier versions tuned 16-bit weights as they were).
bool widens(at::ScalarType saved, at::ScalarType own) {
  return saved == own || (own == at::kFloat && (saved == at::kHalf || saved == at::kBFloat16));
}

}  // namespace

CheckpointFolder::CheckpointFolder(fs::path folder, int keep, bool writes)
    : folder_(std::move(folder)), keep_(keep), writes_(writes) {}

fs::path CheckpointFolder::save(const TrainState& state) const {
  refuse_not_finite(state.tensors);
  char name[40];
  std::snprintf(name, sizeof name, "step-%08lld.safetensors", static_cast<long long>(state.step));
  if (!writes_) return folder_ / name;
  make_folder(folder_);
  remove_unfinished(folder_);
  io::Metadata metadata = {{"format", kFormat},
                           {"version", kVersion},
                           {"step", std::to_string(state.step)},
                           {"updates", std::to_string(state.updates)},
                           {"skipped", std::to_string(state.skipped)},
                           {"threads", std::to_string(state.threads)},
                           {"settings", state.settings.dump()}};
  if (state.loss_scale > 0.0) {
    metadata["loss_scale"] = Json(state.loss_scale).dump();
    metadata["loss_scale_steps"] = std::to_string(state.loss_scale_steps);
  }
  io::save_tensors(folder_ / name, state.tensors, metadata);
  auto all = checkpoints_in(folder_);
  std::error_code problem;  // one that stays is no reason to stop
  for (; all.size() > static_cast<std::size_t>(keep_); all.erase(all.begin()))
    fs::remove(all.begin()->second, problem);
  return folder_ / name;
}

std::optional<fs::path> CheckpointFolder::latest() const {
  const auto all = checkpoints_in(folder_);
  if (all.empty()) return std::nullopt;
  return all.rbegin()->second;
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
    throw Error(ErrorCode::unsupported, where, "this is not a training checkpoint of ringlet",
                "give a file of OUT/checkpoints");
  if (value("version") != kVersion)
    throw Error(ErrorCode::unsupported, where,
                "the checkpoint has version " + value("version") + " and this ringlet reads 1",
                "use the ringlet that wrote it");
  TrainState state;
  state.step = count_from(metadata, "step", where);
  state.updates = count_from(metadata, "updates", where);
  state.skipped = count_from(metadata, "skipped", where);
  if (metadata.contains("threads"))  // those of earlier versions do not say
    state.threads = static_cast<int>(count_from(metadata, "threads", where));
  if (metadata.contains("loss_scale")) {
    const Json scale = parse_json(value("loss_scale"), where);
    if (!scale.is_number() || !(scale.get<double>() > 0.0))
      throw Error(ErrorCode::bad_format, where, "metadata \"loss_scale\" is not a positive number");
    state.loss_scale = scale.get<double>();
    state.loss_scale_steps = count_from(metadata, "loss_scale_steps", where);
  }
  state.settings = parse_json(value("settings"), where);
  if (!state.settings.is_object())
    throw Error(ErrorCode::bad_format, where, "metadata \"settings\" is not an object");
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
    const bool same_shape = found->second.sizes() == tensor.sizes();
    if (!same_shape || !widens(found->second.scalar_type(), tensor.scalar_type()))
      throw Error(ErrorCode::mismatch, where,
                  "tensor \"" + name + "\" has another " + (same_shape ? "type" : "shape"),
                  "resume with the method, targets and options that the run was started with");
  }
  for (const auto& entry : loaded)
    if (!own.contains(entry.first))
      throw Error(ErrorCode::mismatch, where, "tensor \"" + entry.first + "\" does not belong here",
                  "resume with the method, targets and options that the run was started with");
  at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : own) tensor.detach().copy_(loaded.at(name));
}

}  // namespace ringlet::train
