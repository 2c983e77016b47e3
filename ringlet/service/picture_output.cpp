#include "ringlet/service/picture_output.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <system_error>
#include <utility>

#include <ATen/ops/cat.h>
#include <unistd.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/io/image.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/device.h"
#include "ringlet/pipeline/picture_text.h"

namespace ringlet::service {
namespace {

namespace fs = std::filesystem;

void make_writable_folder(const fs::path& folder) {
  make_folder(folder, "choose another `out`");
  if (access(folder.c_str(), W_OK) != 0)
    throw Error(ErrorCode::io, folder.string(), "the folder cannot be written to",
                "choose another `out`");
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

PictureOutput::PictureOutput(const PictureFiles& files, std::size_t count)
    : latent_(files.latents), grid_(files.grid), count_(count) {
  const fs::path& out = files.out;
  if (out.empty())
    throw Error(ErrorCode::invalid_argument, Field("out"), "a file or folder is needed");
  const std::string extension = latent_ ? ".safetensors" : ".png";
  const bool is_file = out.has_extension() && !fs::is_directory(out);
  if (is_file && out.extension() != extension)
    throw Error(ErrorCode::invalid_argument, Field("out"),
                "\"" + out.extension().string() + "\" files cannot be written",
                "name a " + extension + " file, or a folder");
  if (is_file) {
    file_ = out;
    folder_ = out.has_parent_path() ? out.parent_path() : fs::path(".");
  } else {
    folder_ = out;
    if (latent_) file_ = folder_ / "latents.safetensors";
  }
  make_writable_folder(folder_);
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
  records_.push_back({{"file", file.string()},
                      {"prompt", request.prompt},
                      {"seed", seed},
                      {"width", request.size.width},
                      {"height", request.size.height},
                      {"steps", *request.steps},
                      {"sampler", request.sampler.name()}});
}

void PictureOutput::add(const Generator& generator, const pipeline::GenerateRequest& request,
                        const at::Tensor& latents) {
  if (latent_) {
    latents_.push_back(latents.to(at::kCPU));
    for (const std::uint64_t seed : request.seeds) note(file_, request, seed);
    latent_metadata_["parameters"] = pipeline::generation_parameters(
        request, request.seeds.front(), generator.model().description(), generator.hash());
    return;
  }
  for (MadePicture& made : generator.decode(request, latents)) {
    const fs::path file = next_file(made.seed);
    io::write_png(file, made.image, {{"parameters", made.parameters}});
    if (grid_text_.empty()) grid_text_ = made.parameters;
    note(file, request, made.seed);
    if (grid_) images_.push_back(std::move(made.image));
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

std::vector<fs::path> PictureOutput::files() const {
  std::vector<fs::path> files;
  for (const Json& record : records_) {
    fs::path file = record.at("file").get<std::string>();
    if (files.empty() || files.back() != file) files.push_back(std::move(file));
  }
  return files;
}

Json generation_json(const Generator& generator, const PictureOutput& output, double seconds) {
  const pipeline::TextToImageModel& model = generator.model();
  return {{"images", output.records()},
          {"model",
           {{"path", model.description().path.string()},
            {"kind", model.description().kind},
            {"sha256", generator.hash()}}},
          {"device", model.options().device.str()},
          {"precision", nn::precision_name(model.options().precision)},
          {"seconds", seconds}};
}

}  // namespace ringlet::service
