// Pictures in a folder per class.
#include <algorithm>
#include <array>
#include <functional>
#include <set>

#include "ringlet/core/error.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/models/resnet.h"
#include "ringlet/models/vision_transformer.h"
#include "ringlet/tune/classification.h"
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

/// A network of pictures: ViT or ResNet.
struct PictureNetwork {
  std::string kind;
  std::string head;           ///< the layer that gives the classes' scores
  std::int64_t features = 0;  ///< that it reads
  std::vector<std::string> targets;
  eval::Preprocessing preprocessing;
  /// Builds the network and gives its forward pass.
  std::function<std::function<at::Tensor(const at::Tensor&)>(const nn::WeightSource&,
                                                             std::int64_t classes)>
      build;
};

PictureNetwork vision_transformer(const Json& config, const std::string& where) {
  const auto vision = models::VisionConfig::from_json(config, where);
  return {"vit",
          "classifier",
          vision.width,
          {"model.vit.encoder.*"},
          eval::Preprocessing::usual(vision),
          [vision](const nn::WeightSource& source, std::int64_t classes) {
            auto network = std::make_shared<models::VisionClassifier>(source, vision, classes);
            return [network](const at::Tensor& pixels) { return network->forward(pixels); };
          }};
}

/// torchvision's preparation: the shorter side to 8/7 of the trained size, its middle, ImageNet's
/// mean and deviation. Small pictures are taken whole.
PictureNetwork resnet(const Json& config, const std::string& where, const TaskOptions& options) {
  // torchvision has no configurations: the tensors say which ResNet they are of.
  const bool said = config.contains("architecture") || config.contains("blocks");
  const auto residual = said ? models::ResNetConfig::from_json(config, where)
                             : models::ResNetConfig::deduce(*open_weights(options, {}));
  eval::Preprocessing how;
  how.bicubic = false;
  how.mean = {0.485, 0.456, 0.406};
  how.deviation = {0.229, 0.224, 0.225};
  how.crop = residual.image_size;
  how.shortest = residual.small_pictures ? residual.image_size : residual.image_size * 8 / 7;
  return {"resnet",
          "fc",
          residual.features(),
          {"model.layer*"},
          how,
          [residual](const nn::WeightSource& source, std::int64_t classes) {
            auto network = std::make_shared<models::ResNet>(source, residual, classes);
            return [network](const at::Tensor& pixels) { return network->forward(pixels); };
          }};
}

PictureNetwork picture_network(const Json& config, const std::string& where,
                               const TaskOptions& options) {
  return json_value<std::string>(config, "model_type", "", where) == "resnet"
             ? resnet(config, where, options)
             : vision_transformer(config, where);
}

class ImageClassification final : public Classification {
 public:
  explicit ImageClassification(const TaskOptions& options)
      : config_(read_config(options, "vit (google/vit-base-patch16-224), resnet")),
        where_((options.model / "config.json").string()),
        kind_(picture_network(config_, where_, options)),
        examples_(read_split<LabelledPicture>(options, read_class_folders)),
        labels_(config_, names_of_classes(), where_),
        pictures_(eval::Preprocessing::read(options.model, kind_.preprocessing)),
        device_(options.weights.device),
        processor_(folder_files(options.model, std::array{"preprocessor_config.json"})) {
    const std::string head = kind_.head + ".";
    has_head_ = labels_.from_config() &&
                has_tensor(options, head + "weight", {labels_.count(), kind_.features});
    const nn::WeightSource source(
        open_weights(options, {head},
                     has_head_ ? std::vector<std::string>{} : std::vector<std::string>{head}),
        options.weights);
    forward_ = kind_.build(source, labels_.count());
    network_ = source.finish();
  }

  std::string description() const override {
    return kind_.kind + ", " + std::to_string(labels_.count()) + " classes";
  }
  std::vector<std::string> usual_targets() const override { return kind_.targets; }
  std::vector<std::string> new_layers() const override {
    return has_head_ ? std::vector<std::string>{} : std::vector{kind_.head};
  }
  std::size_t examples() const override { return examples_.train.size(); }
  std::size_t held_out() const override { return examples_.held_out.size(); }

  std::map<std::string, std::string> model_files() const override {
    std::map<std::string, std::string> files = processor_;
    files["config.json"] = labels_.written_into(config_).dump(2) + "\n";
    return files;
  }

 private:
  std::set<std::string> names_of_classes() const {
    std::set<std::string> names;
    for (const LabelledPicture& example : examples_.train) names.insert(example.label);
    return names;
  }
  at::Tensor scores(Part part, std::span<const std::size_t> rows) const override {
    const std::vector<LabelledPicture>& all = of(part);
    std::vector<fs::path> files;
    for (const std::size_t row : rows) files.push_back(all[row].file);
    return forward_(pictures_.batch(files, device_));
  }
  std::vector<std::int64_t> classes(Part part, std::span<const std::size_t> rows) const override {
    const std::vector<LabelledPicture>& all = of(part);
    std::vector<std::int64_t> numbers;
    for (const std::size_t row : rows)
      numbers.push_back(labels_.index(all[row].label, all[row].file.string()));
    return numbers;
  }
  const std::vector<LabelledPicture>& of(Part part) const {
    return part == Part::train ? examples_.train : examples_.held_out;
  }

  Json config_;
  std::string where_;
  PictureNetwork kind_;
  Split<LabelledPicture> examples_;
  Labels labels_;
  PreparedPictures pictures_;
  at::Device device_;
  std::map<std::string, std::string> processor_;
  bool has_head_ = false;
  std::function<at::Tensor(const at::Tensor&)> forward_;
};

}  // namespace

std::unique_ptr<Task> image_classification(const TaskOptions& options) {
  return std::make_unique<ImageClassification>(options);
}

}  // namespace ringlet::tune
