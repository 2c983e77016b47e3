// Control networks beside the tiny model: what they are at the start, in files, and in training.
#include <fstream>
#include <numeric>

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/pipeline/control.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "ringlet/train/score_file.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;
using pipeline::ControlKind;
using pipeline::ControlNetwork;

class ControlTraining : public FineTuning {
 protected:
  ControlTraining() { write_pictures(folder_ / "pictures", 4); }

  FineTuneOptions control_options(const std::string& out, ControlKind network,
                                  const std::string& method = "lora(rank=2)") const {
    FineTuneOptions o = options(out);
    if (method == "none")
      o.learning = train::NoWeights{};
    else
      o.learning = adapt::parse_method(method);
    o.control = train::ControlTraining{
        .signal = data::ControlSignal::canny, .network = network, .validation_pictures = 2};
    return o;
  }

  pipeline::StableDiffusion model() const {
    return pipeline::StableDiffusion::open(folder_ / "model");
  }

  static at::Tensor latents(const pipeline::StableDiffusion& model, const ControlNetwork* control,
                            double strength = 1.0) {
    pipeline::GenerateRequest request;
    request.prompt = "a photo of a dog";
    request.size = {16, 16};
    request.steps = 2;
    request.seeds = {1, 2};
    request.control = control;
    if (control) request.control_image = data::canny_edges(waves(1, 16, 16));
    request.control_strength = strength;
    return pipeline::sample(model, request);
  }
};

TEST_F(ControlTraining, ANewNetworkChangesNothing) {
  const auto sd = model();
  const at::Tensor plain = latents(sd, nullptr);
  for (const ControlKind kind : {ControlKind::encoder, ControlKind::controlnet}) {
    const auto control = sd.create_control(kind, 1);
    EXPECT_EQ(control->kind(), kind);
    EXPECT_TRUE(at::equal(latents(sd, control.get()), plain)) << pipeline::name_of(kind);
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : control->tensors())
      if (name.ends_with("conv_out.weight") || name.starts_with("controlnet_")) tensor.fill_(0.1);
    EXPECT_FALSE(at::equal(latents(sd, control.get()), plain)) << pipeline::name_of(kind);
    EXPECT_TRUE(at::equal(latents(sd, control.get(), 0.0), plain)) << pipeline::name_of(kind);
  }
}

TEST_F(ControlTraining, AControlNetStartsFromTheUNet) {
  const auto sd = model();
  const auto control = sd.create_control(ControlKind::controlnet, 1);
  const auto& unet = sd.networks().at("unet").index.tensors;
  std::size_t copied = 0;
  for (const auto& [name, tensor] : control->tensors())
    if (unet.contains(name)) {
      EXPECT_TRUE(at::equal(tensor, unet.at(name))) << name;
      EXPECT_FALSE(tensor.is_same(unet.at(name))) << name;
      ++copied;
    }
  EXPECT_GT(copied, 20u);
}

TEST_F(ControlTraining, AnEncoderIsSavedWithItsAdapter) {
  const FineTuneOptions o = control_options("run", ControlKind::encoder);
  EXPECT_EQ(FineTune(o).plan().validation, 2u);
  EXPECT_EQ(FineTune(o).plan().pictures, 2u);
  EXPECT_TRUE(run(o));
  const auto sd = model();
  const auto loaded = adapt::load_adapter(o.out / "adapter.safetensors",
                                          {{"unet", &sd.networks().at("unet").index}});
  EXPECT_EQ(parse_json(loaded.info.control, "control").at("signal"), "canny");
  const auto control = sd.control_from_tensors(loaded.info.control_tensors, "the file");
  EXPECT_FALSE(
      at::equal(latents(sd, control.get()), latents(sd, nullptr)));  // it has learnt something

  adapt::save_adapter(folder_ / "again.safetensors", loaded.set, loaded.info);
  EXPECT_EQ(file_content(folder_ / "again.safetensors"),
            file_content(o.out / "adapter.safetensors"));

  auto tensors = loaded.info.control_tensors;
  tensors.erase("conv_out.bias");
  expect_error(ErrorCode::mismatch, "conv_out.bias",
               [&] { sd.control_from_tensors(tensors, "the file"); });
  tensors = loaded.info.control_tensors;
  tensors["conv_in.weight"] = at::zeros({0, 3, 3, 3});
  expect_error(ErrorCode::mismatch, "conv_in.weight",
               [&] { sd.control_from_tensors(tensors, "the file"); });
  tensors.erase("conv_in.weight");
  expect_error(ErrorCode::mismatch, "conv_in.weight",
               [&] { sd.control_from_tensors(tensors, "the file"); });
}

