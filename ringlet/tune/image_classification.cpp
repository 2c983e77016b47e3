// Pictures in a folder per class.
#include <algorithm>
#include <array>
#include <set>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/models/vision_transformer.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/labels.h"
#include "ringlet/tune/tasks.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

struct LabelledPicture {
  fs::path file;
  std::string label;
};

std::vector<LabelledPicture> read_class_folders(const fs::path& folder) {
  std::vector<LabelledPicture> examples;
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator(folder, problem))
    if (entry.is_directory() && !entry.path().filename().string().starts_with("."))
      for (const data::Picture& picture : data::read_picture_folder(entry.path()).pictures)
        examples.push_back({picture.path, entry.path().filename().string()});
  if (examples.empty())
    throw Error(ErrorCode::not_found, folder.string(), "there are no pictures to learn from",
                "image-classification wants a folder per class with pictures in it");
  std::ranges::sort(examples, {}, &LabelledPicture::file);
  return examples;
}

class ImageClassification final : public Task {
 public:
  explicit ImageClassification(const TaskOptions& options)
      : config_(read_config(options, "vit (google/vit-base-patch16-224)")),
        where_((options.model / "config.json").string()),
        examples_(read_split<LabelledPicture>(options, read_class_folders)),
        labels_(config_, classes(), where_),
        vision_(models::VisionConfig::from_json(config_, where_)),
        pictures_(eval::Preprocessing::read(options.model, eval::Preprocessing::usual(vision_))),
        device_(options.weights.device),
        processor_(folder_files(options.model, std::array{"preprocessor_config.json"})) {
    has_head_ = labels_.from_config() &&
                has_tensor(options, "classifier.weight", {labels_.count(), vision_.width});
    const nn::WeightSource source(open_weights(options, {"classifier."},
                                               has_head_ ? std::vector<std::string>{}
                                                         : std::vector<std::string>{"classifier."}),
                                  options.weights);
    network_of_pictures_.emplace(source, vision_, labels_.count());
    network_ = source.finish();
  }

  std::string description() const override {
    return "vit, " + std::to_string(labels_.count()) + " classes";
  }
  std::vector<std::string> usual_targets() const override { return {"model.vit.encoder.*"}; }
  std::vector<std::string> new_layers() const override {
    return has_head_ ? std::vector<std::string>{} : std::vector<std::string>{"classifier"};
  }
  std::size_t examples() const override { return examples_.train.size(); }
  std::size_t held_out() const override { return examples_.held_out.size(); }

  at::Tensor loss(std::span<const std::size_t> rows) const override {
    return at::cross_entropy_loss(scores(examples_.train, rows), targets(examples_.train, rows));
  }

  std::vector<Score> evaluate() const override {
    constexpr std::size_t kBatch = 64;
    double right = 0.0, loss = 0.0;
    const std::vector<LabelledPicture>& all = examples_.held_out;
    in_batches(all.size(), kBatch, [&](const std::vector<std::size_t>& rows) {
      const at::Tensor said = scores(all, rows), wanted = targets(all, rows);
      right += said.argmax(1).eq(wanted).sum().item<double>();
      loss +=
          at::cross_entropy_loss(said, wanted).item<double>() * static_cast<double>(rows.size());
    });
    const auto count = static_cast<double>(all.size());
    return {{"accuracy", true, right / count}, {"loss", false, loss / count}};
  }

  std::map<std::string, std::string> model_files() const override {
    std::map<std::string, std::string> files = processor_;
    files["config.json"] = labels_.written_into(config_).dump(2) + "\n";
    return files;
  }

 private:
  std::set<std::string> classes() const {
    std::set<std::string> names;
    for (const LabelledPicture& example : examples_.train) names.insert(example.label);
    return names;
  }
  at::Tensor scores(const std::vector<LabelledPicture>& all,
                    std::span<const std::size_t> rows) const {
    std::vector<fs::path> files;
    for (const std::size_t row : rows) files.push_back(all[row].file);
    return network_of_pictures_->forward(pictures_.batch(files, device_));
  }
  at::Tensor targets(const std::vector<LabelledPicture>& all,
                     std::span<const std::size_t> rows) const {
    std::vector<std::int64_t> numbers;
    for (const std::size_t row : rows)
      numbers.push_back(labels_.index(all[row].label, all[row].file.string()));
    return at::tensor(numbers, at::kLong).to(device_);
  }

  Json config_;
  std::string where_;
  Split<LabelledPicture> examples_;
  Labels labels_;
  models::VisionConfig vision_;
  PreparedPictures pictures_;
  at::Device device_;
  std::map<std::string, std::string> processor_;
  bool has_head_ = false;
  std::optional<models::VisionClassifier> network_of_pictures_;
};

}  // namespace

std::unique_ptr<Task> image_classification(const TaskOptions& options) {
  return std::make_unique<ImageClassification>(options);
}

}  // namespace ringlet::tune
