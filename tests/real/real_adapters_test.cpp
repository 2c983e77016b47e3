// Adapter files that other people trained with other programs: each is described, read onto a
// network of the size that it was made for (random weights), and taken through every dialect that
// can hold it. scripts/fetch-real.sh gets the files; without them the tests are skipped.
// check_real_files.py compares the merged weights with those of the programs themselves.
#include <cstdlib>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/formats/adapter_reader.h"
#include "ringlet/formats/adapter_writer.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/models/text/clip_text.h"
#include "ringlet/pipeline/describe.h"
#include "ringlet/pipeline/other_network.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;

/// Where the files are: $RINGLET_REAL_ADAPTERS, what fetch-real.sh made, or a folder beside the
/// checkout.
fs::path real_file(const std::string& name) {
  const fs::path source(RINGLET_SOURCE_DIR);
  std::vector<fs::path> folders = {source / "tests/real/data", source / "../shared/data/adapters"};
  if (const char* named = std::getenv("RINGLET_REAL_ADAPTERS")) folders = {named};
  for (const fs::path& folder : folders)
    if (fs::exists(folder / name)) return folder / name;
  return {};
}

/// Any tensor that is asked for: a view of the same random numbers, so that a network of 860
/// million weights takes the memory of its largest one.
class SharedRandomStore final : public nn::TensorStore {
 public:
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init&) const override {
    const std::int64_t count = c10::multiply_integers(shape);
    const std::int64_t begin =
        static_cast<std::int64_t>(std::hash<std::string>{}(name) % 1000);  // not all alike
    if (numbers_.numel() < begin + count) numbers_ = golden::uniform("real", {begin + 2 * count});
    return numbers_.narrow(0, begin, count).view(shape);
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "random weights"; }

 private:
  mutable at::Tensor numbers_ = golden::uniform("real", {60'000'000});
};

/// The networks that a file is for.
class Networks {
 public:
  explicit Networks(const std::string& kind) {
    if (kind == "gpt2")
      add_gpt2();
    else
      add_diffusion(kind == "sd2");
  }
  adapt::Components components() const {
    adapt::Components all;
    for (const auto& [name, index] : indices_) all.emplace(name, &index);
    return all;
  }

