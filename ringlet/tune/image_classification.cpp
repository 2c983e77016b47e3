// Pictures in a folder per class.
#include <algorithm>
#include <array>
#include <functional>

#include "ringlet/core/error.h"
#include "ringlet/data/picture_folder.h"
#include "ringlet/models/vision/resnet.h"
#include "ringlet/models/vision/vision_transformer.h"
#include "ringlet/tune/classification.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/tasks.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

struct LabelledPicture : Labelled {
  fs::path file;
};

std::vector<LabelledPicture> read_class_folders(const fs::path& folder) {
  std::vector<LabelledPicture> examples;
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator(folder, problem))
    if (entry.is_directory() && !data::is_of_other_program(entry.path()))
      for (const data::Picture& picture :
           data::read_pictures(entry.path(), {.captions = data::Captions::ignored}))
        examples.push_back(
            {{entry.path().filename().string(), picture.path.string()}, picture.path});
  if (examples.empty())
    throw Error(ErrorCode::not_found, folder.string(), "there are no training pictures",
                "image-classification needs one folder of pictures per class");
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

/// What timm's configurations say of pictures, in "pretrained_cfg".
eval::Preprocessing timm_preprocessing(const Json& config, eval::Preprocessing how,
                                       const std::string& where) {
  const Json part = json_value(config, "pretrained_cfg", Json(), where);
  if (!part.is_object()) return how;
  const auto size =
      json_value(part, "input_size", std::vector<std::int64_t>{3, how.crop, how.crop}, where);
  const double share = json_value(part, "crop_pct", 0.875, where);
  if (size.size() != 3 || size[1] < 1 || size[1] != size[2] || !(share > 0.0) || share > 1.0)
    throw Error(ErrorCode::unsupported, where, "pretrained_cfg: input_size is not square",
                "ringlet prepares square pictures");
  how.crop = size[1];
  how.shortest = static_cast<std::int64_t>(static_cast<double>(how.crop) / share);
  how.bicubic = json_value<std::string>(part, "interpolation", "bilinear", where) == "bicubic";
  how.mean = json_value(part, "mean", how.mean, where);
  how.deviation = json_value(part, "std", how.deviation, where);
  return how;
}

/// torchvision's preparation: the shorter side to 8/7 of the trained size, its middle, ImageNet's
/// mean and deviation. Small pictures are taken whole.
eval::Preprocessing usual_for(const models::ResNetConfig& residual) {
  eval::Preprocessing how;
  how.bicubic = false;
  how.mean = {0.485, 0.456, 0.406};
  how.deviation = {0.229, 0.224, 0.225};
  how.crop = residual.image_size;
  how.shortest = residual.small_pictures ? residual.image_size : residual.image_size * 8 / 7;
  return how;
}

PictureNetwork resnet(const Json& config, const std::string& where, FolderWeights& weights) {
  // torchvision has no configurations: the tensors say which ResNet they are of.
  const bool said = config.contains("architecture") || config.contains("blocks") ||
                    config.contains("hidden_sizes");
  const auto residual = said ? models::ResNetConfig::from_json(config, where)
                             : models::ResNetConfig::deduce(*weights.store());
  return {"resnet",
          "fc",
          residual.features(),
          {weights.layout().layer_name("layer1.0.conv1").starts_with("layer")
               ? "model.layer*"
               : "model.resnet.encoder.*"},
          timm_preprocessing(config, usual_for(residual), where),
          [residual](const nn::WeightSource& source, std::int64_t classes) {
            auto network = std::make_shared<models::ResNet>(source, residual, classes);
            return [network](const at::Tensor& pixels) { return network->forward(pixels); };
          }};
}

PictureNetwork picture_network(const Json& config, const std::string& where,
                               FolderWeights& weights) {
  return models::network_type(config) == "resnet" ? resnet(config, where, weights)
                                                  : vision_transformer(config, where);
}

class ImageClassification final : public Classification<LabelledPicture> {
 public:
  ImageClassification(const TaskOptions& options, const train::RunOptions& run)
      : Classification(options, run, "vit (google/vit-base-patch16-224), resnet",
                       read_class_folders, std::array{"preprocessor_config.json"}),
        weights_(options, models::network_type(config_), config_),
        kind_(picture_network(config_, where_, weights_)),
        pictures_(eval::Preprocessing::read(options.model, kind_.preprocessing)) {
    const std::string head = kind_.head + ".";
    has_head_ =
        labels_.from_config() && weights_.has(head + "weight", {labels_.count(), kind_.features});
    const nn::WeightSource source(
        weights_.store({head},
                       has_head_ ? std::vector<std::string>{} : std::vector<std::string>{head}),
        options.weights);
    forward_ = kind_.build(source, labels_.count());
    network_ = weights_.layout().in_class(source.finish());
    made_layers_ = weights_.made_layers();
    if (kind_.kind == "vit") set_class("vit", "ViTForImageClassification");
    if (config_.contains("hidden_sizes")) set_class("resnet", "ResNetForImageClassification");
  }

  std::string description() const override {
    return kind_.kind + ", " + std::to_string(labels_.count()) + " classes";
  }
  std::vector<std::string> usual_targets() const override { return kind_.targets; }
  std::vector<std::string> heads() const override {
    return has_head_ ? std::vector<std::string>{}
                     : std::vector{weights_.layout().layer_name(kind_.head)};
  }
  std::vector<fs::path> pictures() const override {
    std::vector<fs::path> files;
    for (const auto* part : {&examples_.train, &examples_.held_out})
      for (const LabelledPicture& one : *part) files.push_back(one.file);
    return files;
  }

 private:
  at::Tensor scores(const std::vector<const LabelledPicture*>& examples) const override {
    std::vector<fs::path> files;
    for (const LabelledPicture* one : examples) files.push_back(one->file);
    return forward_(pictures_.batch(files, device_));
  }

  FolderWeights weights_;
  PictureNetwork kind_;
  PreparedPictures pictures_;
  bool has_head_ = false;
  std::function<at::Tensor(const at::Tensor&)> forward_;
};

}  // namespace

std::unique_ptr<train::Task> image_classification(const TaskOptions& options,
                                                  const train::RunOptions& run) {
  return std::make_unique<ImageClassification>(options, run);
}

}  // namespace ringlet::tune
