#include "ringlet/data/dataset.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <map>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/error_list.h"
#include "ringlet/data/metadata_file.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

/// The place of a picture that metadata name: below the folder, with any extension where they give
/// none, or wherever an absolute path leads.
std::optional<fs::path> named_picture(const fs::path& folder, const std::string& name) {
  const fs::path path = folder / name;  // `name` alone where it is absolute
  if (is_picture(path) && fs::is_regular_file(path)) return path;
  for (const std::string_view extension : io::kImageExtensions)
    if (fs::path file = path.string() + std::string(extension); fs::is_regular_file(file))
      return file;
  return std::nullopt;
}

/// The captions of a metadata file by its pictures' paths.
std::map<fs::path, std::string> captions_in(const fs::path& file, const fs::path& folder) {
  std::map<fs::path, std::string> captions;
  std::vector<Error> missing;
  for (const MetadataEntry& entry : read_metadata(file)) {
    const auto picture = named_picture(folder, entry.picture);
    if (picture)
      captions[picture->lexically_normal()] = entry.caption;
    else
      missing.emplace_back(ErrorCode::not_found, entry.where,
                           "the picture \"" + entry.picture + "\" is not in " + folder.string());
  }
  throw_together(missing, file.string(),
                 std::to_string(missing.size()) + " of the pictures that it names are missing");
  return captions;
}

/// Of the folder the pictures that the file lists, with its captions.
void keep_listed(PictureFolder& found, const fs::path& file, const fs::path& folder) {
  std::map<fs::path, std::string> captions = captions_in(file, folder);
  NotedFiles unlisted;
  std::erase_if(found.pictures, [&](Picture& picture) {
    const auto caption = captions.find(picture.path.lexically_normal());
    if (caption == captions.end()) {
      unlisted[NoteKind::unlisted].push_back(picture.path);
      return true;
    }
    if (!caption->second.empty()) {
      picture.caption = std::move(caption->second);
      picture.caption_file = file;
    }
    captions.erase(caption);
    return false;
  });
  for (auto& [path, caption] : captions)
    found.pictures.push_back({path, caption, 1, caption.empty() ? fs::path() : file});
  std::ranges::sort(found.pictures, {}, &Picture::path);
  for (FolderNote& note : make_notes(unlisted, folder)) found.notes.push_back(std::move(note));
  found.rule = "pictures that " + file.filename().string() + " lists";
}

/// A metadata.jsonl beside the pictures says what text files do not.
void take_captions(PictureFolder& found, const fs::path& file, const fs::path& folder) {
  const std::map<fs::path, std::string> captions = captions_in(file, folder);
  for (Picture& picture : found.pictures)
    if (const auto caption = captions.find(picture.path.lexically_normal());
        caption != captions.end() && picture.caption_file.empty() && !caption->second.empty()) {
      picture.caption = caption->second;
      picture.caption_file = file;
    }
}

/// Files that are used after all, a folder when all that it holds is.
void remove_notes(std::vector<FolderNote>& notes, NoteKind kind, const fs::path& folder,
                  const std::set<fs::path>& used) {
  const auto is_used = [&](const fs::path& file) {
    const fs::path path = (folder / file).lexically_normal();
    return std::ranges::any_of(
        used, [&](const fs::path& one) { return one == path || one.parent_path() == path; });
  };
  for (FolderNote& note : notes)
    if (note.kind == kind) std::erase_if(note.files, is_used);
  std::erase_if(notes, [](const FolderNote& note) { return note.files.empty(); });
}

void take_masks(PictureFolder& found, const Dataset& dataset) {
  std::set<fs::path> used;
  for (Picture& picture : found.pictures) {
    picture.use.masked_by_alpha = dataset.masks == MaskSource::alpha;
    if (dataset.masks != MaskSource::files) continue;
    if (auto mask = mask_file(picture.path, dataset.mask_images)) {
      used.insert(mask->lexically_normal());
      picture.use.mask = *std::move(mask);
    }
  }
  if (dataset.masks == MaskSource::files && used.empty())
    throw Error(ErrorCode::not_found, dataset.pictures().string(),
                "none of the pictures has a mask",
                "the mask of a.png is a-masklabel.png or a_mask.png beside it, or a.png in a "
                "folder \"masks\" or in `mask_images`");
  remove_notes(found.notes, NoteKind::mask, dataset.pictures(), used);
}

PictureFolder pictures_of(const Dataset& dataset) {
  const PictureFolderOptions how{
      .captions = Captions::read,
      .may_be_empty = !dataset.metadata.empty(),
      .subfolders = dataset.subfolders,
      .caption_extension = lower_extension("x" + dataset.caption_extension),
      .all_lines = dataset.captions.wildcards};
  if (!dataset.metadata.empty()) {
    PictureFolder found;
    if (!dataset.pictures().empty()) found = read_picture_folder(dataset.pictures(), how);
    keep_listed(found, dataset.metadata, dataset.pictures());
    return found;
  }
  PictureFolder found = read_picture_folder(dataset.pictures(), how);
  if (const fs::path file = metadata_beside(dataset.pictures()); !file.empty()) {
    take_captions(found, file, dataset.pictures());
    remove_notes(found.notes, NoteKind::other_file, dataset.pictures(), {file.lexically_normal()});
  }
  return found;
}

}  // namespace

