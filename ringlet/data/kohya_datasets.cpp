// kohya's dataset_config (sd-scripts, docs/config_README-en.md).
#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/core/toml_file.h"
#include "ringlet/data/dataset_file.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

/// What is said of one subset, from all three levels.
struct KohyaSubset {
  Dataset dataset;
  std::string images;
  bool is_reg = false;
  std::optional<bool> enable_bucket;
  std::optional<std::int64_t> batch_size;
  std::string bucket_key;    ///< one that needs enable_bucket, or ""
  std::string conditioning;  ///< conditioning_data_dir
};

/// A value with its place.
struct KohyaValue {
  const Json& json;
  const std::string& key;
  const std::string& where;

  Error wrong(const std::string& wanted) const {
    return {ErrorCode::invalid_argument, where,
            "\"" + key + "\" must be " + wanted + ", not " + json.dump()};
  }
  bool flag() const {
    if (!json.is_boolean()) throw wrong("true or false");
    return json.get<bool>();
  }
  std::string text() const {
    if (!json.is_string()) throw wrong("a text");
    return json.get<std::string>();
  }
  std::int64_t whole(std::int64_t least) const {
    if (!json.is_number_integer() || json.get<std::int64_t>() < least)
      throw wrong("a whole number of " + std::to_string(least) + " or more");
    return json.get<std::int64_t>();
  }
  double share() const {
    const bool is_share =
        json.is_number() && json.get<double>() >= 0.0 && json.get<double>() <= 1.0;
    if (!is_share) throw wrong("a number from 0 to 1");
    return json.get<double>();
  }
  PictureSize size() const {
    const auto is_side = [](const Json& side) {
      return side.is_number_integer() && side.get<std::int64_t>() > 0;
    };
    if (is_side(json)) return PictureSize::square(json.get<std::int64_t>());
    if (json.is_array() && json.size() == 2 && is_side(json[0]) && is_side(json[1]))
      return {json[0].get<std::int64_t>(), json[1].get<std::int64_t>()};
    throw wrong("a side in pixels, or [width, height]");
  }
  Error refused(const std::string& what, const std::string& way_out) const {
    return {ErrorCode::unsupported, where, "\"" + key + "\": " + what, way_out};
  }
};

using Levels = unsigned;
constexpr Levels kGeneral = 1, kDatasets = 2, kSubsets = 4;
constexpr Levels kAll = kGeneral | kDatasets | kSubsets, kUpper = kGeneral | kDatasets;

struct KohyaKey {
  Levels levels;
  std::function<void(KohyaSubset&, const KohyaValue&)> take;
};

using KohyaKeys = std::map<std::string, KohyaKey>;

void add_caption_keys(KohyaKeys& keys) {
  using S = KohyaSubset;
  using V = KohyaValue;
  keys["caption_extension"] = {kAll, [](S& s, const V& v) {
                                 std::string extension = v.text();
                                 if (!extension.starts_with(".")) throw v.wrong("like \".txt\"");
                                 s.dataset.caption_extension = std::move(extension);
                               }};
  keys["class_tokens"] = {kAll, [](S& s, const V& v) { s.dataset.prompt = v.text(); }};
  keys["shuffle_caption"] = {kAll, [](S& s, const V& v) { s.dataset.captions.shuffle = v.flag(); }};
  keys["caption_separator"] = {kAll, [](S& s, const V& v) {
                                 if (v.text().empty()) throw v.wrong("a text that is not empty");
                                 s.dataset.captions.separator = v.text();
                               }};
  keys["keep_tokens"] = {kAll,
                         [](S& s, const V& v) { s.dataset.captions.keep_tokens = v.whole(0); }};
  keys["keep_tokens_separator"] = {
      kAll, [](S& s, const V& v) { s.dataset.captions.keep_tokens_separator = v.text(); }};
  keys["secondary_separator"] = {
      kAll, [](S& s, const V& v) { s.dataset.captions.secondary_separator = v.text(); }};
  keys["enable_wildcard"] = {kAll,
                             [](S& s, const V& v) { s.dataset.captions.wildcards = v.flag(); }};
  keys["caption_prefix"] = {kAll, [](S& s, const V& v) { s.dataset.captions.prefix = v.text(); }};
  keys["caption_suffix"] = {kAll, [](S& s, const V& v) { s.dataset.captions.suffix = v.text(); }};
  keys["caption_dropout_rate"] = {kAll,
                                  [](S& s, const V& v) { s.dataset.caption_dropout = v.share(); }};
  keys["caption_dropout_every_n_epochs"] = {
      kAll, [](S& s, const V& v) { s.dataset.captions.dropout_every_epochs = v.whole(0); }};
  keys["caption_tag_dropout_rate"] = {
      kAll, [](S& s, const V& v) { s.dataset.captions.tag_dropout = v.share(); }};
}

