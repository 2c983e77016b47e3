#include "ringlet/service/evaluation_pictures.h"

#include <cstdio>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/data/crop.h"
#include "ringlet/eval/evaluation.h"
#include "ringlet/eval/feature_network.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/device.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/pipeline/picture_text.h"

namespace ringlet::service {
namespace {

namespace fs = std::filesystem;

std::string identity_of(const std::vector<pipeline::AdapterChoice>& adapters) {
  std::vector<std::string> words;
  for (const pipeline::AdapterChoice& adapter : adapters)
    words.push_back(file_identity(adapter.file) + ":" + exact_number(adapter.strength));
  return words.empty() ? "none" : join(words);
}

std::string name_of(std::size_t prompt) {
  char name[32];
  std::snprintf(name, sizeof name, "p%02zu", prompt);
  return name;
}

void tell(const MakingObserver& observer, std::size_t done, std::size_t total) {
  if (observer.progress) observer.progress(done, total);
}

}  // namespace

std::string file_identity(const fs::path& path) {
  const std::string name = eval::folder_name(path);
  if (!fs::is_directory(path)) return eval::network_identity(name, path);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".safetensors" || extension == ".json") files.push_back(entry.path());
  }
  return name + " (" + eval::hash_of_files(std::move(files)) + ")";
}

void describe(OptionList& list, EvaluationPictures& o, const std::string& of) {
  list.add("model", o.model, "Model that generates the pictures");
  pipeline::describe(list, o.load.files);
  pipeline::describe_prediction(list, o.load.files);
  list.add("samples", o.samples, "Pictures to make " + of).within(Range::at_least(1));
  list.add("steps", o.steps, "Sampling steps");
  diffusion::describe(list, o.sampler);
  list.add("guidance", o.guidance, "Guidance scale").or_else("the model's own");
  list.add("clip_skip", o.clip_skip, "Text encoder layer to use, counted from the end (1 = last)");
  list.add("seed", o.seed, "Seed of the first sample; the next has seed + 1");
}

std::vector<std::pair<std::string, std::string>> settings_of(const EvaluationPictures& pictures,
                                                             const eval::GenerationRecord& record) {
  std::vector<std::string> adapters;
  for (const pipeline::AdapterChoice& adapter : pictures.adapters)
    adapters.push_back(adapter.file.string() +
                       (adapter.strength == 1.0 ? "" : ":" + exact_number(adapter.strength)));
  auto settings = record.summary();
  settings.insert(settings.end(), {{"model path", pictures.model.string()},
                                   {"adapter paths", join(adapters)},
                                   {"samples", std::to_string(pictures.samples)},
                                   {"first seed", std::to_string(pictures.seed)}});
  return settings;
}

EvaluationModel::EvaluationModel(EvaluationPictures pictures)
    : pictures_(std::move(pictures)),
      model_(pipeline::open_text_to_image_model(pictures_.model, pictures_.load)),
      hash_(pipeline::model_hash(model_->description())),
      adapters_(load_adapters(*model_, pictures_.adapters, "")) {
  for (adapt::AdapterSet& adapter : adapters_.sets) adapter.attach();
}

pipeline::GenerateRequest EvaluationModel::request() const {
  pipeline::GenerateRequest request;
  request.steps = pictures_.steps;
  request.sampler = pictures_.sampler;
  request.guidance = pictures_.guidance;
  request.clip_skip = pictures_.clip_skip;
  return request;
}

