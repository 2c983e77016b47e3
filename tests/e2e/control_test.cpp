// `ringlet control make`, `train --control` and `generate --control-image`, on the tiny models.
#include "ringlet/core/json.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

class Control : public TinyProgram {
 protected:
  Control() {
    write_model("sd1");
    train::write_pictures(folder_ / "pictures", 4);
  }

  Arguments train(const Arguments& more) const {
    Arguments all = {"train",
                     "--model",
                     path("model"),
                     "--instance-images",
                     path("pictures"),
                     "--instance-prompt",
                     "waves",
                     "--steps",
                     "2",
                     "--resolution",
                     "16",
                     "--seed",
                     "1",
                     "--sample-steps",
                     "1",
                     "--control",
                     "canny",
                     "--validation-pictures",
                     "2",
                     "--learning-rate",
                     "1e-2"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Arguments generate(const std::string& out, const Arguments& more) const {
    Arguments all = {"generate", "--model",  path("model"), "--prompt", "waves",
                     "--steps",  "2",        "--seed",      "1",        "--width",
                     "16",       "--height", "16",          "--out",    path(out)};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  static void expect_failure(const Arguments& arguments, const std::string& words) {
    const ProgramResult result = run_program(arguments);
    EXPECT_NE(result.status, 0);
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  }
};

TEST_F(Control, MakeNeverWritesOverItsPictures) {
  const std::string before = read_bytes(folder_ / "pictures/a.png");
  const std::string out = path("pictures");
  for (const Arguments& places : {Arguments{"--images", out, "--out", out},
                                  {"--images", out, "--out", out + "/edges"},
                                  {"--images", out + "/a.png", "--out", out + "/../pictures"}}) {
    Arguments command = {"control", "make", "--kind", "canny"};
    command.insert(command.end(), places.begin(), places.end());
    expect_failure(command, "lies in the folder of --images");
  }
  expect_failure({"control", "make", "--kind", "map", "--images", path("pictures/a.png"), "--given",
                  path("maps"), "--out", path("maps")},
                 "lies in the folder of --given");
  expect_failure({"control", "make", "--kind", "map", "--images", out, "--out", path("maps")},
                 "--given: is missing");
  EXPECT_EQ(read_bytes(folder_ / "pictures/a.png"), before);
  EXPECT_EQ(names_in(folder_ / "pictures").size(), 4u);
}

TEST_F(Control, MakeWritesASignalPerPicture) {
  for (const char* kind : {"canny", "segmentation"})
    expect_success({"control", "make", "--kind", kind, "--images", path("pictures"), "--out",
                    path(kind), "--size", "16"});
  EXPECT_EQ(names_in(folder_ / "canny"),
            (std::set<std::string>{"a.png", "b.png", "c.png", "d.png"}));
  EXPECT_EQ(io::read_image(folder_ / "canny/b.png").width, 16);
  expect_success({"control", "make", "--kind", "map", "--images", path("pictures"), "--given",
                  path("pictures"), "--out", path("maps")});
  EXPECT_EQ(io::read_image(folder_ / "maps/b.png").pixels,
            io::read_image(folder_ / "pictures/b.png").pixels);
  expect_failure({"control", "make", "--kind", "landmark", "--images", path("pictures"), "--given",
                  path("pictures"), "--out", path("x")},
                 "4 of 4 pictures have none");
  expect_failure(
      {"control", "make", "--kind", "depth", "--images", path("pictures"), "--out", path("x")},
      "use canny, segmentation, landmark or map");
  expect_failure({"control", "make", "--kind", "segmentation", "--canny-high", "50", "--images",
                  path("pictures"), "--out", path("x")},
                 "how canny finds edges");
  // Paths are bytes; JSON is UTF-8.
  const ProgramResult result =
      expect_success({"control", "make", "--kind", "canny", "--images", path("pictures"), "--out",
                      path("edges\xff"), "--json"});
  EXPECT_EQ(Json::parse(result.out).at("pictures"), 4);
  expect_failure({"control", "create"}, "use ringlet control make");
}

TEST_F(Control, AnAdapterFileCarriesItsEncoder) {
  const ProgramResult result =
      expect_success(train({"--out", path("run"), "--method", "lora(rank=2)"}));
  EXPECT_NE(result.err.find("canny through encoder"), std::string::npos) << result.err;
  EXPECT_TRUE(fs::exists(folder_ / "run/control.csv"));
  const std::string adapter = path("run/adapter.safetensors");
  expect_success(generate("with.png", {"--adapter", adapter, "--control-image",
                                       path("pictures/a.png"), "--control", "canny"}));
  const ProgramResult other =
      expect_success(generate("other.png", {"--adapter", adapter, "--control-image",
                                            path("pictures/a.png"), "--control", "segmentation"}));
  EXPECT_NE(other.err.find("learnt to follow canny, and the signal is segmentation"),
            std::string::npos)
      << other.err;
  expect_success({"control", "make", "--kind", "canny", "--images", path("pictures/a.png"), "--out",
                  path("edges"), "--size", "16"});
  expect_success(
      generate("map.png", {"--adapter", adapter, "--control-image", path("edges/a.png")}));
  const auto without = expect_success(generate("without.png", {"--adapter", adapter}));
  EXPECT_NE(without.err.find("give --control-image"), std::string::npos) << without.err;
  const auto pixels = [&](const char* name) { return io::read_image(folder_ / name).pixels; };
  EXPECT_EQ(pixels("with.png"), pixels("map.png"));
  EXPECT_NE(pixels("with.png"), pixels("without.png"));
  expect_failure(generate("x.png", {"--control-image", path("pictures/a.png")}), "nothing uses it");
  expect_failure(generate("x.png", {"--control", "canny"}), "need it");
  expect_failure(generate("x.png", {"--canny-low", "50"}), "how canny finds edges");

  // Other programs' files cannot hold it; ringlet's own can.
  expect_failure({"convert", "--model", path("model"), "--adapter", adapter, "--to", "kohya",
                  "--out", path("k.safetensors")},
                 "control encoder");
  expect_success({"merge", "--model", path("model"), "--adapter", adapter, "--into-adapter",
                  "--out", path("again.safetensors")});
  expect_success(generate("again.png", {"--adapter", path("again.safetensors"), "--control-image",
                                        path("edges/a.png")}));
  EXPECT_EQ(pixels("again.png"), pixels("map.png"));
}

TEST_F(Control, AControlNetBesideAnAdapterIsNamed) {
  const Arguments both = {"--method", "lora(rank=2)", "--control-network", "controlnet"};
  Arguments first = both, second = both;
  first.insert(first.end(), {"--out", path("run")});
  second.insert(second.end(), {"--out", path("second"), "--json"});
  EXPECT_EQ(expect_success(train(first)).out, path("run/adapter.safetensors") + "\n" +
                                                  path("run/controlnet") + "\n" +
                                                  path("run/report.html") + "\n");
  const Json said = parse_json(expect_success(train(second)).out, "stdout");
  EXPECT_EQ(said.at("result"), path("second/adapter.safetensors"));
  EXPECT_EQ(said.at("controlnet"), path("second/controlnet"));
}

TEST_F(Control, AControlNetIsTrainedAlone) {
  const ProgramResult alone = expect_success(
      train({"--out", path("run"), "--method", "none", "--control-network", "controlnet"}));
  EXPECT_EQ(alone.out, path("run/controlnet") + "\n" + path("run/report.html") + "\n");
  EXPECT_EQ(names_in(folder_ / "run/controlnet"),
            (std::set<std::string>{"config.json", "diffusion_pytorch_model.safetensors"}));
  expect_success(generate("a.png", {"--controlnet", path("run/controlnet"), "--control-image",
                                    path("pictures/a.png"), "--control", "canny"}));
  expect_success(
      generate("b.png", {"--controlnet", path("run/controlnet"), "--control-image",
                         path("pictures/a.png"), "--control", "canny", "--control-strength", "0"}));
  expect_success(generate("plain.png", {}));
  const auto pixels = [&](const char* name) { return io::read_image(folder_ / name).pixels; };
  EXPECT_NE(pixels("a.png"), pixels("b.png"));
  EXPECT_EQ(pixels("b.png"), pixels("plain.png"));
}

}  // namespace
}  // namespace ringlet::e2e
