#include "ringlet/train/text_to_image/class_pictures.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/random.h"
#include "ringlet/io/image.h"
#include "ringlet/pipeline/generation.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

fs::path file_of(const fs::path& folder, std::size_t number) {
  char name[40];
  std::snprintf(name, sizeof name, "class-%05zu.png", number);
  return folder / name;
}

}  // namespace

ClassPictures find_class_pictures(const fs::path& folder, std::size_t wanted,
                                  const std::string& prompt) {
  ClassPictures found;
  if (!fs::is_directory(folder)) return found;
  // One without pictures will be filled. All of them have one caption, the class prompt.
  data::PictureFolder read =
      data::read_picture_folder(folder, {.captions = data::Captions::unused, .may_be_empty = true});
  found.found = read.pictures.size();
  found.notes = std::move(read.notes);
  found.pictures = std::move(read.pictures);
  if (found.pictures.size() > wanted) found.pictures.resize(wanted);
  for (data::Picture& picture : found.pictures) picture.caption = prompt;
  return found;
}

void make_class_pictures(const pipeline::TextToImageModel& model, pipeline::GenerateRequest request,
                         const fs::path& folder, std::size_t count, std::uint64_t seed,
                         const std::function<bool(std::size_t done)>& progress) {
  constexpr std::size_t kBatch = 4;
  std::vector<std::size_t> missing;
  for (std::size_t number = 1; missing.size() < count; ++number)
    if (!fs::exists(file_of(folder, number))) missing.push_back(number);
  make_folder(folder);
  for (std::size_t i = 0; i < missing.size();) {
    request.seeds.clear();
    for (std::size_t n = i; n < std::min(missing.size(), i + kBatch); ++n)
      request.seeds.push_back(Random(seed).stream("class picture", missing[n] - 1).next_u64() >> 1);
    bool proceed = true;
    for (const at::Tensor& latent : pipeline::sample(model, request).split(1)) {
      io::write_png(file_of(folder, missing[i++]), pipeline::decode_images(model, latent).front());
      proceed = proceed && (!progress || progress(i));
    }
    if (!proceed)
      throw Error(ErrorCode::cancelled, "training", "stopped while class pictures were made",
                  "those made so far are kept");
  }
}

}  // namespace ringlet::train