TEST_F(ControlTraining, ControlTensorsOfAFileAreChecked) {
  const FineTuneOptions o = control_options("run", ControlKind::encoder);
  EXPECT_TRUE(run(o));
  const auto sd = model();
  const fs::path good = o.out / "adapter.safetensors", bad = folder_ / "bad.safetensors";
  const auto metadata = io::SafetensorsFile::open(good)->metadata();
  const auto expect_bad = [&](auto change, const char* words) {
    auto tensors = io::load_tensors(good);
    auto about = metadata;
    change(tensors, about);
    io::save_tensors(bad, tensors, about);
    expect_error(ErrorCode::bad_format, words, [&] {
      adapt::load_adapter(bad, {{"unet", &sd.networks().at("unet").index}});
    });
  };
  expect_bad([](auto&, auto& about) { about.erase("ringlet.control"); }, "none of its layers");
  expect_bad([](auto& tensors, auto&) { tensors.at("control.conv_in.bias").fill_(NAN); }, "finite");
  expect_bad([](auto&, auto& about) { about["ringlet.control"] = "7"; }, "not a JSON object");
  expect_bad(
      [](auto& tensors, auto&) {
        std::erase_if(tensors, [](const auto& one) { return one.first.starts_with("control."); });
      },
      "does not contain");
}

TEST_F(ControlTraining, AControlNetIsSavedAndOpens) {
  const FineTuneOptions o = control_options("run", ControlKind::controlnet, "none");
  EXPECT_TRUE(run(o));
  EXPECT_EQ(FineTune(control_options("other", ControlKind::controlnet, "none")).result(),
            folder_ / "other/controlnet");
  EXPECT_FALSE(fs::exists(o.out / "adapter.safetensors"));
  const auto sd = model();
  const auto control = sd.open_control(o.out / "controlnet");
  const at::Tensor made = latents(sd, control.get());
  EXPECT_FALSE(at::equal(made, latents(sd, nullptr)));
  control->save(folder_ / "again", at::kFloat);
  EXPECT_EQ(file_content(folder_ / "again/diffusion_pytorch_model.safetensors"),
            file_content(o.out / "controlnet/diffusion_pytorch_model.safetensors"));
  EXPECT_TRUE(at::equal(latents(sd, control.get()), made));

  expect_error(ErrorCode::not_found, "does not exist",
               [&] { sd.open_control(folder_ / "nothing"); });
  Json config = read_json_file(o.out / "controlnet/config.json");
  config["cross_attention_dim"] = config["cross_attention_dim"].get<int>() + 1;
  std::ofstream(o.out / "controlnet/config.json") << config.dump();
  expect_error(ErrorCode::mismatch, "another kind of U-Net",
               [&] { sd.open_control(o.out / "controlnet"); });
}

TEST_F(ControlTraining, AControlNetIsSavedBesideItsAdapterInTheSameType) {
  FineTuneOptions o = control_options("run", ControlKind::controlnet);
  o.save_precision = at::kHalf;
  FineTune both(o);
  EXPECT_EQ(both.result(), o.out / "adapter.safetensors");
  EXPECT_EQ(both.companion(), o.out / "controlnet");
  EXPECT_TRUE(both.run({}));
  for (const fs::path& file :
       {both.result(), *both.companion() / "diffusion_pytorch_model.safetensors"})
    for (const auto& [name, tensor] : io::load_tensors(file))
      EXPECT_EQ(tensor.scalar_type(), at::kHalf) << name;
  EXPECT_FALSE(FineTune(control_options("other", ControlKind::encoder)).companion());
  model().open_control(*both.companion());

  const auto large = model().create_control(ControlKind::controlnet, 1);
  const at::NoGradGuard no_grad;
  at::Tensor(large->tensors().begin()->second).fill_(1e6);
  expect_error(ErrorCode::non_finite, "use fp32 or bf16",
               [&] { large->save(folder_ / "large", at::kHalf); });
}