void add_picture_keys(KohyaKeys& keys) {
  using S = KohyaSubset;
  using V = KohyaValue;
  keys["image_dir"] = {kSubsets, [](S& s, const V& v) { s.images = v.text(); }};
  keys["metadata_file"] = {kSubsets, [](S& s, const V& v) { s.dataset.metadata = v.text(); }};
  keys["is_reg"] = {kSubsets, [](S& s, const V& v) { s.is_reg = v.flag(); }};
  keys["conditioning_data_dir"] = {kSubsets, [](S& s, const V& v) { s.conditioning = v.text(); }};
  keys["num_repeats"] = {kAll, [](S& s, const V& v) { s.dataset.repeats = v.whole(1); }};
  keys["flip_aug"] = {kAll, [](S& s, const V& v) { s.dataset.flip = v.flag(); }};
  keys["random_crop"] = {kAll, [](S& s, const V& v) { s.dataset.random_crop = v.flag(); }};
  keys["alpha_mask"] = {kAll, [](S& s, const V& v) {
                          s.dataset.masks = v.flag() ? MaskSource::alpha : MaskSource::off;
                        }};
  keys["resolution"] = {kUpper, [](S& s, const V& v) { s.dataset.resolution = v.size(); }};
  keys["batch_size"] = {kUpper, [](S& s, const V& v) { s.batch_size = v.whole(1); }};
  keys["enable_bucket"] = {kUpper, [](S& s, const V& v) { s.enable_bucket = v.flag(); }};
  const auto bucket = [&](const char* name,
                          const std::function<void(BucketOptions&, const V&)>& to) {
    keys[name] = {kUpper, [to](S& s, const V& v) {
                    to(s.dataset.buckets, v);
                    s.bucket_key = v.where;
                  }};
  };
  bucket("min_bucket_reso", [](BucketOptions& b, const V& v) { b.least = v.whole(1); });
  bucket("max_bucket_reso", [](BucketOptions& b, const V& v) { b.most = v.whole(1); });
  bucket("bucket_reso_steps", [](BucketOptions& b, const V& v) { b.step = v.whole(1); });
  bucket("bucket_no_upscale", [](BucketOptions& b, const V& v) { b.no_upscale = v.flag(); });
}

/// Keys of which the value that changes nothing is taken, and any other refused.
void add_refused_keys(KohyaKeys& keys) {
  const auto refuse = [&](const char* name, Levels levels, const Json& harmless, const char* what,
                          const char* way_out) {
    keys[name] = {levels, [=](KohyaSubset&, const KohyaValue& value) {
                    if (value.json != harmless) throw value.refused(what, way_out);
                  }};
  };
  refuse("color_aug", kAll, false, "pictures are encoded once, so that their colours are fixed",
         "make coloured copies of the pictures, or leave it out");
  refuse("face_crop_aug_range", kAll, Json(), "pictures are not cut around faces",
         "cut them before, or use random_crop");
  refuse("token_warmup_min", kAll, 1, "there is no warm-up of tokens", "leave it out");
  refuse("token_warmup_step", kAll, 0, "there is no warm-up of tokens", "leave it out");
  refuse("cache_info", kAll, false, "sizes of pictures are read each time", "leave it out");
  refuse("network_multiplier", kUpper, 1.0, "adapters learn at strength 1", "leave it out");
  refuse("validation_split", kUpper, 0.0, "data sets are not divided here",
         "put the pictures for validation into a folder of their own");
  refuse("validation_seed", kUpper, Json(), "data sets are not divided here", "leave it out");
  refuse("resize_interpolation", kAll, Json(),
         "pictures are shrunk by areas and enlarged by Lanczos' filter", "leave it out");
  refuse("skip_image_resolution", kUpper, Json(), "no picture is left out for its size",
         "move small pictures away");
  refuse("custom_attributes", kAll, Json(), "pictures have no other attributes", "leave it out");
}

