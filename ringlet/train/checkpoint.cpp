#include "ringlet/train/checkpoint.h"

#include <charconv>
#include <cstdio>
#include <iterator>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/io/tensor_file.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "ringlet.train_state";
constexpr const char* kVersion = "1";

constexpr std::string_view kPrefix = "step-", kSuffix = ".safetensors", kHashSuffix = ".sha256";

/// In the metadata: the checkpoint has its hash beside it. Those of earlier versions have none.
constexpr const char* kHashed = "hashed";

/// The step in the name of a checkpoint, or of its hash, or nothing for other names.
std::optional<std::int64_t> step_in(const std::string& name, std::string_view suffix) {
  if (!name.starts_with(kPrefix) || !name.ends_with(suffix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size() - suffix.size();
  const auto [last, problem] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return problem == std::errc() && last == end && step >= 0 ? std::optional(step) : std::nullopt;
}

/// Checkpoints of a folder, or their hashes, by step.
std::map<std::int64_t, fs::path> checkpoints_in(const fs::path& folder,
                                                std::string_view suffix = kSuffix) {
  std::map<std::int64_t, fs::path> found;
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator(folder, problem))
    if (const auto step = step_in(entry.path().filename().string(), suffix))
      found[*step] = entry.path();
  return found;
}

fs::path hash_file_of(const fs::path& checkpoint) {
  return fs::path(checkpoint).replace_extension(kHashSuffix);
}

/// All that the file of a hash says, as sha256sum writes and checks it.
std::string hash_line(const std::string& sha256, const fs::path& checkpoint) {
  return sha256 + "  " + checkpoint.filename().string() + "\n";
}

/// Removes the oldest checkpoints beyond `keep`, those behind `newest`, and hashes that have lost
/// theirs. One that stays is no reason to stop.
void remove_others(const fs::path& folder, std::size_t keep, std::int64_t newest) {
  auto all = checkpoints_in(folder);
  std::error_code problem;
  const auto remove = [&](auto which) {
    fs::remove(which->second, problem);
    all.erase(which);
  };
  while (!all.empty() && all.rbegin()->first > newest) remove(std::prev(all.end()));
  while (all.size() > keep) remove(all.begin());
  for (const auto& [step, file] : checkpoints_in(folder, kHashSuffix))
    if (!all.contains(step)) fs::remove(file, problem);
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
                           {kHashed, "sha256"},
                           {"settings", state.settings.dump()}};
  if (state.loss_scale > 0.0) {
    metadata["loss_scale"] = Json(state.loss_scale).dump();
    metadata["loss_scale_steps"] = std::to_string(state.loss_scale_steps);
  }
  const fs::path file = folder_ / name;
  io::save_tensors(file, state.tensors, metadata, [&](const std::string& sha256) {
    write_file_atomically(hash_file_of(file), hash_line(sha256, file));
  });
  remove_others(folder_, static_cast<std::size_t>(keep_), state.step);
  return file;
}

std::optional<fs::path> CheckpointFolder::latest() const {
  const auto all = checkpoints_in(folder_);
  std::vector<std::string> damages;
  for (auto newest = all.rbegin(); newest != all.rend(); ++newest) {
    const fs::path& file = newest->second;
    try {
      verify(file);
    } catch (const Error& error) {
      std::error_code problem;
      if (!fs::exists(file, problem)) continue;  // the run that writes here has removed it
      if (error.code() != ErrorCode::bad_format && error.code() != ErrorCode::io) throw;
      damages.push_back(error.where() + ": " + error.message());
      continue;
    }
    for (const std::string& damage : damages)
      log(LogLevel::warning, damage + "; the checkpoint before is taken: " + file.string());
    return file;
  }
  if (damages.empty()) return std::nullopt;
  throw Error(ErrorCode::bad_format, folder_.string(),
              "none of the checkpoints is whole: " + join(damages, "; "),
              "start a new run in another folder, or put a copy of a checkpoint back");
}

std::optional<fs::path> CheckpointFolder::newest() const {
  const auto all = checkpoints_in(folder_);
  if (all.empty()) return std::nullopt;
  return all.rbegin()->second;
}

void CheckpointFolder::verify(const fs::path& file) {
  const fs::path hash_file = hash_file_of(file);
  std::error_code problem;
  if (fs::is_regular_file(hash_file, problem)) {
    if (read_file(hash_file) != hash_line(sha256_file(file), file))
      throw Error(ErrorCode::bad_format, file.string(),
                  "is damaged: its SHA-256 is not the one in " + hash_file.filename().string());
    return;
  }
  if (io::SafetensorsFile::open(file)->metadata().contains(kHashed))
    throw Error(ErrorCode::bad_format, file.string(),
                "is incomplete: " + hash_file.filename().string() + " is missing");
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