 private:
  /// The shapes of Stable Diffusion 1.5, or 2.1.
  void add_diffusion(bool two) {
    Json config = {
        {"_class_name", "UNet2DConditionModel"},
        {"in_channels", 4},
        {"out_channels", 4},
        {"sample_size", 64},
        {"layers_per_block", 2},
        {"block_out_channels", {320, 640, 1280, 1280}},
        {"cross_attention_dim", two ? 1024 : 768},
        {"attention_head_dim", 8},
        {"use_linear_projection", two},
        {"down_block_types",
         {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"}},
        {"up_block_types",
         {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"}}};
    if (two) config["attention_head_dim"] = {5, 10, 20, 20};
    const nn::WeightSource unet(store_);
    models::UNet(unet, models::UNetConfig::from_json(config, "unet"));
    indices_.emplace("unet", unet.finish());
    models::ClipTextConfig text;
    text.hidden_size = two ? 1024 : 768;
    text.intermediate_size = 4 * text.hidden_size;
    text.num_hidden_layers = two ? 23 : 12;
    text.num_attention_heads = two ? 16 : 12;
    const nn::WeightSource encoder(store_);
    models::ClipTextModel(encoder, text);
    indices_.emplace("text_encoder", encoder.finish());
  }

  /// GPT-2's attention, as it is published: no "transformer." before the names.
  void add_gpt2() {
    nn::ModuleIndex index;
    for (int layer = 0; layer < 12; ++layer) {
      const std::string name = "h." + std::to_string(layer) + ".attn.c_attn";
      const at::Tensor weight = store_->find(name, {768, 2304}, {}).value();
      index.layers[name] = nn::layer_of_tensor(weight, store_->find("bias", {2304}, {}).value(),
                                               /*transposed=*/true);
      index.tensors[name + ".weight"] = weight;
    }
    index.tensors["wte.weight"] = store_->find("wte.weight", {8, 768}, {}).value();
    indices_["model"] = pipeline::with_other_names(std::move(index));
  }

  std::shared_ptr<SharedRandomStore> store_ = std::make_shared<SharedRandomStore>();
  std::map<std::string, nn::ModuleIndex> indices_;
};

struct RealFile {
  std::string name;     ///< of the file or folder
  std::string network;  ///< "sd1", "sd2", "gpt2"
  std::string kind;     ///< what `ringlet inspect FILE` says
  std::string dialect;
  std::size_t layers;
  std::set<std::string> held_by;  ///< the programs whose files can hold it

  friend void PrintTo(const RealFile& one, std::ostream* stream) { *stream << one.name; }
};

std::vector<RealFile> real_files() {
  const std::set<std::string> all = {"peft", "diffusers", "kohya", "lycoris", "comfyui"};
  return {
      {"cloneofsimo_analog_svd_rank4.safetensors", "sd1", "LoRA adapter (cloneofsimo)",
       "cloneofsimo", 192, all},
      {"cloneofsimo_lora_disney.safetensors", "sd1", "LoRA adapter (cloneofsimo)", "cloneofsimo",
       192, all},
      {"cloneofsimo_lora_disney_inpainting.safetensors", "sd1", "LoRA adapter (cloneofsimo)",
       "cloneofsimo", 192, all},
      {"catundchat_sd15_r4.safetensors", "sd1", "LoRA adapter (diffusers)", "diffusers", 128, all},
      {"diffusers_sd21base_whale_r4.safetensors", "sd2", "LoRA adapter (diffusers)", "diffusers",
       128, all},
      {"lycoris_smart_falcon_4_lokr.safetensors",
       "sd1",
       "LoKr adapter (kohya)",
       "kohya",
       350,
       {"lycoris", "comfyui"}},
      {"lycoris_smart_falcon_8_lokr.safetensors",
       "sd1",
       "LoKr adapter (kohya)",
       "kohya",
       350,
       {"lycoris", "comfyui"}},
      {"lycoris_smart_falcon_16_lokr.safetensors",
       "sd1",
       "LoKr adapter (kohya)",
       "kohya",
       350,
       {"lycoris", "comfyui"}},
      {"peft_gpt2_shibbir24", "gpt2", "LoRA adapter (PEFT)", "PEFT", 12, {"peft"}}};
}

/// Every number, and the weights of one layer of each shape.
void expect_same(const adapt::AdapterSet& actual, const adapt::AdapterSet& expected) {
  const adapt::Parameters a = actual.stored(), b = expected.stored();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].first, b[i].first);
    ASSERT_TRUE(at::equal(a[i].second.squeeze(), b[i].second.squeeze())) << a[i].first;
  }
  std::set<std::pair<std::vector<std::int64_t>, std::string>> seen;
  for (std::size_t i = 0; i < expected.entries().size(); ++i) {
    const auto &one = actual.entries()[i], &other = expected.entries()[i];
    ASSERT_EQ(one.target.full_name(), other.target.full_name());
    const at::Tensor& w0 = other.target.layer->weight();
    if (!seen.emplace(w0.sizes().vec(), other.adapter->spec()).second) continue;
    EXPECT_TRUE(at::equal(one.adapter->weight(w0), other.adapter->weight(w0)))
        << one.target.full_name();
  }
}

class RealAdapters : public testing::TestWithParam<RealFile> {};

TEST_P(RealAdapters, AreReadAndTakenThroughEveryDialectThatHoldsThem) {
  const RealFile& one = GetParam();
  const fs::path path = real_file(one.name);
  if (path.empty()) GTEST_SKIP() << one.name << " is not here; scripts/fetch-real.sh gets it";
  const fs::path file = fs::is_directory(path) ? path / "adapter_model.safetensors" : path;
  EXPECT_EQ(pipeline::describe(file).at("kind"), one.kind);

  const Networks networks(one.network);
  const adapt::Components components = networks.components();
  const formats::ReadAdapter read = formats::read_adapter(path, components);
  EXPECT_EQ(read.summary.dialect, one.dialect);
  EXPECT_EQ(read.set.entries().size(), one.layers);
  const TemporaryFolder folder;
  std::set<std::string> held_by;
  for (const auto& [name, written] : formats::kAdapterFormatNames) {
    const std::string format = name;
    SCOPED_TRACE(format);
    const fs::path out = folder / format;
    try {
      formats::write_adapter(out, read.set, read.info, components, {.format = written});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::unsupported) << error.what();
      continue;
    }
    if (format != "ringlet") held_by.insert(format);
    expect_same(formats::read_adapter(out, components).set, read.set);
  }
  EXPECT_EQ(held_by, one.held_by);
}

INSTANTIATE_TEST_SUITE_P(All, RealAdapters, testing::ValuesIn(real_files()), [](const auto& one) {
  return one.param.name.substr(0, one.param.name.find('.'));
});

// Sam_LoRA numbers its tensors (w_a_000) and names no layer.
TEST(RealAdapter, OfSegmentAnythingIsRefusedWithTheNameOfATensor) {
  const fs::path path = real_file("sam_vitb_lora_rank2.safetensors");
  if (path.empty())
    GTEST_SKIP() << "sam_vitb_lora_rank2.safetensors is not here; scripts/fetch-real.sh gets it";
  const Networks networks("sd1");
  expect_error(ErrorCode::mismatch, "w_a_000",
               [&] { formats::read_adapter(path, networks.components()); });
}

}  // namespace
}  // namespace ringlet
