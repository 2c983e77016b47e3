#include <cstdio>

#include <nlohmann/json.hpp>

#include "canny_options.h"
#include "options.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/data/control_signal.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/nn/torch_errors.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

struct ControlMakeOptions {
  CommonOptions common;
  std::string kind, images, given, out;
  data::CannyThresholds canny;
  std::int64_t size = 0;
};

std::vector<fs::path> pictures_of(const fs::path& path) {
  if (fs::is_regular_file(path)) return {path};
  return data::paths_of(data::read_pictures(path, {.captions = data::Captions::ignored}));
}

/// Signals have the pictures' names: in their folder, or one that is read with it, they would take
/// the pictures' place.
void check_out(const fs::path& out, const fs::path& read, const char* option) {
  if (read.empty()) return;
  const fs::path of_out = fs::weakly_canonical(out);
  const fs::path folder = fs::weakly_canonical(fs::is_directory(read) ? read : read.parent_path());
  const auto [end, rest] = std::ranges::mismatch(folder, of_out);
  if (end == folder.end())
    throw Error(ErrorCode::invalid_argument, "--out",
                out.string() + " lies in the folder of " + option + ", " + folder.string(),
                "name a folder outside of it: its pictures would be lost or read again");
}

io::Image make(const data::ControlSettings& settings, const fs::path& picture, std::int64_t size) {
  const io::Image image = io::read_image(picture);
  if (size > 0)
    return data::control_picture(settings, picture, image,
                                 data::covering_crop(image, PictureSize::square(size)));
  return data::control_picture(settings, picture, image);
}

int make_signals(const ControlMakeOptions& o) {
  const data::ControlSettings settings{data::control_signal_from_name(o.kind, Field("kind")),
                                       o.canny, o.given};
  data::check_signal_folder(settings, Field("given"));
  if (o.size < 0) throw Error(ErrorCode::invalid_argument, "--size", "must not be negative");
  check_out(o.out, o.images, "--images");
  check_out(o.out, o.given, "--given");
  const std::vector<fs::path> pictures = pictures_of(o.images);
  data::check_picture_names(pictures);  // also where signals are computed: OUT/name.png
  data::check_control_files(settings, pictures);
  make_folder(o.out);
  std::optional<Progress> progress;
  for (const fs::path& picture : pictures) {
    if (!progress) progress.emplace("control", pictures.size(), o.common.quiet || o.common.json);
    io::write_png(fs::path(o.out) / (picture.stem().string() + ".png"),
                  make(settings, picture, o.size));
    progress->advance();
    if (interrupted())
      throw Error(ErrorCode::cancelled, "control make", "stopped", "those made so far are kept");
  }
  progress.reset();
  print_made(o.common.json, {{"out", o.out}, {"pictures", pictures.size()}}, o.out);
  return 0;
}

}  // namespace

int cmd_control(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "--help";
  const bool help = word == "--help" || word == "-h";
  if (!help && word != "make")
    throw Error(ErrorCode::invalid_argument, "\"" + word + "\"", "control has no such verb",
                "use ringlet control make");
  ControlMakeOptions options;
  CLI::App app(
      "Make control signals from pictures: a signal per picture, as OUT/name.png.\nExample:\n  "
      "ringlet control make --kind canny --images photos --out edges",
      "control make");
  app.add_option("--kind", options.kind,
                 "canny: edges; segmentation: of drawings, by colour; landmark: drawn from files; "
                 "map: given maps, scaled and cut")
      ->required();
  app.add_option("--images", options.images, "Folder of pictures, or one")->required();
  app.add_option("--given", options.given,
                 "Folder with landmark files or maps, of the pictures' names");
  app.add_option("--out", options.out, "Folder for the signals")->required();
  app.add_option("--size", options.size,
                 "Cut squares of so many pixels, as training does [the pictures' own sizes]");
  add_canny(app, options.canny);
  options.common.add_to(app);
  if (const ParseResult done = help ? parse(app, argc, argv) : parse(app, argc - 1, argv + 1))
    return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("control", [&] {
    check_canny(app, options.kind == "canny" && options.given.empty());
    return make_signals(options);
  });
}

}  // namespace ringlet::app
