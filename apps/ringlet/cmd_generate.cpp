#include <chrono>
#include <future>
#include <random>

#include <nlohmann/json.hpp>

#include "adapter_options.h"
#include "canny_options.h"
#include "options.h"
#include "picture_output.h"
#include "ringlet/core/log.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/text.h"
#include "ringlet/data/control_signal.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/picture_text.h"
#include "ringlet/pipeline/stable_diffusion.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

struct GenerateOptions {
  CommonOptions common;
  ModelOptions files;
  std::string model;
  std::vector<std::string> prompts;
  std::string prompts_file;
  std::optional<std::string> negative_prompt;
  std::int64_t steps = 30;
  SamplerOptions sampler;
  std::optional<double> guidance;
  double guidance_rescale = 0.0;
  double eta = 0.0;
  std::optional<std::uint64_t> seed;
  std::int64_t images = 1;
  std::int64_t batch_size = 1;
  std::int64_t width = 0, height = 0;
  std::int64_t clip_skip = 1;
  std::string init_image, mask_image, latents;
  std::optional<double> strength;
  std::string out = "pictures";
  std::string output_type = "png";
  bool grid = false;
  bool low_memory = false;
  AdapterOptions adapters;
  std::vector<std::string> embeddings;
  std::string control_image, control, controlnet;
  std::optional<double> control_strength;
  data::CannyThresholds canny;
};

void add_model_options(CLI::App& app, GenerateOptions& o) {
  app.add_option("--model", o.model, "Model folder (diffusers) or single .safetensors checkpoint")
      ->required();
  o.adapters.add_to(app);
  repeatable(app.add_option("--embedding", o.embeddings,
                            "Textual-inversion file, :word where its own name is not wanted; "
                            "may be given several times"));
  o.files.add_files(app);
  o.files.add_prediction(app);
  app.add_flag("--low-memory", o.low_memory,
               "Keep 16-bit weights as stored and code large images in tiles; slower");
}

void add_picture_options(CLI::App& app, GenerateOptions& o) {
  repeatable(app.add_option("--prompt", o.prompts, "What to show; may be given several times"));
  app.add_option("--prompts", o.prompts_file, "Text file with one prompt a line");
  app.add_option("--negative-prompt", o.negative_prompt, "What not to show");
  app.add_option("--steps", o.steps, "Sampling steps")->capture_default_str();
  o.sampler.add_to(app);
  app.add_option("--guidance", o.guidance,
                 "Classifier-free guidance scale; 1 = off [7.5, or 5 for SDXL]");
  app.add_option("--guidance-rescale", o.guidance_rescale,
                 "Share of guidance brought back to the prompt's contrast, 0 to 1")
      ->capture_default_str();
  app.add_option("--eta", o.eta, "Randomness of ddim, 0 to 1")->capture_default_str();
  app.add_option("--seed", o.seed, "Seed of the first image; the next has seed + 1 [random]")
      ->transform(whole_number());
  app.add_option("--images", o.images, "Images per prompt")->capture_default_str();
  app.add_option("--batch-size", o.batch_size, "Images computed at a time; changes none of them")
      ->capture_default_str();
  app.add_option("--width", o.width, "Pixels [the model's own]");
  app.add_option("--height", o.height, "Pixels [the model's own]");
  add_clip_skip(app, o.clip_skip);
}

void add_start_and_output_options(CLI::App& app, GenerateOptions& o) {
  app.add_option("--init-image", o.init_image, "Picture to start from (image to image)");
  app.add_option("--strength", o.strength, "How much of it is made anew, 0 to 1 [0.8]");
  app.add_option("--mask-image", o.mask_image,
                 "Inpainting models: white parts of --init-image are painted anew");
  app.add_option("--control-image", o.control_image,
                 "Edges, map or landmarks that the picture is to follow, for an adapter that was "
                 "trained with --control, or for --controlnet");
  app.add_option("--control", o.control,
                 "canny or segmentation: --control-image is a plain picture, from which the signal "
                 "is made [it is the signal]");
  add_canny(app, o.canny);
  app.add_option("--controlnet", o.controlnet,
                 "ControlNet folder (diffusers) that sees --control-image");
  app.add_option("--control-strength", o.control_strength, "Of --control-image, 0 to 2 [1]");
  app.add_option("--latents", o.latents,
                 "Start noise: a safetensors file with \"latents\" [images, 4, h/8, w/8]");
  app.add_option("--out", o.out, "File (one image), or folder")->capture_default_str();
  app.add_option("--output-type", o.output_type, "png, or latent (a safetensors file)")
      ->capture_default_str();
  app.add_flag("--grid", o.grid, "Also put all images into one");
}

