// Pictures and their captions, by CLIP: each finds the other among those of a batch (Radford et al.
// 2021).
#include <algorithm>
#include <array>

#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/models/vision/clip.h"
#include "ringlet/nn/device.h"
#include "ringlet/tokenizers/clip_tokenizer.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/tasks.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

std::vector<data::Picture> read_captioned(const fs::path& folder) {
  std::vector<data::Picture> pictures = data::read_pictures(folder);
  for (const data::Picture& picture : pictures)
    if (picture.caption.empty())
      throw Error(ErrorCode::not_found, picture.path.string(), "the picture has no caption",
                  "write it into " + picture.path.stem().string() + ".txt");
  return pictures;
}

class Contrastive final : public ExampleTask {
 public:
  Contrastive(const TaskOptions& options, const train::RunOptions& run)
      : ExampleTask(options, run),
        config_(read_config(options, "clip (openai/clip-vit-base-patch32)")),
        where_((options.model / "config.json").string()),
        examples_(read_split<data::Picture>(options, read_captioned)),
        tokenizer_(tokenizers::ClipTokenizer::open(options.model)),
        vision_config_(models::VisionConfig::from_json(config_, where_)),
        pictures_(
            eval::Preprocessing::read(options.model, eval::Preprocessing::usual(vision_config_))),
        device_(options.weights.device),
        files_(folder_files(
            options.model,
            std::array{"config.json", "preprocessor_config.json", "vocab.json", "merges.txt",
                       "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"})) {
    if (vision_config_.kind != models::VisionConfig::Kind::clip || !config_.contains("text_config"))
      throw Error(ErrorCode::unsupported, where_, "the network does not read texts",
                  "contrastive learning needs a CLIP folder with both encoders");
    FolderWeights weights(options, "clip", config_);
    const nn::WeightSource source(weights.store(), options.weights);
    clip_.emplace(source, vision_config_, models::ClipTextConfig::from_clip_json(config_, where_));
    network_ = weights.layout().in_class(source.finish());
    warn_of_cut_captions();
  }

  std::string description() const override { return "clip"; }
  std::vector<std::string> usual_targets() const override {
    return {"model.text_model.encoder.*", "model.vision_model.encoder.*"};
  }
  std::size_t examples() const override { return examples_.train.size(); }
  std::size_t held_out() const override { return examples_.held_out.size(); }
  std::vector<fs::path> pictures() const override {
    std::vector<fs::path> files = data::paths_of(examples_.train);
    for (const data::Picture& picture : examples_.held_out) files.push_back(picture.path);
    return files;
  }

  at::Tensor loss_of(std::span<const std::size_t> rows) const override {
    return clip_->loss(pixels(examples_.train, rows), ids(examples_.train, rows));
  }

  /// Every picture is compared with all texts of its batch.
  bool is_mean() const override { return false; }

  /// Pictures with one caption count as one: any of them is a hit.
  std::vector<Score> evaluate() const override {
    constexpr std::size_t kBatch = 64;
    const std::vector<data::Picture>& all = examples_.held_out;
    std::vector<at::Tensor> pictures, texts;
    in_batches(all.size(), at_a_time(kBatch), [&](const std::vector<std::size_t>& rows) {
      pictures.push_back(clip_->pictures(pixels(all, rows)));
      texts.push_back(clip_->texts(ids(all, rows)));
    });
    const at::Tensor scores = at::matmul(at::cat(texts), at::cat(pictures).t()).to(at::kCPU);
    return {{"text to picture recall@1", true, recall(scores, 1)},
            {"text to picture recall@5", true, recall(scores, 5)},
            {"picture to text recall@1", true, recall(scores.t(), 1)},
            {"picture to text recall@5", true, recall(scores.t(), 5)}};
  }

  std::map<std::string, std::string> model_files() const override { return files_; }

 private:
  void warn_of_cut_captions() const {
    std::vector<std::string> cut;
    for (const auto* part : {&examples_.train, &examples_.held_out})
      for (const data::Picture& picture : *part)
        if (!tokenizer_.encode_prompt(picture.caption, clip_->text_length()).cut.empty())
          cut.push_back(picture.caption_file.empty() ? picture.path.parent_path().string()
                                                     : picture.caption_file.string());
    if (cut.empty()) return;
    log(LogLevel::warning,
        std::to_string(cut.size()) + " captions are too long for the network's " +
            std::to_string(clip_->text_length()) + " tokens, and cut; the first is " + cut.front());
  }

  at::Tensor pixels(const std::vector<data::Picture>& all,
                    std::span<const std::size_t> rows) const {
    std::vector<fs::path> files;
    for (const std::size_t row : rows) files.push_back(all[row].path);
    return pictures_.batch(files, device_);
  }

  at::Tensor ids(const std::vector<data::Picture>& all, std::span<const std::size_t> rows) const {
    std::vector<at::Tensor> texts;
    for (const std::size_t row : rows)
      texts.push_back(at::tensor(
          tokenizer_.encode_prompt(all[row].caption, clip_->text_length()).ids, at::kLong));
    return nn::to_device(at::stack(texts), device_);
  }

  /// Share of rows of which one of the best `k` columns has the same caption.
  double recall(const at::Tensor& scores, std::int64_t k) const {
    const std::vector<data::Picture>& all = examples_.held_out;
    const at::Tensor best = std::get<1>(scores.topk(std::min(k, scores.size(1)), 1));
    double hits = 0.0;
    for (std::size_t row = 0; row < all.size(); ++row) {
      bool hit = false;
      for (std::int64_t i = 0; i < best.size(1); ++i) {
        const auto column = best[static_cast<std::int64_t>(row)][i].item<std::int64_t>();
        hit = hit || all[static_cast<std::size_t>(column)].caption == all[row].caption;
      }
      hits += hit ? 1.0 : 0.0;
    }
    return hits / static_cast<double>(all.size());
  }

  Json config_;
  std::string where_;
  Split<data::Picture> examples_;
  tokenizers::ClipTokenizer tokenizer_;
  models::VisionConfig vision_config_;
  PreparedPictures pictures_;
  at::Device device_;
  std::map<std::string, std::string> files_;
  std::optional<models::Clip> clip_;
};

}  // namespace

std::unique_ptr<train::Task> contrastive(const TaskOptions& options, const train::RunOptions& run) {
  return std::make_unique<Contrastive>(options, run);
}

}  // namespace ringlet::tune