const KohyaKeys& known_keys() {
  static const KohyaKeys keys = [] {
    KohyaKeys all;
    add_caption_keys(all);
    add_picture_keys(all);
    add_refused_keys(all);
    return all;
  }();
  return keys;
}

[[noreturn]] void refuse_unknown(const std::string& where, const std::string& key, Levels level) {
  std::vector<std::string> known;
  for (const auto& [name, how] : known_keys())
    if ((how.levels & level) != 0) known.push_back(name);
  const auto elsewhere = known_keys().find(key);
  if (elsewhere != known_keys().end())
    throw Error(ErrorCode::invalid_argument, where, "\"" + key + "\" does not belong here",
                (elsewhere->second.levels & kSubsets) != 0
                    ? "it belongs to [[datasets.subsets]]"
                    : "it belongs to [[datasets]] or [general]");
  const std::string near = nearest_name(key, known);
  throw Error(ErrorCode::invalid_argument, where, "there is no key \"" + key + "\"",
              near.empty() ? "the keys here are " + join(known) : "did you mean \"" + near + "\"?");
}

void take_keys(KohyaSubset& subset, const LocatedToml& file, const std::string& table,
               const Json& json, Levels level) {
  if (!json.is_object())
    throw Error(ErrorCode::invalid_argument, file.place(table), "this must be a table");
  for (const auto& [key, value] : json.items()) {
    if (level == kDatasets && key == "subsets") continue;
    const std::string where = file.place(std::string(table).append("/").append(key));
    const auto known = known_keys().find(key);
    if (known == known_keys().end() || (known->second.levels & level) == 0)
      refuse_unknown(where, key, level);
    known->second.take(subset, {value, key, where});
  }
}

/// Under kohya's names; the pictures' own sizes come later.
void check_buckets(const Dataset& d, const std::string& where) {
  if (d.buckets.rule != BucketRule::kohya || d.resolution.empty()) return;
  try {
    complete(d.buckets, d.resolution, {});
  } catch (const Error& error) {
    throw Error(error.code(), where,
                "\"min_bucket_reso\", \"max_bucket_reso\" and \"bucket_reso_steps\" (256, 1024 and "
                "64 where they are not given) do not fit: " +
                    error.message(),
                error.hint());
  }
}

/// What the keys of a subset mean together.
Dataset finished(KohyaSubset subset, const std::string& where, const Dataset& usual) {
  Dataset& d = subset.dataset;
  if (subset.images.empty() && d.metadata.empty())
    throw Error(ErrorCode::invalid_argument, where, "the subset has no \"image_dir\"",
                "give the folder with its pictures");
  if (!subset.bucket_key.empty() && !subset.enable_bucket)
    throw Error(ErrorCode::invalid_argument, subset.bucket_key,
                "the key has no effect, since \"enable_bucket\" is not given",
                "write enable_bucket = true, or leave the key out");
  if (!subset.enable_bucket.value_or(false)) d.buckets = {.rule = BucketRule::off};
  check_buckets(d, where);
  if (!subset.conditioning.empty()) {
    if (usual.masks != MaskSource::files)
      throw Error(ErrorCode::invalid_argument, where,
                  "\"conditioning_data_dir\" holds masks or control pictures, and it is not said "
                  "which",
                  "give `masks=files` for masks; for control pictures leave it out and give "
                  "`control_images`");
    d.masks = MaskSource::files;
    d.mask_images = subset.conditioning;
  }
  if (subset.is_reg) {
    d.class_folder = subset.images;
    d.class_prompt = std::exchange(d.prompt, "");
  } else {
    d.folder = subset.images;
  }
  return d;
}