std::vector<std::string> read_prompts(const GenerateOptions& o) {
  std::vector<std::string> prompts;
  for (const std::string& prompt : o.prompts)  // perhaps "$(cat FILE)"
    prompts.push_back(without_byte_order_mark(prompt));
  if (!o.prompts_file.empty()) {
    for (std::string& line : read_lines(o.prompts_file)) prompts.push_back(std::move(line));
  }
  if (prompts.empty())
    throw Error(ErrorCode::invalid_argument, "--prompt", "a prompt is needed",
                "for example --prompt \"a photo of a cat\"");
  for (const std::string& prompt : prompts)
    if (!is_utf8(prompt))
      throw Error(ErrorCode::invalid_argument, "--prompt", "the text is not valid UTF-8");
  return prompts;
}

void check_range(const char* option, double value, double low, double high) {
  if (value >= low && value <= high) return;
  char range[64];
  std::snprintf(range, sizeof range, "must lie between %g and %g", low, high);
  throw Error(ErrorCode::invalid_argument, option, range);
}

/// Everything that can be refused before the model is loaded.
void check(const GenerateOptions& o) {
  check_range("--steps", static_cast<double>(o.steps), 1, 1000);
  check_range("--images", static_cast<double>(o.images), 1, 10000);
  check_range("--batch-size", static_cast<double>(o.batch_size), 1, 1024);
  check_range("--guidance", o.guidance.value_or(1.0), 0, 1000);
  check_range("--guidance-rescale", o.guidance_rescale, 0, 1);
  check_range("--eta", o.eta, 0, 1);
  if (o.strength) check_range("--strength", *o.strength, 0, 1);
  if (o.strength && o.init_image.empty())
    throw Error(ErrorCode::invalid_argument, "--strength", "it needs --init-image");
  if (o.control_strength) check_range("--control-strength", *o.control_strength, 0, 2);
  for (const bool given :
       {o.control_strength.has_value(), !o.control.empty(), !o.controlnet.empty()})
    if (given && o.control_image.empty())
      throw Error(ErrorCode::invalid_argument, "--control-image",
                  "--control, --control-strength and --controlnet need it");
  if (!o.control.empty() && o.control != "canny" && o.control != "segmentation")
    throw Error(ErrorCode::invalid_argument, "--control",
                "\"" + o.control + "\" cannot be made from a picture", "use canny or segmentation");
  if (o.output_type != "png" && o.output_type != "latent")
    throw Error(ErrorCode::invalid_argument, "--output-type",
                "\"" + o.output_type + "\" is not known", "use png or latent");
  o.files.chosen_prediction();
  o.sampler.chosen();
}

at::Tensor read_latents(const std::string& path) {
  if (path.empty()) return {};
  const auto tensors = io::load_tensors(path);
  const auto found = tensors.find("latents");
  if (found == tensors.end())
    throw Error(ErrorCode::bad_format, path, "there is no tensor \"latents\" in the file");
  return found->second;
}

pipeline::LoadOptions load_options(const GenerateOptions& o) {
  pipeline::LoadOptions options;
  options.files = o.files.files();
  options.device = o.common.select_device();
  options.precision = o.common.select_precision(options.device);
  options.low_memory = o.low_memory;
  return options;
}

/// The request that all batches share.
pipeline::GenerateRequest base_request(const GenerateOptions& o,
                                       const pipeline::StableDiffusion& model) {
  constexpr double kGuidance = 7.5, kXlGuidance = 5.0;
  pipeline::GenerateRequest request;
  if (o.negative_prompt) request.negative_prompt = without_byte_order_mark(*o.negative_prompt);
  request.size = {o.width, o.height};
  request.steps = o.steps;
  request.sampler = o.sampler.chosen();
  request.guidance = {o.guidance.value_or(model.files().sdxl() ? kXlGuidance : kGuidance),
                      o.guidance_rescale};
  request.eta = o.eta;
  request.clip_skip = o.clip_skip;
  if (!o.init_image.empty()) request.init_image = io::read_image(o.init_image);
  if (!o.mask_image.empty()) request.mask_image = io::read_image(o.mask_image);
  request.strength = o.strength.value_or(request.strength);
  return request;
}

/// The signal in the picture's size: edges are found at the size that they are used in.
io::Image control_image(const GenerateOptions& o, const pipeline::GenerateRequest& request) {
  const io::Image given = io::resize_and_crop(*request.control_image, request.size);
  if (o.control == "canny") return data::canny_edges(given, o.canny);
  if (o.control == "segmentation") return data::draw_segmentation(data::segment_colours(given));
  return given;
}

