#include "ringlet/pipeline/offload.h"

#include <array>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::pipeline {
namespace {

TEST(Offload, TheOptionTakesANumberOrAuto) {
  LoadOptions load;
  OptionList list;
  describe_offload(list, load);
  const auto& written = std::get<WrittenValue>(list.at("offload_layers").target);
  EXPECT_EQ(written.value(), "0");
  written.read({"7"});
  EXPECT_EQ(load.offload_layers, 7);
  written.read({"auto"});
  EXPECT_EQ(load.offload_layers, std::nullopt);
  EXPECT_EQ(written.value(), "auto");
  list.check();
  for (const char* wrong : {"-1", "many", "3.5", "", "7 blocks"})
    expect_error(ErrorCode::invalid_argument, "offload_layers", [&] { written.read({wrong}); });
  load.offload_layers = -2;
  expect_error(ErrorCode::invalid_argument, "offload_layers", [&] { list.check(); });
}

// Its weights are in host memory already.
TEST(Offload, TheCpuHasNothingToOffload) {
  const TemporaryFolder folder;
  golden::write_folder(folder / "model", "sd1");
  LoadOptions load;
  load.offload_layers = 2;
  expect_error(ErrorCode::unsupported, "low_memory",
               [&] { StableDiffusion::open(folder / "model", load); });
  load.offload_layers = std::nullopt;
  const auto model = StableDiffusion::open(folder / "model", load);
  EXPECT_EQ(offloadable_blocks(model), 0);
  EXPECT_EQ(offload_effect(model, 3).saved_bytes, 0.0);
  EXPECT_EQ(blocks_that_save(model, 1e9), 0);
  EXPECT_EQ(offload_for(model, 1e12), 0);
  EXPECT_EQ(weight_bytes(model, NetworkRole::denoiser), 0.0);
}

TEST(Offload, NetworksRestByWhatTheyAreLoadedFor) {
  LoadOptions load;
  EXPECT_EQ(load.idle_networks(), IdleNetworks::stay);
  load.for_training = true;
  EXPECT_EQ(load.idle_networks(), IdleNetworks::coders_leave);
  load.idle = IdleNetworks::all_leave;
  EXPECT_EQ(load.idle_networks(), IdleNetworks::all_leave);
  load = {};
  load.low_memory = true;
  EXPECT_EQ(load.idle_networks(), IdleNetworks::coders_leave);
}

}  // namespace
}  // namespace ringlet::pipeline
