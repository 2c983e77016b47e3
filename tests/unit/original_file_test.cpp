// Single files of Stable Diffusion 3 and FLUX.1 in their authors' layout: what tells them, what
// they may lack, parts in files of their own, and how they are written again.
#include <array>
#include <filesystem>
#include <iterator>
#include <string>
#include <tuple>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/formats/original_transformer.h"
#include "ringlet/models/diffusion/flux_config.h"
#include "ringlet/models/diffusion/sd3_config.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/describe.h"
#include "ringlet/pipeline/extract.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/service/adaptable_model.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_original_file.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;
using golden::OriginalFile;
using golden::Tensors;

class OriginalFiles : public testing::Test {
 protected:
  OriginalFiles() { golden::write_tokenizers_beside(folder_.path()); }

  fs::path save(const Tensors& tensors, const char* name = "m.safetensors") const {
    io::save_tensors(folder_ / name, tensors);
    return folder_ / name;
  }
  fs::path save(const std::string& key, const OriginalFile& parts = {}) const {
    return save(golden::original_file_tensors(key, parts));
  }
  fs::path text_file(const std::string& key, const char* part, const char* name) const {
    const Json& model = golden::flow_pipelines().at("models").at(key);
    return save(golden::component_tensors(model, part), name);
  }
  static LoadOptions options(std::vector<std::string> text_encoders = {},
                             const fs::path& vae = {}) {
    LoadOptions options;
    options.files.text_tokens = 16;
    options.files.text_encoders = std::move(text_encoders);
    options.files.vae = vae;
    return options;
  }
  static std::unique_ptr<TextToImageModel> open(const fs::path& path,
                                                const LoadOptions& load = options()) {
    return open_text_to_image_model(path, load);
  }
  static at::Tensor picture(const TextToImageModel& model) {
    const at::NoGradGuard no_grad;
    GenerateRequest request;
    request.prompt = "a dog";
    request.size = {32, 32};
    request.steps = 2;
    return sample(model, request);
  }

  TemporaryFolder folder_;
};

TEST_F(OriginalFiles, KindAndDefaultsAreToldByTheTensors) {
  struct Want {
    const char *key, *kind;
    std::int64_t steps;
    double shift;
    bool dynamic;
  };
  for (const Want& want : {Want{"sd3", "Stable Diffusion 3", 28, 3.0, false},
                           Want{"sd35", "Stable Diffusion 3.5 medium", 28, 3.0, false},
                           Want{"flux_dev", "FLUX.1 dev", 28, 3.0, true},
                           Want{"flux_schnell", "FLUX.1 schnell", 4, 1.0, false}})
    for (const char* prefix : {"model.diffusion_model.", "diffusion_model.", ""}) {
      const fs::path path = save(want.key, {.prefix = prefix});
      const auto model = open(path);
      EXPECT_EQ(model->description().kind, want.kind);
      EXPECT_EQ(model->defaults().steps, want.steps);
      const Json json = describe(path);
      EXPECT_EQ(json.at("kind"), std::string(want.kind) + " checkpoint");
      EXPECT_EQ(json.at("prediction").at("type"), "flow_prediction");
      EXPECT_EQ(json.at("notes"), Json::array());
      const Json& shift = json.at("schedule").at("shift");
      EXPECT_EQ(shift, want.dynamic ? Json("by the picture's size") : Json(want.shift));
    }
}

/// Tensors of published sizes without numbers.
class PublishedSizes : public testing::Test {
 protected:
  void add(const std::string& name, const nn::Shape& shape) {
    tensors_[name] = at::empty(shape, at::TensorOptions(at::kFloat).device(at::kMeta));
  }
  Json config() const {
    const auto store = std::make_shared<nn::MapStore>(tensors_);
    const auto found = formats::find_original_transformer(*store);
    return formats::open_original_transformer(store, found.value()).config;
  }
  Tensors tensors_;
};