at::Tensor sample_with_progress(const pipeline::StableDiffusion& model,
                                const pipeline::GenerateRequest& request, bool silent) {
  const diffusion::SamplingPlan plan = request.sampler.plan(model.schedule(), request.steps);
  std::optional<Progress> progress;
  return model.sample(request, [&](const diffusion::StepReport& step) {
    if (!progress) progress.emplace("generating", plan.steps.size() - step.step + 1, silent);
    progress->advance();
    return !interrupted();
  });
}

/// FILE or FILE:word.
void add_embeddings(const std::vector<std::string>& texts, pipeline::StableDiffusion& model) {
  for (const std::string& text : texts) {
    const std::size_t colon = text.rfind(':');
    const bool whole = fs::exists(text) || colon == std::string::npos;
    const fs::path file = whole ? text : text.substr(0, colon);
    if (!fs::exists(file))
      throw Error(ErrorCode::not_found, file.string(), "the embedding file does not exist",
                  "give --embedding FILE or --embedding FILE:word");
    for (const std::string& word : model.add_embeddings(file, whole ? "" : text.substr(colon + 1)))
      log(LogLevel::info, "embedding " + file.string() + ": the word \"" + word + "\"");
  }
}

int generate(const GenerateOptions& o) {
  check(o);
  const std::vector<std::string> prompts = read_prompts(o);
  const at::Tensor latents = read_latents(o.latents);
  const std::vector<pipeline::AdapterChoice> choices = parse_adapters(o.adapters);
  PictureOutput output(o.out, o.output_type, o.grid,
                       prompts.size() * static_cast<std::size_t>(o.images));
  const pipeline::LoadOptions options = load_options(o);
  const auto begin = std::chrono::steady_clock::now();
  auto model = pipeline::StableDiffusion::open(o.model, options);
  add_embeddings(o.embeddings, model);
  std::vector<std::string> texts = prompts;
  texts.push_back(o.negative_prompt.value_or(""));
  model.check_embedding_words(texts);
  log(LogLevel::info, model.files().kind + " on " + options.device.str() + " in " +
                          nn::precision_name(options.precision));
  auto hash =
      std::async(std::launch::async, [&] { return pipeline::model_hash(model.files()); }).share();
  LoadedAdapters adapters = load_adapters(model, choices, choices.empty() ? "" : hash.get());
  for (adapt::AdapterSet& adapter : adapters.sets) adapter.attach();
  if (with_control(adapters) != nullptr && o.control_image.empty())
    log(LogLevel::warning, "the adapter was trained with control pictures: give --control-image");
  std::optional<pipeline::ControlNetwork> control;
  if (!o.control_image.empty()) control = control_network(model, adapters, o.controlnet, o.control);

  pipeline::GenerateRequest request = base_request(o, model);
  if (control) request.control = &*control;
  if (!o.control_image.empty()) request.control_image = io::read_image(o.control_image);
  request.control_strength = o.control_strength.value_or(1.0);
  request.adapters = describe_adapters(choices);
  const std::uint64_t first_seed = o.seed.value_or(std::random_device{}());
  request.prompt = prompts.front();
  if (latents.defined()) {
    // All of them, so that a wrong shape is found before the first picture is made.
    request.latents = latents;
    request.seeds.assign(static_cast<std::size_t>(o.images), 0);
  }
  request = model.checked(request);
  if (!o.control_image.empty()) request.control_image = control_image(o, request);

  const bool silent = o.common.quiet || o.common.json;
  for (const std::string& prompt : prompts) {
    for (std::int64_t image = 0; image < o.images; image += o.batch_size) {
      const std::int64_t count = std::min(o.batch_size, o.images - image);
      request.prompt = prompt;
      request.seeds.clear();
      for (std::int64_t i = 0; i < count; ++i)
        request.seeds.push_back(first_seed + static_cast<std::uint64_t>(image + i));
      if (latents.defined()) request.latents = latents.narrow(0, image, count);
      output.add(model, request, sample_with_progress(model, request, silent), hash);
    }
  }
  output.finish();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  output.report(model, options, seconds.count(), o.common.json);
  return 0;
}

}  // namespace

int cmd_generate(int argc, char** argv) {
  GenerateOptions options;
  CLI::App app(
      "Make pictures from text.\nExample:\n  ringlet generate --model MODEL --prompt \"a "
      "photo of a cat\" --steps 30 --sampler dpmpp-2m --seed 1 --out cat.png",
      "generate");
  add_model_options(app, options);
  add_picture_options(app, options);
  add_start_and_output_options(app, options);
  options.common.add_to(app);
  if (const ParseResult done = parse(app, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("generate", [&] {
    check_canny(app, options.control == "canny");
    return generate(options);
  });
}

}  // namespace ringlet::app
