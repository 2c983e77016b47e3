#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "adapter_options.h"
#include "canny_options.h"
#include "model_options.h"
#include "options.h"
#include "ringlet/core/read_file.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/generator.h"
#include "ringlet/service/picture_output.h"
#include "ringlet/service/picture_request.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

struct GenerateOptions {
  CommonOptions common;
  ModelOptions files;
  service::ModelRequest opened;
  service::PictureRequest request;
  service::PictureFiles output{.out = "pictures"};
  std::string prompts_file, output_type = "png";
  SamplerOptions sampler;
  AdapterOptions adapters;
  std::vector<std::string> embeddings;
};

void add_model_options(CLI::App& app, GenerateOptions& o) {
  app.add_option("--model", o.opened.model,
                 "Model folder (diffusers) or single .safetensors checkpoint")
      ->required();
  o.adapters.add_to(app);
  repeatable(app.add_option("--embedding", o.embeddings,
                            "Textual-inversion file, :word where its own name is not wanted; "
                            "may be given several times"));
  o.files.add_files(app);
  o.files.add_prediction(app);
  app.add_flag("--low-memory", o.opened.load.low_memory,
               "Keep 16-bit weights as stored and code large images in tiles; slower");
}

void add_picture_options(CLI::App& app, GenerateOptions& o) {
  service::PictureRequest& r = o.request;
  repeatable(app.add_option("--prompt", r.prompts, "What to show; may be given several times"));
  app.add_option("--prompts", o.prompts_file, "Text file with one prompt a line");
  app.add_option("--negative-prompt", r.negative_prompt, "What not to show");
  app.add_option("--steps", r.steps, "Sampling steps")->capture_default_str();
  o.sampler.add_to(app);
  app.add_option("--guidance", r.guidance,
                 "Classifier-free guidance scale; 1 = off [7.5, or 5 for SDXL]");
  app.add_option("--guidance-rescale", r.guidance_rescale,
                 "Share of guidance brought back to the prompt's contrast, 0 to 1")
      ->capture_default_str();
  app.add_option("--eta", r.eta, "Randomness of ddim, 0 to 1")->capture_default_str();
  app.add_option("--seed", r.seed, "Seed of the first image; the next has seed + 1 [random]")
      ->transform(whole_number());
  app.add_option("--images", r.images, "Images per prompt")->capture_default_str();
  app.add_option("--batch-size", r.batch_size, "Images computed at a time; changes none of them")
      ->capture_default_str();
  app.add_option("--width", r.width, "Pixels [the model's own]");
  app.add_option("--height", r.height, "Pixels [the model's own]");
  add_clip_skip(app, r.clip_skip);
}

void add_start_and_output_options(CLI::App& app, GenerateOptions& o) {
  service::PictureRequest& r = o.request;
  app.add_option("--init-image", r.init_image, "Picture to start from (image to image)");
  app.add_option("--strength", r.strength, "How much of it is made anew, 0 to 1 [0.8]");
  app.add_option("--mask-image", r.mask_image,
                 "Inpainting models: white parts of --init-image are painted anew");
  app.add_option("--control-image", r.control_image,
                 "Edges, map or landmarks that the picture is to follow, for an adapter that was "
                 "trained with --control, or for --controlnet");
  app.add_option("--control", r.control,
                 "canny or segmentation: --control-image is a plain picture, from which the signal "
                 "is made [it is the signal]");
  add_canny(app, r.canny);
  app.add_option("--controlnet", o.opened.controlnet,
                 "ControlNet folder (diffusers) that sees --control-image");
  app.add_option("--control-strength", r.control_strength, "Of --control-image, 0 to 2 [1]");
  app.add_option("--latents", r.latents,
                 "Start noise: a safetensors file with \"latents\" [images, 4, h/8, w/8]");
  app.add_option("--out", o.output.out, "File (one image), or folder")->capture_default_str();
  app.add_option("--output-type", o.output_type, "png, or latent (a safetensors file)")
      ->capture_default_str();
  app.add_flag("--grid", o.output.grid, "Also put all images into one");
}

/// From the command line, perhaps as "$(cat FILE)", and from the file.
void read_prompts(GenerateOptions& o) {
  std::vector<std::string>& prompts = o.request.prompts;
  for (std::string& prompt : prompts) prompt = without_byte_order_mark(prompt);
  if (!o.prompts_file.empty())
    for (std::string& line : read_lines(o.prompts_file)) prompts.push_back(std::move(line));
  if (o.request.negative_prompt)
    o.request.negative_prompt = without_byte_order_mark(*o.request.negative_prompt);
}

/// FILE or FILE:word.
service::EmbeddingChoice parse_embedding(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  const bool whole = fs::exists(text) || colon == std::string::npos;
  const fs::path file = whole ? text : text.substr(0, colon);
  if (!fs::exists(file))
    throw Error(ErrorCode::not_found, file.string(), "the embedding file does not exist",
                "give --embedding FILE or --embedding FILE:word");
  return {file, whole ? "" : text.substr(colon + 1)};
}

/// Brings the words of the command line into requests, and checks all that can be checked before
/// the model is loaded.
void translate(GenerateOptions& o) {
  read_prompts(o);
  o.request.sampler = o.sampler.sampler;
  o.request.spacing = o.sampler.spacing;
  service::check(o.request);
  if (!o.opened.controlnet.empty() && o.request.control_image.empty())
    throw Error(ErrorCode::invalid_argument, "--control-image",
                "--control, --control-strength and --controlnet need it");
  if (o.output_type != "png" && o.output_type != "latent")
    throw Error(ErrorCode::invalid_argument, "--output-type",
                "\"" + o.output_type + "\" is not known", "use png or latent");
  o.output.latents = o.output_type == "latent";
  o.opened.load.files = o.files.files();
  service::check_files(o.request);
  o.opened.adapters = parse_adapters(o.adapters);
  for (const std::string& text : o.embeddings) o.opened.embeddings.push_back(parse_embedding(text));
  o.opened.load.device = o.common.select_device();
  o.opened.load.precision = o.common.select_precision(o.opened.load.device);
}

/// A bar for each batch.
class BatchProgress {
 public:
  explicit BatchProgress(bool silent) : silent_(silent) {}
  bool step(const service::SamplingStep& step) {
    if (step.done == 1) bar_.emplace("generating", step.total, silent_);
    bar_->advance();
    if (step.done == step.total) bar_.reset();
    return !interrupted();
  }

 private:
  bool silent_;
  std::optional<Progress> bar_;
};

int generate(GenerateOptions& o) {
  translate(o);
  service::PictureOutput output(
      o.output, o.request.prompts.size() * static_cast<std::size_t>(o.request.images));
  const auto begin = std::chrono::steady_clock::now();
  const service::Generator generator(o.opened);
  BatchProgress progress(o.common.quiet || o.common.json);
  generator.generate(
      o.request,
      [&](const pipeline::GenerateRequest& request, const at::Tensor& latents) {
        output.add(generator, request, latents);
      },
      {.step = [&](const service::SamplingStep& step) { return progress.step(step); }, .log = {}});
  output.finish();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (o.common.json)
    print_json(service::generation_json(generator, output, seconds.count()));
  else
    for (const fs::path& file : output.files()) std::printf("%s\n", file.c_str());
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
    check_canny(app, options.request.control == "canny");
    return generate(options);
  });
}

}  // namespace ringlet::app