eval::GenerationRecord EvaluationModel::record(const pipeline::GenerateRequest& request) const {
  eval::GenerationRecord record;
  record.settings = {{"model", model_->description().name + " (" + short_hash(hash_) + ")"},
                     {"adapters", identity_of(pictures_.adapters)},
                     {"steps", std::to_string(*request.steps)},
                     {"guidance", exact_number(*request.guidance)},
                     {"sampler", request.sampler.name()},
                     {"size", request.size.text()},
                     {"precision", nn::precision_name(model_->options().precision)},
                     {"clip skip", std::to_string(request.clip_skip)}};
  if (const auto prediction = model_->options().files.prediction)
    record.settings.emplace_back("prediction",
                                 *prediction == diffusion::Prediction::v ? "v" : "epsilon");
  if (model_->options().files.zero_terminal_snr)
    record.settings.emplace_back("zero terminal SNR", "yes");
  if (request.sampler.spacing)
    record.settings.emplace_back("spacing", diffusion::spacing_name(*request.sampler.spacing));
  if (!pictures_.adapters.empty() && !pictures_.adapters.front().blocks.empty()) {
    std::vector<std::string> words;
    for (const auto& [pattern, strength] : pictures_.adapters.front().blocks)
      words.push_back(pattern + "=" + exact_number(strength));
    record.settings.emplace_back("block strengths", join(words));
  }
  return record;
}

fs::path EvaluationModel::file_of(const std::string& name, std::uint64_t seed) const {
  return pictures_.folder / (name + "-s" + std::to_string(seed) + ".png");
}

std::vector<std::uint64_t> EvaluationModel::missing_seeds(const std::string& name) const {
  std::vector<std::uint64_t> seeds;
  const std::uint64_t end = pictures_.seed + static_cast<std::uint64_t>(pictures_.samples);
  for (std::uint64_t seed = pictures_.seed; seed < end; ++seed)
    if (!fs::exists(file_of(name, seed))) seeds.push_back(seed);
  return seeds;
}

SubjectGeneration::SubjectGeneration(EvaluationPictures pictures, std::vector<std::string> prompts)
    : model_(std::move(pictures)),
      prompts_(std::move(prompts)),
      request_(pipeline::checked(model_.model(), model_.request())),
      record_(model_.record(request_)) {
  for (std::size_t p = 0; p < prompts_.size(); ++p)
    record_.prompts.emplace_back(name_of(p), prompts_[p]);
}

std::vector<fs::path> SubjectGeneration::run(const MakingObserver& observer) const {
  const EvaluationPictures& pictures = model_.pictures();
  eval::claim_folder(pictures.folder, record_);
  tell(observer, 0, prompts_.size());
  std::vector<fs::path> files;
  for (std::size_t p = 0; p < prompts_.size(); ++p) {
    make(p, observer);
    for (std::int64_t i = 0; i < pictures.samples; ++i)
      files.push_back(model_.file_of(name_of(p), pictures.seed + static_cast<std::uint64_t>(i)));
    tell(observer, p + 1, prompts_.size());
  }
  return files;
}

void SubjectGeneration::make(std::size_t prompt, const MakingObserver& observer) const {
  pipeline::GenerateRequest request = request_;
  request.prompt = prompts_[prompt];
  request.seeds = model_.missing_seeds(name_of(prompt));
  if (request.seeds.empty()) return;
  const pipeline::TextToImageModel& model = model_.model();
  const std::vector<io::Image> made =
      pipeline::decode_images(model, pipeline::sample(model, request, observer.step));
  for (std::size_t i = 0; i < made.size(); ++i)
    io::write_png(
        model_.file_of(name_of(prompt), request.seeds[i]), made[i],
        {{"parameters", pipeline::generation_parameters(request, request.seeds[i],
                                                        model.description(), model_.hash())}});
}

ControlGeneration::ControlGeneration(EvaluationPictures pictures, ControlPictures control)
    : control_(std::move(control)),
      references_(data::read_pictures(control_.reference)),
      model_(std::move(pictures)) {
  check_references();
  network_ = control_network(model_.model(), model_.adapters(), control_.controlnet);
  if (!network_)
    throw Error(ErrorCode::invalid_argument, Field("adapter"),
                "none of the adapters holds a control encoder",
                "give one that was trained with `control`, or `controlnet=FOLDER`");
  if (control_.controlnet.empty())
    check_signal(learnt_signal(*with_control(model_.adapters())),
                 data::name_of(control_.signal.signal));
  request_ = checked_request();
  record_ = model_.record(request_);
  add_signals();
  for (const data::Picture& picture : references_)
    record_.prompts.emplace_back(picture.path.stem().string(), prompt_of(picture));
}