TEST_F(PublishedSizes, FluxDevIsReadAsItsConfigurationSays) {
  for (int i = 0; i < 19; ++i) {
    const std::string block = "double_blocks." + std::to_string(i) + ".img_attn.";
    add(block + "qkv.weight", {3 * 3072, 3072});
    add(block + "norm.query_norm.scale", {128});
  }
  for (int i = 0; i < 38; ++i)
    add("single_blocks." + std::to_string(i) + ".linear1.weight", {7 * 3072, 3072});
  add("img_in.weight", {3072, 64});
  add("txt_in.weight", {3072, 4096});
  add("vector_in.in_layer.weight", {3072, 768});
  add("guidance_in.in_layer.weight", {3072, 256});
  add("final_layer.linear.weight", {64, 3072});
  const auto read = models::FluxConfig::from_json(config(), "flux");
  const models::FluxConfig dev;  // whose sizes are the structure's defaults
  EXPECT_TRUE(read.guidance_embeds);
  EXPECT_EQ(std::tuple(read.layers, read.single_layers, read.heads, read.head_width, read.axes),
            std::tuple(dev.layers, dev.single_layers, dev.heads, dev.head_width, dev.axes));
  EXPECT_EQ(std::tuple(read.in_channels, read.out_channels, read.text_width, read.pooled_width),
            std::tuple(dev.in_channels, dev.out_channels, dev.text_width, dev.pooled_width));
}

TEST_F(PublishedSizes, StableDiffusion3IsReadAsItsConfigurationsSay) {
  struct Published {
    std::int64_t width, layers, side, dual;
    bool norms;
  };
  for (const Published& p : {Published{1536, 24, 192, 0, false}, Published{2432, 38, 192, 0, true},
                             Published{1536, 24, 384, 13, true}}) {
    tensors_.clear();
    for (std::int64_t i = 0; i < p.layers; ++i) {
      const std::string block = "joint_blocks." + std::to_string(i) + ".x_block.";
      add(block + "attn.qkv.weight", {3 * p.width, p.width});
      if (p.norms) add(block + "attn.ln_q.weight", {64});
      if (i < p.dual) add(block + "attn2.qkv.weight", {3 * p.width, p.width});
    }
    add("x_embedder.proj.weight", {p.width, 16, 2, 2});
    add("pos_embed", {1, p.side * p.side, p.width});
    add("context_embedder.weight", {p.width, 4096});
    add("y_embedder.mlp.0.weight", {p.width, 2048});
    add("final_layer.linear.weight", {64, p.width});
    const auto read = models::Sd3Config::from_json(config(), "sd3");
    EXPECT_EQ(std::tuple(read.layers, read.heads, read.head_width, read.table_side),
              std::tuple(p.layers, p.width / 64, 64, p.side));
    EXPECT_EQ(std::tuple(read.sample_size, read.patch_size, read.in_channels, read.out_channels),
              std::tuple(128, 2, 16, 16));
    EXPECT_EQ(std::tuple(read.text_width, read.pooled_width, read.rms_norm),
              std::tuple(4096, 2048, p.norms));
    EXPECT_EQ(std::ssize(read.dual_attention_layers), p.dual);
  }
}

TEST_F(OriginalFiles, MissingPartsAreNamedWithTheOptionThatGivesThem) {
  const auto refused = [&](const std::string& key, const OriginalFile& parts, const char* words) {
    const fs::path path = save(key, parts);
    expect_error(ErrorCode::not_found, words, [&] { open(path); });
  };
  refused("flux_dev", {.clip = false}, "no text encoder CLIP-L, which FLUX.1 needs");
  refused("flux_dev", {.t5 = false}, "no text encoder T5");
  refused("flux_dev", {.t5 = false}, "`text_encoder=FILE`");
  refused("sd35", {.clip = false}, "CLIP-L, text encoder CLIP-G, which Stable Diffusion 3 needs");
  refused("sd35", {.clip = false, .vae = false}, "`text_encoder=FILE`, `vae=FILE`");
  refused("sd35", {.vae = false}, "no autoencoder");
  refused("sd35", {.vae = false}, "`vae=FILE`");
  const Json json = describe(save("flux_dev", {.clip = false, .t5 = false, .vae = false}));
  EXPECT_EQ(json.at("notes").size(), 3u);
  EXPECT_EQ(json.at("notes")[1], "it has no text encoder T5; `text_encoder=FILE` gives one");
  EXPECT_EQ(json.at("components").size(), 1u);
}

TEST_F(OriginalFiles, StableDiffusion3WorksWithoutT5AndWithoutItsTable) {
  const fs::path path = save("sd35", {.t5 = false});
  const LogCapture log;
  const auto model = open(path);
  EXPECT_NE(log.warnings().find("no third text encoder (T5)"), std::string::npos);
  EXPECT_TRUE(picture(*model).isfinite().all().item<bool>());
  EXPECT_NE(describe(path).at("notes")[0].get<std::string>().find("works without"),
            std::string::npos);
  Tensors tensors = golden::original_file_tensors("sd35", {.positions = false});
  EXPECT_EQ(open(save(tensors))->networks().at("transformer").config.at("pos_embed_max_size"), 384);
}

