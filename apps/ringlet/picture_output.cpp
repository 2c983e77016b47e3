#include "picture_output.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include <ATen/ops/cat.h>
#include <unistd.h>

#include "console.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/io/image.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/device.h"
#include "ringlet/pipeline/picture_text.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

void make_folder(const fs::path& folder) {
  std::error_code problem;
  fs::create_directories(folder, problem);
  if (problem || !fs::is_directory(folder))
    throw Error(ErrorCode::io, folder.string(), "the folder cannot be made: " + problem.message(),
                "choose another --out");
  if (access(folder.c_str(), W_OK) != 0)
    throw Error(ErrorCode::io, folder.string(), "the folder cannot be written to",
                "choose another --out");
}

/// The highest leading number of the folder's file names.
std::size_t last_number(const fs::path& folder) {
  std::size_t highest = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    std::size_t number = 0;
    const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (problem == std::errc() && end != name.data()) highest = std::max(highest, number);
  }
  return highest;
}

}  // namespace

PictureOutput::PictureOutput(const fs::path& out, const std::string& type, bool grid,
                             std::size_t count)
    : latent_(type == "latent"), grid_(grid), count_(count) {
  if (out.empty()) throw Error(ErrorCode::invalid_argument, "--out", "a file or folder is needed");
  const std::string extension = latent_ ? ".safetensors" : ".png";
  const bool is_file = out.has_extension() && !fs::is_directory(out);
  if (is_file && out.extension() != extension)
    throw Error(ErrorCode::invalid_argument, "--out",
                "\"" + out.extension().string() + "\" files cannot be written",
                "name a " + extension + " file, or a folder");
  if (is_file) {
    file_ = out;
    folder_ = out.has_parent_path() ? out.parent_path() : fs::path(".");
  } else {
    folder_ = out;
    if (latent_) file_ = folder_ / "latents.safetensors";
  }
  make_folder(folder_);
  if (!is_file) index_ = last_number(folder_);
}

fs::path PictureOutput::next_file(std::uint64_t seed) {
  ++index_;
  if (file_.empty()) {
    char name[64];
    std::snprintf(name, sizeof name, "%05zu-%llu.png", index_,
                  static_cast<unsigned long long>(seed));
    return folder_ / name;
  }
  if (count_ == 1 && !grid_) return file_;
  return folder_ / (file_.stem().string() + "-" + std::to_string(index_) + ".png");
}

void PictureOutput::note(const fs::path& file, const pipeline::GenerateRequest& request,
                         std::uint64_t seed) {
  made_.push_back({{"file", file.string()},
                   {"prompt", request.prompt},
                   {"seed", seed},
                   {"width", request.size.width},
                   {"height", request.size.height},
                   {"steps", request.steps},
                   {"sampler", request.sampler.name()}});
}

void PictureOutput::add(const pipeline::StableDiffusion& model,
                        const pipeline::GenerateRequest& request, const at::Tensor& latents,
                        const std::shared_future<std::string>& hash) {
  if (hash_.empty()) hash_ = hash.get();
  if (latent_) {
    latents_.push_back(latents.to(at::kCPU));
    for (const std::uint64_t seed : request.seeds) note(file_, request, seed);
    latent_metadata_["parameters"] =
        pipeline::generation_parameters(request, request.seeds.front(), model.files(), hash_);
    return;
  }
  std::vector<io::Image> images = model.decode(latents);
  for (std::size_t i = 0; i < images.size(); ++i) {
    const std::uint64_t seed = request.seeds[i];
    const fs::path file = next_file(seed);
    const std::string parameters =
        pipeline::generation_parameters(request, seed, model.files(), hash_);
    io::write_png(file, images[i], {{"parameters", parameters}});
    if (grid_text_.empty()) grid_text_ = parameters;
    note(file, request, seed);
    if (grid_) images_.push_back(std::move(images[i]));
  }
}

void PictureOutput::finish() {
  if (latent_) {
    io::save_tensors(file_, {{"latents", at::cat(latents_)}}, latent_metadata_);
    return;
  }
  if (!grid_) return;
  const auto columns =
      static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(images_.size()))));
  char name[32];
  std::snprintf(name, sizeof name, "grid-%05zu.png", index_);
  const fs::path file = file_.empty() ? folder_ / name : file_;
  io::write_png(file, io::image_grid(images_, columns), {{"parameters", grid_text_}});
  log(LogLevel::info, "grid: " + file.string());
}

void PictureOutput::report(const pipeline::StableDiffusion& model,
                           const pipeline::LoadOptions& options, double seconds, bool json) const {
  if (json) {
    const nlohmann::json out = {
        {"images", made_},
        {"model",
         {{"path", model.files().path.string()}, {"kind", model.files().kind}, {"sha256", hash_}}},
        {"device", options.device.str()},
        {"precision", nn::precision_name(options.precision)},
        {"seconds", seconds}};
    print_json(out);
    return;
  }
  std::string last;
  for (const nlohmann::json& entry : made_) {
    const auto file = entry.at("file").get<std::string>();
    if (file != last) std::printf("%s\n", file.c_str());
    last = file;
  }
}

}  // namespace ringlet::app