std::vector<eval::ControlPair> ControlGeneration::pairs() const {
  const EvaluationPictures& pictures = model_.pictures();
  std::vector<eval::ControlPair> pairs;
  for (const data::Picture& picture : references_)
    for (std::int64_t i = 0; i < pictures.samples; ++i) {
      const std::string name = picture.path.stem().string();
      const fs::path file = model_.file_of(name, pictures.seed + static_cast<std::uint64_t>(i));
      pairs.push_back({file.stem().string(), name, picture.path, file});
    }
  return pairs;
}

void ControlGeneration::run(const MakingObserver& observer) const {
  eval::claim_folder(model_.pictures().folder, record_);
  std::size_t done = 0;
  tell(observer, done, references_.size());
  for (const data::Picture& picture : references_) {
    make(picture, observer);
    tell(observer, ++done, references_.size());
  }
}

std::string ControlGeneration::prompt_of(const data::Picture& picture) const {
  if (picture.caption.empty() && control_.prompt.empty())
    throw Error(ErrorCode::invalid_argument, picture.path.string(), "the picture has no caption",
                "write it into a .txt file beside it, or give `prompt`");
  return picture.caption.empty() ? control_.prompt : picture.caption;
}

/// Pictures are called after their references, which may lie in several folders.
void ControlGeneration::check_references() const {
  data::check_signal_folder(control_.signal, Field("control_images"));
  data::check_picture_names(data::paths_of(references_));
}

pipeline::GenerateRequest ControlGeneration::checked_request() const {
  pipeline::GenerateRequest request = model_.request();
  request.size = PictureSize::square(control_.size);
  request.control = &*network_;
  request.control_strength = control_.strength;
  request.control_image = io::read_image(references_.front().path);
  return pipeline::checked(model_.model(), request);
}

/// What the pictures follow, and how.
void ControlGeneration::add_signals() {
  const std::vector<fs::path> references = data::paths_of(references_);
  const std::vector<fs::path> given = data::control_files(control_.signal, references);
  auto& settings = record_.settings;
  if (!control_.controlnet.empty())
    settings.emplace_back("controlnet", file_identity(control_.controlnet));
  settings.emplace_back("signal", data::name_of(control_.signal.signal));
  const data::CannyThresholds& canny = control_.signal.canny;
  if (control_.signal.signal == data::ControlSignal::canny && given.empty())
    settings.emplace_back("canny thresholds",
                          exact_number(canny.low) + ", " + exact_number(canny.high));
  settings.emplace_back("control strength", exact_number(control_.strength));
  settings.emplace_back("references", eval::hash_of_files(references));
  if (!given.empty()) settings.emplace_back("control images", eval::hash_of_files(given));
}

void ControlGeneration::make(const data::Picture& picture, const MakingObserver& observer) const {
  const std::string name = picture.path.stem().string();
  pipeline::GenerateRequest request = request_;
  request.seeds = model_.missing_seeds(name);
  if (request.seeds.empty()) return;
  request.prompt = prompt_of(picture);
  const io::Image image = io::read_image(picture.path);
  request.control_image = data::control_picture(control_.signal, picture.path, image,
                                                data::covering_crop(image, request.size));
  const pipeline::TextToImageModel& model = model_.model();
  const std::vector<io::Image> made =
      pipeline::decode_images(model, pipeline::sample(model, request, observer.step));
  for (std::size_t i = 0; i < made.size(); ++i)
    io::write_png(model_.file_of(name, request.seeds[i]), made[i]);
}

}  // namespace ringlet::service