TEST_F(ControlTraining, ResumeIsBitExact) {
  for (const ControlKind kind : {ControlKind::encoder, ControlKind::controlnet}) {
    const std::string name = pipeline::name_of(kind);
    FineTuneOptions whole = control_options(name + "/whole/run", kind);
    whole.crop.flip = true;
    whole.observe_every = 2;
    EXPECT_TRUE(run(whole));
    FineTuneOptions parts = whole;
    parts.out = folder_ / name / "parts/run";
    EXPECT_FALSE(run(parts, 2));
    parts.resume = true;
    EXPECT_TRUE(run(parts));
    EXPECT_EQ(file_content(parts.out / "adapter.safetensors"),
              file_content(whole.out / "adapter.safetensors"));
    EXPECT_EQ(file_content(parts.out / "control.csv"), file_content(whole.out / "control.csv"));
    expect_same_metrics(parts, whole);
  }
}

TEST_F(ControlTraining, ResumeFindsTheSignalsUnchanged) {
  fs::create_directories(folder_ / "signals");
  const auto landmarks = [&](const char* point) {
    for (const char* name : {"a", "b", "c", "d"})
      std::ofstream(folder_ / "signals" / (std::string(name) + ".json")) << point;
  };
  landmarks("[[5, 5]]");
  FineTuneOptions o = control_options("run", ControlKind::encoder);
  o.control.signal = data::ControlSignal::landmark;
  o.control.images = folder_ / "signals";
  EXPECT_FALSE(run(o, 1));
  o.resume = true;
  const FineTuneOptions same = o;
  const auto expect_refusal = [](const FineTuneOptions& changed, const char* words) {
    expect_error(ErrorCode::mismatch, words, [&] { FineTune{changed}; });
  };
  landmarks("[[6, 5]]");
  expect_refusal(o, "control images was");
  landmarks("[[5, 5]]");
  // The rows of control.csv would not be of one kind.
  o.samples.seed = 9;
  expect_refusal(o, "samples was");
  o = same;
  o.samples.steps = 2;
  expect_refusal(o, "samples was");
  o = same;
  o.samples.guidance = 1.0;
  expect_refusal(o, "samples was");
  EXPECT_TRUE(run(same));

  FineTuneOptions maps = control_options("maps", ControlKind::encoder);
  maps.control.signal = data::ControlSignal::map;
  maps.control.images = folder_ / "pictures";
  EXPECT_FALSE(run(maps, 1));
  maps.resume = true;
  fs::copy(folder_ / "pictures", folder_ / "drawn");
  maps.control.images = folder_ / "drawn";  // elsewhere, but the same
  FineTune{maps};
  io::write_png(folder_ / "drawn/a.png", waves(9, 64, 64));
  expect_refusal(maps, "control images was");
  expect_refusal(maps, "control images' contents was");
  // What is wrong with a signal is found before the run, too.
  io::write_png(folder_ / "drawn/a.png", waves(9, 64, 40));
  expect_refusal(maps, "the map is 64x40");
  fs::resize_file(folder_ / "drawn/b.png", 60);
  expect_error(ErrorCode::bad_format, "2 of 4 pictures cannot be used", [&] { FineTune{maps}; });
}

TEST_F(ControlTraining, SignalsBesideTheirPicturesAreNotSaidToBeUnused) {
  FineTuneOptions o = control_options("run", ControlKind::encoder);
  for (const char* name : {"a", "b", "c", "d", "other"})
    std::ofstream(folder_ / "pictures" / (std::string(name) + ".json")) << "[[5, 5]]";
  o.control.signal = data::ControlSignal::landmark;
  o.control.images = folder_ / "pictures";
  const FineTune run(o);
  ASSERT_EQ(run.plan().notes.size(), 1u);
  EXPECT_EQ(run.plan().notes[0].files, (std::vector<fs::path>{"other.json"}));
}