TEST_F(OriginalFiles, PartsInFilesOfTheirOwnAreTheSameModel) {
  for (const std::string key : {"sd35", "flux_dev"}) {
    const at::Tensor whole = picture(*open(save(key)));
    const bool flux = golden::is_flux(key);
    std::vector<std::string> text = {
        text_file(key, flux ? "text_encoder_2" : "text_encoder_3", "t5xxl_fp16.safetensors")
            .string(),
        text_file(key, "text_encoder", "clip_l.safetensors").string()};
    // Small encoders are told apart by the file's name.
    if (!flux) text.push_back(text_file(key, "text_encoder_2", "clip_g.safetensors").string());
    for (const char* prefix : {"", "first_stage_model.", "vae."}) {
      const fs::path vae =
          save(golden::with_prefix(prefix, golden::original_vae(key)), "ae.safetensors");
      const fs::path bare = save(key, {.prefix = "", .clip = false, .t5 = false, .vae = false});
      const auto model = open(bare, options(text, vae));
      EXPECT_TRUE(picture(*model).equal(whole)) << key;
      const Json json = describe(bare, options(text, vae).files);
      EXPECT_EQ(json.at("components").size(), flux ? 4u : 5u);
      EXPECT_EQ(json.at("components")[1].at("name"), "T5 (given)");
    }
    // OpenCLIP's names and a checkpoint with everything are read, too, and win over the file's own.
    if (!flux) {
      const Json& config = golden::flow_pipelines().at("models").at(key);
      text.back() =
          save(golden::open_clip_tensors(golden::component_tensors(config, "text_encoder_2")),
               "g.safetensors")
              .string();
    }
    EXPECT_TRUE(picture(*open(save(key), options(text))).equal(whole)) << key;
  }
}

TEST_F(OriginalFiles, AFolderTakesPartsInFilesOfTheirOwn) {
  const fs::path root = folder_ / "model";
  golden::write_flow_folder(root, "sd3_without_t5");
  const LogCapture log;
  const auto model =
      open(root, options({text_file("sd3", "text_encoder_3", "t5.safetensors").string()}));
  EXPECT_EQ(log.warnings(), "");
  EXPECT_TRUE(model->networks().contains("text_encoder_3"));
  EXPECT_TRUE(picture(*model).isfinite().all().item<bool>());
  LoadOptions load = options();
  load.files.t5_tokenizer = folder_ / "tokenizer_3";
  expect_error(ErrorCode::invalid_argument, "t5_tokenizer", [&] { open(root, load); });
}

TEST_F(OriginalFiles, GivenFilesThatDoNotFitAreNamed) {
  const fs::path flux = save("flux_dev", {.clip = false, .t5 = false});
  const std::string clip = text_file("flux_dev", "text_encoder", "clip_l.safetensors").string();
  const std::string clip_g = text_file("sd35", "text_encoder_2", "clip_g.safetensors").string();
  const std::string t5 = text_file("flux_dev", "text_encoder_2", "t5.safetensors").string();
  const fs::path vae = save(golden::original_vae("flux_dev"), "ae.safetensors");
  const auto refused = [&](ErrorCode code, const char* words, const LoadOptions& load) {
    expect_error(code, words, [&] { open(flux, load); });
  };
  refused(ErrorCode::invalid_argument, "is CLIP-G, which FLUX.1 does not take",
          options({clip_g, clip, t5}));
  refused(ErrorCode::invalid_argument, "was given already", options({clip, clip}));
  refused(ErrorCode::not_found, "does not exist", options({clip, t5 + "x"}));
  refused(ErrorCode::unsupported, "holds no text encoder", options({vae.string()}));
  refused(ErrorCode::unsupported, "holds no autoencoder", options({clip, t5}, t5));
  // A T5 of another width, and an autoencoder of four channels for one of others.
  Tensors wide = io::load_tensors(t5);
  for (auto& [name, tensor] : wide)
    if (tensor.dim() == 1 || name == "shared.weight") tensor = tensor.narrow(-1, 0, 8).clone();
  expect_error(ErrorCode::mismatch, "shape", [&] {
    open(flux, options({clip, save(wide, "t5_small.safetensors").string()}));
  });
}

