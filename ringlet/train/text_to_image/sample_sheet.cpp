#include "ringlet/train/text_to_image/sample_sheet.h"

#include <algorithm>
#include <utility>

namespace ringlet::train {
namespace {

/// In the middle of a black picture of this size.
io::Image framed(const io::Image& picture, PictureSize size) {
  if (picture.size() == size) return picture;
  io::Image frame{size.width, size.height, {}};
  const auto bytes_of = [](std::int64_t pixels) { return static_cast<std::size_t>(pixels * 3); };
  frame.pixels.resize(bytes_of(size.width * size.height));
  const std::int64_t left = (size.width - picture.width) / 2;
  const std::int64_t top = (size.height - picture.height) / 2;
  for (std::int64_t y = 0; y < picture.height; ++y)
    std::copy_n(picture.pixels.begin() + static_cast<std::ptrdiff_t>(bytes_of(y * picture.width)),
                bytes_of(picture.width),
                frame.pixels.begin() +
                    static_cast<std::ptrdiff_t>(bytes_of((top + y) * size.width + left)));
  return frame;
}

/// Pictures of several sizes, each as it is.
io::Image sheet_of(std::vector<io::Image> pictures, std::int64_t columns) {
  PictureSize largest;
  for (const io::Image& picture : pictures) {
    largest.width = std::max(largest.width, picture.width);
    largest.height = std::max(largest.height, picture.height);
  }
  for (io::Image& picture : pictures) picture = framed(picture, largest);
  return io::image_grid(pictures, columns);
}

}  // namespace

std::vector<SamplePrompt> rows_of(const SampleOptions& options) {
  std::vector<SamplePrompt> rows;
  for (const std::string& prompt : options.prompts) rows.push_back({.text = prompt});
  rows.insert(rows.end(), options.from_file.begin(), options.from_file.end());
  return rows;
}

pipeline::GenerateRequest sample_request(const pipeline::TextToImageModel& model,
                                         const SampleOptions& options, const SamplePrompt& row) {
  pipeline::GenerateRequest request;
  request.steps = options.steps;
  request.guidance = options.guidance;
  request.size = options.size;
  request.clip_skip = options.clip_skip;
  row.apply_to(request, model);
  const std::uint64_t first = row.seed.value_or(options.seed);
  request.seeds.clear();
  for (std::int64_t i = 0; i < options.images; ++i)
    request.seeds.push_back(first + static_cast<std::uint64_t>(i));
  return request;
}

io::Image sample_sheet(const pipeline::TextToImageModel& model, const SampleOptions& options,
                       const std::function<bool()>& proceed) {
  std::vector<io::Image> pictures;
  for (const SamplePrompt& row : rows_of(options))
    for (io::Image& picture :
         pipeline::generate(model, sample_request(model, options, row),
                            [&](const diffusion::SamplerStep&) { return !proceed || proceed(); }))
      pictures.push_back(std::move(picture));
  return sheet_of(std::move(pictures), options.images);
}

}  // namespace ringlet::train