/// The array of tables under a key, which must not be empty.
const Json& tables_in(const LocatedToml& file, const std::string& table, const Json& json,
                      const char* key, const char* header) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array() || found->empty())
    throw Error(ErrorCode::invalid_argument,
                file.place(found == json.end() ? table : table + "/" + key),
                std::string("there is no table ") + header,
                std::string("write ") + header + " above its keys");
  return *found;
}

/// Subsets with and without metadata_file do not mix in one of [[datasets]].
void check_kinds(const LocatedToml& file, const std::string& table, const Json& subsets) {
  const auto listed = [](const Json& subset) { return subset.contains("metadata_file"); };
  const auto count = std::ranges::count_if(subsets, listed);
  if (count != 0 && static_cast<std::size_t>(count) != subsets.size())
    throw Error(ErrorCode::invalid_argument, file.place(table),
                "some of the subsets have a \"metadata_file\" and some have none",
                "put them into two of [[datasets]]");
}

void take_batch_size(DatasetConfig& config, const KohyaSubset& subset, const std::string& where) {
  if (!subset.batch_size) return;
  if (config.batch_size.value_or(*subset.batch_size) != *subset.batch_size)
    throw Error(ErrorCode::unsupported, where,
                "\"batch_size\" is " + std::to_string(*subset.batch_size) + " here and " +
                    std::to_string(*config.batch_size) + " above: a run has one",
                "give all data sets the same");
  config.batch_size = subset.batch_size;
}

}  // namespace

DatasetConfig read_kohya_datasets(const fs::path& path, const Dataset& usual) {
  if (lower_extension(path) == ".json")
    throw Error(ErrorCode::unsupported, path.string(),
                "data sets are read from TOML; neither kohya's JSON nor OneTrainer's concepts are",
                "write a table [[datasets.subsets]] with its \"image_dir\" for each folder");
  const LocatedToml file = read_located_toml(path);
  for (const auto& [key, value] : file.json.items())
    if (key != "general" && key != "datasets") {
      const std::string near = nearest_name(key, std::vector<std::string>{"general", "datasets"});
      throw Error(
          ErrorCode::invalid_argument, file.place("/" + key),
          "there is no key \"" + key + "\" at the top of a dataset_config",
          near.empty() ? "it has [general] and [[datasets]]" : "did you mean \"" + near + "\"?");
    }
  KohyaSubset general;
  general.dataset.caption_extension = ".caption";
  general.dataset.subfolders = false;
  general.dataset.resolution = usual.resolution;
  general.dataset.buckets.rule = BucketRule::kohya;
  if (file.json.contains("general"))
    take_keys(general, file, "/general", file.json.at("general"), kGeneral);
  DatasetConfig config;
  const Json& datasets = tables_in(file, "", file.json, "datasets", "[[datasets]]");
  for (std::size_t i = 0; i < datasets.size(); ++i) {
    const std::string table = "/datasets/" + std::to_string(i);
    KohyaSubset dataset = general;
    take_keys(dataset, file, table, datasets[i], kDatasets);
    take_batch_size(config, dataset, file.place(table + "/batch_size"));
    const Json& subsets = tables_in(file, table, datasets[i], "subsets", "[[datasets.subsets]]");
    check_kinds(file, table, subsets);
    for (std::size_t n = 0; n < subsets.size(); ++n) {
      const std::string inside = table + "/subsets/" + std::to_string(n);
      KohyaSubset subset = dataset;
      take_keys(subset, file, inside, subsets[n], kSubsets);
      config.datasets.push_back(finished(std::move(subset), file.place(inside), usual));
    }
  }
  return config;
}

}  // namespace ringlet::data