TEST_F(OriginalFiles, TokenizersAreFoundOrAskedFor) {
  const fs::path path = save("flux_dev");
  fs::rename(folder_ / "tokenizer_3", folder_ / "elsewhere");
  expect_error(ErrorCode::not_found, "T5 needs its tokenizer", [&] { open(path); });
  expect_error(ErrorCode::not_found, "`t5_tokenizer=FOLDER`", [&] { open(path); });
  LoadOptions load = options();
  load.files.t5_tokenizer = folder_ / "elsewhere";
  EXPECT_NO_THROW(open(path, load));
  if (fs::exists(folder_ / "elsewhere/spiece.model")) {
    load.files.t5_tokenizer = folder_ / "elsewhere/spiece.model";
    EXPECT_NO_THROW(open(path, load));
  }
  fs::rename(folder_ / "tokenizer", folder_ / "clip");
  expect_error(ErrorCode::not_found, "`tokenizer=FOLDER`", [&] { open(path, load); });
  load.files.tokenizer = folder_ / "clip";
  EXPECT_NO_THROW(open(path, load));
}

TEST_F(OriginalFiles, RelativesOfFluxAreRefusedByName) {
  for (const auto& [mark, name] :
       {std::pair{"distilled_guidance_layer.norms.0.scale", "Chroma"},
        std::pair{"double_stream_modulation_img.lin.weight", "FLUX.2"}}) {
    Tensors tensors = golden::original_file_tensors("flux_schnell");
    tensors[std::string("model.diffusion_model.") + mark] = at::zeros({4});
    const fs::path path = save(tensors);
    expect_error(ErrorCode::unsupported, name, [&] { open(path); });
  }
}

// A tensor taken away, of another shape or too much: an Error that names it, never a crash.
TEST_F(OriginalFiles, DamagedFilesAreInputErrors) {
  for (const std::string key : {"sd35", "flux_dev"}) {
    const Tensors tensors = golden::original_file_tensors(key);
    std::size_t number = 0, refused = 0, tried = 0;
    for (const auto& [name, tensor] : tensors) {
      // Files may lack the table of positions and CLIP-L's projection.
      const bool optional = name.ends_with("pos_embed") || name.ends_with("text_projection.weight");
      if (++number % 7 != 0 || optional) continue;
      Tensors damaged = tensors;
      damaged.erase(name);
      if (tried % 3 == 1) damaged[name] = at::zeros({3, 5});
      if (tried % 3 == 2) damaged[name + "_more"] = tensor;
      ++tried;
      try {
        open(save(damaged));
        ADD_FAILURE() << name;
      } catch (const Error& error) {
        ++refused;
        EXPECT_NE(error.code(), ErrorCode::internal) << name << ": " << error.what();
      }
    }
    EXPECT_EQ(refused, tried);
  }
}

std::array<const adapt::AdapterSet*, 1> sets_of(const adapt::AdapterSet& set) { return {&set}; }

/// LoRA with changes on some layers of a tiny model.
adapt::AdapterSet adapters_for(const adapt::Components& components,
                               const char* preset = "all-linear") {
  adapt::AdapterSet set = adapt::AdapterSet::create(
      adapt::parse_method("lora(rank=2)"), adapt::select_targets(components, {.presets = {preset}}),
      adapt::FactorTable(), Random(0));
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : set.parameters())
    tensor.copy_(0.1 * golden::weight(name, tensor.sizes().vec()));
  return set;
}

TEST_F(OriginalFiles, ASingleFileIsWrittenAgainTensorByTensor) {
  for (const std::string key : {"sd35", "flux_dev"}) {
    Tensors tensors = golden::original_file_tensors(key);
    for (auto& [name, tensor] : tensors)
      if (name.ends_with("weight")) tensor = tensor.to(at::kBFloat16);
    const fs::path path = save(tensors), out = folder_ / "again.safetensors";
    const auto model = open(path);
    // Nothing changes: every network's own tensors, put back in the place they came from.
    Replacements same;
    const auto& network = model->networks().at("transformer").index;
    for (const auto& [name, tensor] : network.tensors)
      if (name != "pos_embed.pos_embed") same["transformer"][name] = tensor;
    model->save_file(out, same);
    const Tensors again = io::load_tensors(out);
    ASSERT_EQ(again.size(), tensors.size());
    for (const auto& [name, tensor] : tensors) {
      EXPECT_EQ(again.at(name).scalar_type(), tensor.scalar_type()) << name;
      EXPECT_TRUE(again.at(name).equal(tensor)) << name;
    }
  }
}