WrittenValue square_size(std::string field, PictureSize& size) {
  const auto read = [field = std::move(field), &size](const std::vector<std::string>& texts) {
    const std::string& text = texts.back();
    std::int64_t side = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), side);
    if (problem != std::errc() || end != text.data() + text.size())
      throw Error(ErrorCode::invalid_argument, Field(field),
                  "\"" + text + "\" is not a whole number of pixels");
    if (side < 0)
      throw Error(ErrorCode::invalid_argument, Field(field), Range::at_least(0).refusal());
    size = PictureSize::square(side);
  };
  return {.read = read,
          .value = [&size] { return Json(size); },
          .shown = [&size] { return size.empty() ? "" : size.short_text(); },
          .placeholder = "N"};
}

void describe(OptionList& list, Dataset& d) {
  list.add("instance_images", d.folder, "Folder with the training pictures");
  list.add("class_images", d.class_folder, "Folder with class pictures, in place of those");
  list.add("instance_prompt", d.prompt, "Caption of pictures that have none").repeated();
  list.add("class_prompt", d.class_prompt, "Caption of class pictures that have none").repeated();
  list.add("metadata_file", d.metadata,
           "File that lists the pictures with their captions: .jsonl (Hugging Face) or .json "
           "(kohya)");
  list.add("caption_extension", d.caption_extension, "Extension of the caption files")
      .or_else(".txt, and .caption where that is missing")
      .repeated();
  list.add("subfolders", d.subfolders, "Search the folder's subfolders, too");
  list.add("repeats", d.repeats, "How often an epoch uses each picture")
      .within(Range::above(0))
      .repeated();
  list.add("resolution", square_size("resolution", d.resolution),
           "Side of the training pictures in pixels")
      .repeated();
  list.add("crop", choice("crop", d.random_crop, kCropPlaceNames), "Where pictures are cut")
      .repeated();
  list.add("flip", d.flip, "Also use mirrored pictures").repeated();
  list.add("caption_dropout", d.caption_dropout, "Share of captions replaced by empty ones")
      .within(Range::share())
      .repeated();
  describe(list, d.buckets);
  describe(list, d.captions);
  list.add("masks", choice("masks", d.masks, kMaskSourceNames), "Masks of the loss").repeated();
  list.add("mask_images", d.mask_images, "Folder with one mask per picture, of the same name");
}

void check(const Dataset& dataset) {
  Dataset described = dataset;
  OptionList list;
  describe(list, described);
  list.check();
  if (dataset.folder.empty() == dataset.class_folder.empty() && dataset.metadata.empty())
    throw Error(ErrorCode::invalid_argument, Field("instance_images"),
                dataset.folder.empty() ? "the folder with the pictures is missing"
                                       : "a data set has this folder or `class_images`, not both");
  if (!dataset.caption_extension.empty() && !dataset.caption_extension.starts_with("."))
    throw Error(ErrorCode::invalid_argument, Field("caption_extension"),
                "\"" + dataset.caption_extension + "\" does not begin with a dot",
                "write it like \".txt\"");
  if (!dataset.mask_images.empty() && dataset.masks != MaskSource::files)
    throw Error(ErrorCode::invalid_argument, Field("mask_images"),
                "it has no effect without `masks=files`", "give both, or leave it out");
  check(dataset.captions);
}

Json settings_of(const Dataset& dataset) {
  const auto settings = [](Dataset described) {
    OptionList list;
    describe(list, described);
    return list.settings();
  };
  const Json usual = settings({});
  Json own = settings(dataset);
  for (const auto& [key, value] : usual.items())
    if (own.at(key) == value) own.erase(key);
  own["class pictures"] = dataset.is_class();
  return own;
}

PictureFolder read_dataset(const Dataset& dataset) {
  PictureFolder found = pictures_of(dataset);
  const std::string& prompt = dataset.is_class() ? dataset.class_prompt : dataset.prompt;
  for (Picture& picture : found.pictures) {
    picture.repeats *= dataset.repeats;
    picture.use.random_crop = dataset.random_crop;
    picture.use.flip = dataset.flip;
    picture.use.caption_dropout = dataset.caption_dropout;
    picture.use.dropout_every_epochs = dataset.captions.dropout_every_epochs;
    if (picture.caption.empty()) picture.caption = prompt;
    if (picture.caption.empty())
      throw Error(ErrorCode::invalid_argument, picture.path.string(), "the picture has no caption",
                  std::string("give `") + (dataset.is_class() ? "class" : "instance") +
                      "_prompt=\"a photo of sks dog\"`, or write the caption into " +
                      picture.path.stem().string() + ".txt");
  }
  found.captions = static_cast<std::size_t>(std::ranges::count_if(
      found.pictures, [](const Picture& picture) { return !picture.caption_file.empty(); }));
  take_masks(found, dataset);
  return found;
}

}  // namespace ringlet::data
