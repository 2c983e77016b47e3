// `train --control` and `generate --control-image` on tiny models of Stable Diffusion 3 and FLUX.1.
#include "ringlet/core/json.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/golden/tiny_flow_model.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

class FlowControl : public TinyProgram {
 protected:
  FlowControl() { train::write_pictures(folder_ / "pictures", 4); }

  Arguments trained(const std::string& network, const std::string& steps, const std::string& out,
                    const Arguments& more = {}) const {
    Arguments all = {"--control",          "canny", "--text-tokens",         "16",
                     "--sample-steps",     "1",     "--learning-rate",       "1e-2",
                     "--control-network",  network, "--validation-pictures", "2",
                     "--checkpoint-every", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return training("lora(rank=2)", steps, out, all);
  }
  std::vector<std::uint8_t> picture(const Arguments& more) const {
    Arguments all = {"generate", "--model", path("model"), "--prompt",      "waves", "--steps",
                     "2",        "--seed",  "1",           "--width",       "16",    "--height",
                     "16",       "--out",   path("a.png"), "--text-tokens", "16"};
    all.insert(all.end(), more.begin(), more.end());
    expect_success(all);
    return io::read_image(folder_ / "a.png").pixels;
  }

  /// Trained, used, and resumed to the same bytes.
  void train_use_and_resume(const std::string& key, const std::string& network) const {
    golden::write_flow_folder(folder_ / "model", key);
    const ProgramResult result = expect_success(trained(network, "2", "run/out"));
    EXPECT_NE(result.err.find("canny through " + network), std::string::npos) << result.err;
    const std::string adapter = path("run/out/adapter.safetensors");
    const Arguments with = {"--adapter", adapter, "--control-image", path("pictures/a.png"),
                            "--control", "canny"};
    Arguments off = with;
    off.insert(off.end(), {"--control-strength", "0"});
    const auto controlled = picture(with);
    EXPECT_NE(controlled, picture(off));
    EXPECT_EQ(picture(off), picture({"--adapter", adapter}));

    // The second half sees latents, those of the signals among them, from the first one's cache.
    const Arguments cache = {"--cache", path("cache")};
    expect_success(trained(network, "1", "again/out", cache));
    expect_success(trained(network, "2", "again/out", {"--resume", cache[0], cache[1]}));
    EXPECT_EQ(read_bytes(folder_ / "again/out/adapter.safetensors"), read_bytes(adapter));
  }
};

TEST_F(FlowControl, FluxIsControlledByChannels) {
  train_use_and_resume("flux_dev", "channels");
  const Json kept = Json::parse(io::SafetensorsFile::open(folder_ / "run/out/adapter.safetensors")
                                    ->metadata()
                                    .at("ringlet.control"));
  EXPECT_EQ(kept, (Json{{"network", "channels"}, {"signal", "canny"}, {"model", "FLUX.1 dev"}}));
}

TEST_F(FlowControl, StableDiffusion3IsControlledByItsEncoder) {
  train_use_and_resume("sd35", "encoder");
  // The encoder is evaluated like that of any other model.
  const ProgramResult evaluated =
      expect_success({"eval",        "control",
                      "--kind",      "canny",
                      "--reference", path("pictures"),
                      "--model",     path("model"),
                      "--adapter",   path("run/out/adapter.safetensors"),
                      "--samples",   "1",
                      "--steps",     "1",
                      "--size",      "16",
                      "--generated", path("made"),
                      "--prompt",    "waves"});
  EXPECT_NE(evaluated.out.find("F1"), std::string::npos) << evaluated.out;
  const ProgramResult refused = run_program(trained("controlnet", "1", "no"));
  EXPECT_EQ(refused.status, 5);
  EXPECT_NE(refused.err.find("this model is Stable Diffusion 3.5 medium"), std::string::npos);
  EXPECT_NE(refused.err.find("--control-network channels"), std::string::npos) << refused.err;
}

}  // namespace
}  // namespace ringlet::e2e