TEST_F(ControlTraining, MeasuresWhatWasHeldOut) {
  FineTuneOptions o = control_options("run", ControlKind::encoder);
  write_pictures(folder_ / "pictures", 5);
  o.control.validation_pictures = 2;
  o.control.metric = {"brightness", [](const io::Image& source, const io::Image& made) {
                        EXPECT_EQ(source.width, made.width);
                        return 0.25;
                      }};
  o.observe_every = 1;
  EXPECT_TRUE(run(o));
  const ScoreFile scores(o.out / "control.csv", 3);
  ASSERT_EQ(scores.rows().size(), 4u);  // before, and after each of three steps
  EXPECT_EQ(scores.rows().front().values[0], scores.rows().front().values[1]);  // not yet seen
  EXPECT_NE(scores.rows().back().values[0], scores.rows().back().values[1]);
  EXPECT_EQ(scores.rows().back().values[2], 0.25);
  EXPECT_EQ(ScoreFile(o.out / "control.csv", 1).rows().size(), 2u);
  const io::Image sheet = io::read_image(o.out / "samples/step-00000003.png");
  EXPECT_EQ(sheet.width, 3 * 16);
  EXPECT_EQ(sheet.height, 2 * 16);
  const std::string report = file_content(o.out / "report.html");
  EXPECT_NE(report.find("brightness (held out)"), std::string::npos);
  EXPECT_NE(report.find("Loss on held-out pictures"), std::string::npos);
}

TEST_F(ControlTraining, MeasuresWithTheTextEncoderLayerThatLearns) {
  const auto before = [&](std::int64_t clip_skip) {
    FineTuneOptions o = control_options("run" + std::to_string(clip_skip), ControlKind::encoder);
    o.loss.clip_skip = clip_skip;
    o.trainer.steps = 1;
    o.control.metric = {"sum", [](const io::Image&, const io::Image& made) {
                          return std::accumulate(made.pixels.begin(), made.pixels.end(), 0.0);
                        }};
    EXPECT_TRUE(run(o));
    return ScoreFile(o.out / "control.csv", 1).rows().front();
  };
  const MeasuredStep last = before(1), skipped = before(2);
  EXPECT_NE(last.values[0], skipped.values[0]);  // the loss
  EXPECT_NE(last.values[2], skipped.values[2]);  // the metric
}

TEST_F(ControlTraining, RefusesWhatCannotBe) {
  const auto expect_refusal = [&](const char* words, auto change) {
    FineTuneOptions o = control_options("run", ControlKind::encoder);
    change(o);
    expect_error(ErrorCode::invalid_argument, words, [&] { FineTune run(o); });
  };
  expect_refusal("nothing to train", [](auto& o) { o.learning = NoWeights{}; });
  const auto alone = [](auto& o) {
    o.learning = NoWeights{};
    o.control.network = ControlKind::controlnet;
  };
  expect_refusal("train_text_encoder: ", [&](auto& o) {
    alone(o);
    o.train_text_encoder = true;
  });
  expect_refusal("budget: it applies to adapters, but `method=none`", [&](auto& o) {
    alone(o);
    o.budget = "10k";
  });
  expect_refusal("applies to adapters", [](auto& o) { o.learning = AllWeights{}; });
  expect_refusal("no control signal", [](auto& o) { o.class_prompt = "a dog"; });
  expect_refusal("cannot be held out", [](auto& o) { o.control.validation_pictures = 4; });
  // The next picture's signal would be its own.
  expect_refusal("one is too few", [](auto& o) { o.control.validation_pictures = 1; });
  expect_refusal("validation_pictures: ", [](auto& o) { o.control.validation_pictures = -1; });
  expect_refusal("a prompt has no control signal", [](auto& o) { o.samples.prompts = {"a dog"}; });
  expect_refusal("a prompt has no control signal", [](auto& o) {
    o.samples.prompts = {"a dog"};
    o.control.validation_pictures = 0;
  });
  expect_refusal("no samples are possible", [](auto& o) {
    o.observe_every = 1;
    o.control.validation_pictures = 0;
  });
  expect_refusal("cannot be computed",
                 [](auto& o) { o.control.signal = data::ControlSignal::map; });
  FineTuneOptions o = control_options("run", ControlKind::encoder);
  o.control.signal = data::ControlSignal::map;
  o.control.images = folder_ / "maps";
  expect_error(ErrorCode::not_found, "4 of 4 pictures have none", [&] { FineTune run(o); });
}

}  // namespace
}  // namespace ringlet::train
