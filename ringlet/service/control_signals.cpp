#include "ringlet/service/control_signals.h"

#include <algorithm>
#include <string>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/data/crop.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::service {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> pictures_of(const fs::path& path) {
  if (fs::is_regular_file(path)) return {path};
  return data::paths_of(data::read_pictures(path, {.captions = data::Captions::ignored}));
}

/// Signals have the pictures' names: in their folder, or one that is read with it, they would take
/// the pictures' place.
void check_out(const fs::path& out, const fs::path& read, const std::string& field) {
  if (read.empty()) return;
  const fs::path of_out = fs::weakly_canonical(out);
  const fs::path folder = fs::weakly_canonical(fs::is_directory(read) ? read : read.parent_path());
  const auto [end, rest] = std::ranges::mismatch(folder, of_out);
  if (end == folder.end())
    throw Error(ErrorCode::invalid_argument, Field("out"),
                out.string() + " lies in the folder of `" + field + "`, " + folder.string(),
                "choose a folder outside it: its pictures would be overwritten or read as input");
}

io::Image signal_of(const SignalRequest& request, const fs::path& picture) {
  const io::Image image = io::read_image(picture);
  if (request.size == 0) return data::control_picture(request.settings, picture, image);
  return data::control_picture(request.settings, picture, image,
                               data::covering_crop(image, PictureSize::square(request.size)));
}

std::size_t make_all(const SignalRequest& request, const SignalObserver& observer) {
  data::check_signal_folder(request.settings, Field("given"));
  if (request.size < 0)
    throw Error(ErrorCode::invalid_argument, Field("size"), "must not be negative");
  check_out(request.out, request.images, "images");
  check_out(request.out, request.settings.folder, "given");
  const std::vector<fs::path> pictures = pictures_of(request.images);
  data::check_picture_names(pictures);  // also where signals are computed: OUT/name.png
  data::check_control_files(request.settings, pictures);
  make_folder(request.out);
  std::size_t done = 0;
  const auto tell = [&] {
    if (observer && !observer(done, pictures.size()))
      throw Error(ErrorCode::cancelled, "control signals", "stopped", "those made so far are kept");
  };
  tell();
  for (const fs::path& picture : pictures) {
    io::write_png(request.out / (picture.stem().string() + ".png"), signal_of(request, picture));
    ++done;
    tell();
  }
  return done;
}

}  // namespace

void describe(OptionList& list, SignalRequest& r) {
  list.add("kind", choice("kind", r.settings.signal, data::kControlSignalNames),
           "canny: edges; segmentation: of drawings, by colour; landmark: drawn from files; map: "
           "given maps, scaled and cut")
      .required();
  list.add("images", r.images, "Folder of pictures, or one").required();
  list.add("given", r.settings.folder,
           "Folder with landmark files or maps, named like the pictures");
  list.add("out", r.out, "Folder for the signals").required();
  list.add("size", r.size, "Crop to squares of N x N pixels, as training does")
      .within(Range::at_least(0))
      .or_else("the pictures' sizes");
  data::describe(list, r.settings.canny);
}

std::size_t make_signals(const SignalRequest& request, const SignalObserver& observer) {
  return nn::with_ringlet_errors(request.images.string(),
                                 [&] { return make_all(request, observer); });
}

}  // namespace ringlet::service
