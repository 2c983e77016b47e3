// `ringlet bench` on the tiny model.
#include "ringlet/core/json.h"
#include "tests/e2e/tiny_program_test.h"

namespace ringlet::e2e {
namespace {

class Bench : public TinyProgram {
 protected:
  Bench() { write_model("sd1"); }

  Arguments arguments(const Arguments& more) const {
    Arguments all = {"bench",   "--model", path("model"), "--resolution", "16", "--rounds", "1",
                     "--steps", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST_F(Bench, SaysHowFastThisMachineIs) {
  const ProgramResult text = expect_success(
      arguments({"--methods", "lora(rank=2),oft(block=2)", "--out", path("out"), "--quiet"}));
  for (const char* word : {"fp32 on cpu", "forward pass", "lora(rank=2)", "oft(block=2)",
                           "convolution", "of products", "bench.html"})
    EXPECT_NE(text.out.find(word), std::string::npos) << word << "\n" << text.out;
  EXPECT_EQ(names_in(folder_ / "out"),
            (std::set<std::string>{"bench.html", "bench.json", "kinds.png", "memory.png",
                                   "roofline.png"}));
  const ProgramResult json = expect_success(
      arguments({"--methods", "lora(rank=2)", "--gradient-checkpointing", "--json"}));
  EXPECT_EQ(json.err, "");
  const Json result = parse_json(json.out, "stdout");
  EXPECT_EQ(result.at("resolution"), 16);
  EXPECT_EQ(result.at("rows").at(1).at("name"), "lora(rank=2)");
  EXPECT_GT(result.at("rows").at(1).at("kinds").at("linear").at("operations").get<double>(), 0.0);
}

}  // namespace
}  // namespace ringlet::e2e
