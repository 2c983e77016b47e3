#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "adapter_options.h"
#include "canny_options.h"
#include "options.h"
#include "ringlet/core/log.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/generation_memory.h"
#include "ringlet/service/generator.h"
#include "ringlet/service/picture_output.h"
#include "ringlet/service/picture_request.h"
#include "ringlet/service/text_lines.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

struct GenerateOptions {
  CommonOptions common;
  service::ModelRequest opened;
  service::PictureRequest request;
  service::PictureFiles output{.out = "pictures"};
  std::string prompts_file;
  AdapterOptions adapters;
  std::vector<std::string> embeddings;
  std::uint64_t memory_limit = 0;
  std::uint64_t expected_bytes = 0;  ///< with a limit
};

constexpr std::array<std::pair<const char*, bool>, 2> kOutputTypes = {
    {{"png", false}, {"latent", true}}};

void add_options(OptionList& list, GenerateOptions& o) {
  service::describe(list, o.opened);
  o.adapters.add_to(list);
  list.add("embedding", o.embeddings,
           "Textual-inversion file, or FILE:word to call it otherwise; may be given several times");
  service::describe(list, o.request);
  list.add(
          "memory_limit", byte_size("memory_limit", o.memory_limit),
          "The most memory that the pictures may take, for example 4G: of this process on the CPU, "
          "otherwise of the device. The batch, tiles of the autoencoder and `low_memory` are "
          "chosen "
          "so that it fits")
      .or_else("no limit");
  list.add("prompts", o.prompts_file, "Text file with one prompt per line");
  list.add("out", o.output.out, "File (one image), or folder");
  list.add("output_type", choice("output_type", o.output.latents, kOutputTypes),
           "What is written; latent is a safetensors file");
  list.add("grid", o.output.grid, "Also write one image that shows all of them");
}

/// From the command line, perhaps as "$(cat FILE)", and from the file.
void read_prompts(GenerateOptions& o) {
  std::vector<std::string>& prompts = o.request.prompts;
  for (std::string& prompt : prompts) prompt = without_byte_order_mark(prompt);
  if (!o.prompts_file.empty())
    for (std::string& line : service::read_lines(o.prompts_file))
      prompts.push_back(std::move(line));
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
  service::check(o.request);
  if (!o.opened.controlnet.empty() && o.request.control_image.empty())
    throw Error(ErrorCode::invalid_argument, "--control-image",
                "--control, --control-strength and --controlnet need it");
  service::check_files(o.request);
  o.opened.adapters = parse_adapters(o.adapters);
  for (const std::string& text : o.embeddings) o.opened.embeddings.push_back(parse_embedding(text));
  // Without a second batch nothing is going to ask for text encoders again.
  const bool one_batch = o.request.prompts.size() == 1 && o.request.images <= o.request.batch_size;
  if (one_batch) o.opened.load.idle = pipeline::IdleNetworks::coders_leave;
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

/// Brings the requests below the limit, and says how.
void keep_limit(GenerateOptions& o) {
  if (o.memory_limit == 0) return;
  const service::GenerationPlan plan =
      service::plan_generation(o.opened, o.request, o.memory_limit);
  const std::string savings = service::text_of(plan, o.opened, o.request);
  log(LogLevel::info, "memory: about " + human_bytes(plan.expected) + " at the peak, of " +
                          human_bytes(o.memory_limit) + (savings.empty() ? "" : ": " + savings));
  o.opened = plan.model;
  o.request = plan.pictures;
  o.expected_bytes = plan.expected;
}

nlohmann::json result_of(const GenerateOptions& o, nlohmann::json result) {
  if (o.memory_limit > 0) {
    result["expected_bytes"] = o.expected_bytes;
    result["peak_bytes"] = nn::peak_memory(o.opened.load.device);
  }
  return result;
}

int generate(GenerateOptions& o) {
  translate(o);
  keep_limit(o);
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
    print_json(result_of(o, service::generation_json(generator, output, seconds.count())));
  else
    for (const fs::path& file : output.files()) std::printf("%s\n", file.c_str());
  return 0;
}

}  // namespace

int cmd_generate(int argc, char** argv) {
  GenerateOptions options;
  OptionList list;
  CLI::App app(
      "Make pictures from text.\nExample:\n  ringlet generate --model MODEL --prompt \"a "
      "photo of a cat\" --steps 30 --sampler dpmpp-2m --seed 1 --out cat.png",
      "generate");
  add_options(list, options);
  options.common.add_to(list);
  options.common.add_arithmetic_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("generate", [&] {
    check_canny(app, options.request.control == "canny");
    return generate(options);
  });
}

}  // namespace ringlet::app