TEST_F(OriginalFiles, MergedFilesAreTheModelUnderItsAdapters) {
  for (const std::string key : {"sd35", "flux_dev"}) {
    const fs::path path = save(key), out = folder_ / "merged.safetensors";
    const auto model = open(path);
    adapt::AdapterSet set = adapters_for(adaptable(*model));
    merge_into_file(*model, sets_of(set), out);
    const at::Tensor before = picture(*model);
    set.attach();
    const at::Tensor want = picture(*model);
    set.detach();
    const at::Tensor found = picture(*open(out));
    EXPECT_GT((want - before).abs().max().item<double>(), 1e-3) << key;
    EXPECT_LE((found - want).abs().max().item<double>(), 1e-4) << key;

    // A part in another file cannot be written into this one.
    const std::string clip = text_file(key, "text_encoder", "clip_l.safetensors").string();
    const auto divided = open(path, options({clip}));
    const adapt::AdapterSet text = adapters_for(adaptable(*divided), "text-encoder");
    expect_error(ErrorCode::unsupported, "which is not in",
                 [&] { merge_into_file(*divided, sets_of(text), out); });
  }
}

// ComfyUI's users have the transformer alone: adapters fit it without its text encoders.
TEST_F(OriginalFiles, ATransformerAloneTakesAdapters) {
  const OriginalFile alone{.prefix = "", .clip = false, .t5 = false, .vae = false};
  for (const std::string key : {"sd35", "flux_dev"}) {
    const fs::path path = save(key, alone), out = folder_ / "merged.safetensors";
    const fs::path adapter = folder_ / "adapter.safetensors";
    const auto whole = open(save(golden::original_file_tensors(key), "whole.safetensors"));
    adapt::Components transformer = {{"transformer", &whole->networks().at("transformer").index}};
    adapt::AdapterSet set = adapters_for(transformer);
    adapt::save_adapter(adapter, set, {});
    const service::AdaptableModel opened = service::open_adaptable(path, {}, {{adapter, 1.0, {}}});
    EXPECT_EQ(opened.model, nullptr);
    ASSERT_TRUE(opened.components().contains("transformer"));
    const adapt::AdapterSet loaded = adapt::load_adapter(adapter, opened.components()).set;
    merge_tensor_file(*opened.weights, sets_of(loaded), out);
    merge_into_file(*whole, sets_of(set), folder_ / "whole_merged.safetensors");
    const Tensors merged = io::load_tensors(out);
    EXPECT_EQ(merged.size(), golden::original_transformer(key).size());
    for (const auto& [name, tensor] : io::load_tensors(folder_ / "whole_merged.safetensors"))
      if (const std::string prefix = "model.diffusion_model."; name.starts_with(prefix)) {
        EXPECT_TRUE(merged.at(name.substr(prefix.size())).equal(tensor)) << name;
      }
    ExtractSource source;
    source.base = path;
    source.tuned = out;
    const ModelDifference difference = compare_models(source);
    EXPECT_EQ(difference.layers.size(), set.entries().size());
  }
}

TEST_F(OriginalFiles, ASavedFolderIsTheSameModel) {
  for (const std::string key : {"sd35", "flux_dev"}) {
    const auto model = open(save(key));
    const fs::path out = folder_ / (key + "_folder");
    model->save(out, {});
    EXPECT_TRUE(picture(*open(out)).equal(picture(*model))) << key;
    if (golden::is_flux(key)) continue;
    const Json second = read_json_file(out / "tokenizer_2/tokenizer_config.json");
    EXPECT_EQ(second.at("pad_token"), "!");  // OpenCLIP's, which a file does not say
  }
}

TEST_F(OriginalFiles, OtherFamiliesTakeAnAutoencoderOfTheirOwn) {
  const at::NoGradGuard no_grad;
  const Tensors tensors = golden::single_file_tensors("sd1");
  Tensors vae, rest;
  for (const auto& [name, tensor] : tensors)
    (name.starts_with("first_stage_model.") ? vae : rest)[name] = tensor;
  const fs::path whole = save(tensors, "whole.safetensors"), bare = save(rest, "bare.safetensors");
  const fs::path own = save(vae, "vae.safetensors");
  expect_error(ErrorCode::unsupported, "`vae=FILE`", [&] { open(bare); });
  const auto model = open(bare, options({}, own));
  EXPECT_TRUE(picture(*model).equal(picture(*open(whole))));
  EXPECT_TRUE(
      model->decode(at::ones({1, 4, 4, 4})).equal(open(whole)->decode(at::ones({1, 4, 4, 4}))));
  golden::write_folder(folder_ / "model", "sd1");
  for (auto& [name, tensor] : vae) tensor = at::ones_like(tensor) * 0.01;
  const auto changed = open(folder_ / "model", options({}, save(vae, "other.safetensors")));
  EXPECT_FALSE(
      changed->decode(at::ones({1, 4, 4, 4})).equal(model->decode(at::ones({1, 4, 4, 4}))));
}

}  // namespace
}  // namespace ringlet::pipeline
