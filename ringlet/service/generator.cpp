#include "ringlet/service/generator.h"

#include <algorithm>
#include <random>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/pipeline/offload.h"
#include "ringlet/pipeline/picture_text.h"

namespace ringlet::service {
namespace {

namespace fs = std::filesystem;

/// Defined unless the path is empty.
at::Tensor read_latents(const fs::path& path) {
  if (path.empty()) return {};
  const auto tensors = io::load_tensors(path);
  const auto found = tensors.find("latents");
  if (found == tensors.end())
    throw Error(ErrorCode::bad_format, path.string(), "there is no tensor \"latents\" in the file");
  return found->second;
}

std::optional<io::Image> read_picture(const fs::path& path) {
  if (path.empty()) return std::nullopt;
  return io::read_image(path);
}

/// The signal in the picture's size: edges are found at the size that they are used in.
io::Image control_picture(const PictureRequest& request, const pipeline::GenerateRequest& checked) {
  io::Image given = io::resize_and_crop(*checked.control_image, checked.size);
  if (request.control == "canny") return data::canny_edges(given, request.canny);
  if (request.control == "segmentation")
    return data::draw_segmentation(data::segment_colours(given));
  return given;
}

std::unique_ptr<pipeline::TextToImageModel> open_model(const ModelRequest& request) {
  auto model = pipeline::open_text_to_image_model(request.model, request.load);
  for (const EmbeddingChoice& embedding : request.embeddings)
    for (const std::string& word : model->add_embeddings(embedding.file, embedding.word))
      log(LogLevel::info, "embedding " + embedding.file.string() + ": the word \"" + word + "\"");
  log(LogLevel::info, model->description().kind + " on " + request.load.device.str() + " in " +
                          nn::precision_name(request.load.precision));
  return model;
}

/// Where the seeds of all images start.
std::uint64_t first_seed(const PictureRequest& request) {
  return request.seed ? *request.seed : std::random_device{}();
}

/// A negative prompt that classifier-free guidance would need to be on for.
void warn_of_unused_negative(const pipeline::TextToImageModel& model,
                             const pipeline::GenerateRequest& request) {
  if (request.negative_prompt.value_or("").empty() ||
      pipeline::classifier_free_scale(model, request) > 1.0)
    return;
  const char* const option = model.guidance_is_distilled() ? "`true_guidance=4`" : "`guidance=7`";
  log(LogLevel::warning,
      std::string("the negative prompt has no effect, since classifier-free guidance is off: give "
                  "a scale above 1, for example ") +
          option);
}

}  // namespace

Generator::Generator(ModelRequest request)
    : options_(std::move(request)), model_(open_model(options_)) {
  hash_ = std::async(std::launch::async, [description = model_->description()] {
            return pipeline::model_hash(description);
          }).share();
  adapters_ = load_adapters(*model_, options_.adapters, options_.adapters.empty() ? "" : hash());
  encoder_ = with_control(adapters_);
  for (adapt::AdapterSet& adapter : adapters_.sets) adapter.attach();
}

const pipeline::ControlNetwork* Generator::control_for(const PictureRequest& request) const {
  if (request.control_image.empty()) {
    if (encoder_ != nullptr)
      log(LogLevel::warning, "the adapter was trained with control pictures: give `control_image`");
    return nullptr;
  }
  if (!control_) control_ = control_network(*model_, adapters_, options_.controlnet);
  if (options_.controlnet.empty() && encoder_ != nullptr)
    check_signal(learnt_signal(*encoder_), request.control);
  return control_.get();
}

/// What all batches share, checked: with all latents, so that a wrong shape is found before the
/// first picture is made.
pipeline::GenerateRequest Generator::first_request(const PictureRequest& r) const {
  pipeline::GenerateRequest request;
  request.prompt = r.prompts.front();
  request.negative_prompt = r.negative_prompt;
  request.size = {r.width, r.height};
  request.steps = r.steps;
  request.sampler = r.sampler;
  request.guidance = r.guidance;
  request.true_guidance = r.true_guidance;
  request.guidance_rescale = r.guidance_rescale;
  request.eta = r.eta;
  request.clip_skip = r.clip_skip;
  request.init_image = read_picture(r.init_image);
  request.mask_image = read_picture(r.mask_image);
  request.strength = r.strength.value_or(request.strength);
  request.control = control_for(r);
  request.control_image = read_picture(r.control_image);
  request.control_strength = r.control_strength.value_or(1.0);
  request.adapters = describe_adapters(options_.adapters);
  request.latents = read_latents(r.latents);
  if (request.latents.defined()) request.seeds.assign(static_cast<std::size_t>(r.images), 0);
  request = pipeline::checked(*model_, std::move(request));
  warn_of_unused_negative(*model_, request);
  if (request.control_image) request.control_image = control_picture(r, request);
  return request;
}

at::Tensor Generator::sample(const pipeline::GenerateRequest& request, std::size_t batch,
                             const PictureObserver& observer) const {
  const diffusion::SamplingSteps path = pipeline::sampling_steps(*model_, request);
  SamplingStep state{batch, 0, 0};
  return pipeline::sample(*model_, request, [&](const diffusion::SamplerStep& step) {
    if (state.total == 0) state.total = path.steps.size() - step.step + 1;  // image to image
    ++state.done;
    return !observer.step || observer.step(state);
  });
}

void Generator::generate_now(const PictureRequest& r, const BatchSink& sink,
                             const PictureObserver& observer) const {
  check(r);
  std::vector<std::string> texts = r.prompts;
  texts.push_back(r.negative_prompt.value_or(""));
  model_->check_embedding_words(texts);
  pipeline::GenerateRequest request = first_request(r);
  pipeline::offload_for(
      *model_, pipeline::generation_bytes(*model_, request.size, std::min(r.images, r.batch_size)));
  const at::Tensor latents = request.latents;
  const std::uint64_t seed = first_seed(r);
  std::size_t batch = 0;
  for (const std::string& prompt : r.prompts) {
    for (std::int64_t image = 0; image < r.images; image += r.batch_size) {
      const std::int64_t count = std::min(r.batch_size, r.images - image);
      request.prompt = prompt;
      request.seeds.clear();
      for (std::int64_t i = 0; i < count; ++i)
        request.seeds.push_back(seed + static_cast<std::uint64_t>(image + i));
      if (latents.defined()) request.latents = latents.narrow(0, image, count);
      sink(request, sample(request, batch++, observer));
    }
  }
}

void Generator::generate(const PictureRequest& request, const BatchSink& sink,
                         const PictureObserver& observer) const {
  const std::lock_guard guard(lock_);
  std::optional<ThreadLogSink> log_sink;
  if (observer.log) log_sink.emplace(observer.log);
  nn::with_ringlet_errors("generate", [&] { generate_now(request, sink, observer); });
}

std::vector<MadePicture> Generator::pictures(const PictureRequest& request,
                                             const PictureObserver& observer) const {
  std::vector<MadePicture> all;
  const auto keep = [&](const pipeline::GenerateRequest& batch, const at::Tensor& latents) {
    for (MadePicture& made : decode(batch, latents)) all.push_back(std::move(made));
  };
  generate(request, keep, observer);
  return all;
}

std::vector<MadePicture> Generator::decode(const pipeline::GenerateRequest& request,
                                           const at::Tensor& latents) const {
  std::vector<MadePicture> made;
  for (io::Image& image : pipeline::decode_images(*model_, latents)) {
    const std::uint64_t seed = request.seeds[made.size()];
    made.push_back({std::move(image), request.prompt, seed,
                    pipeline::generation_parameters(request, seed, model_->description(), hash())});
  }
  return made;
}

void check_files(const PictureRequest& request) {
  nn::with_ringlet_errors("generate", [&] {
    read_latents(request.latents);
    for (const fs::path& file : {request.init_image, request.mask_image, request.control_image})
      read_picture(file);
  });
}

}  // namespace ringlet::service
