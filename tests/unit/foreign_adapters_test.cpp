// Adapter files in the names and forms of programs that the golden files do not come from: what the
// merged weight then is, from each program's own formula, written out here.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/formats/adapter_writer.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/pipeline/embedding.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

constexpr const char* kQuery = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
constexpr const char* kConv = "down_blocks.0.resnets.0.conv1";
constexpr const char* kNorm = "down_blocks.0.resnets.0.norm1";
constexpr const char* kText = "text_model.encoder.layers.0.mlp.fc1";

/// A linear layer, a convolution and a norm of a U-Net, and one layer of a text encoder.
class ForeignAdapters : public testing::Test {
 protected:
  ForeignAdapters() {
    at::manual_seed(7);
    unet_.layers[kQuery] = std::make_shared<nn::LinearLayer>(at::randn({8, 12}), at::randn({8}));
    unet_.layers[kConv] = std::make_shared<nn::Conv2dLayer>(at::randn({6, 4, 3, 3}), at::randn({6}),
                                                            nn::Conv2dOptions{.padding = 1});
    unet_.tensors[std::string(kNorm) + ".weight"] = at::randn({4});
    unet_.tensors[std::string(kNorm) + ".bias"] = at::randn({4});
    text_.layers[kText] = std::make_shared<nn::LinearLayer>(at::randn({10, 6}), at::randn({10}));
  }

  ReadAdapter read(const Tensors& tensors, const io::Metadata& metadata = {}) const {
    const TemporaryFolder folder;
    io::save_tensors(folder / "a.safetensors", tensors, metadata);
    return read_adapter(folder / "a.safetensors", {{"unet", &unet_}, {"text_encoder", &text_}});
  }

  /// What merging writes.
  Tensors merged(const Tensors& tensors, double strength = 1.0) const {
    ReadAdapter adapter = read(tensors);
    adapter.set.set_strength(strength);
    return adapter.set.merged_weights();
  }

  at::Tensor query() const { return unet_.layers.at(kQuery)->weight(); }
  at::Tensor conv() const { return unet_.layers.at(kConv)->weight(); }
  at::Tensor text() const { return text_.layers.at(kText)->weight(); }

  static void expect_close(const at::Tensor& actual, const at::Tensor& expected) {
    ASSERT_EQ(actual.sizes(), expected.sizes());
    EXPECT_LE((actual - expected).abs().max().item<double>(),
              2e-5 * expected.abs().max().item<double>());
  }

  nn::ModuleIndex unet_, text_;
};

std::string weight_of(const std::string& path) {
  return (path == kText ? "text_encoder." : "unet.") + path + ".weight";
}

/// Skew-symmetric from the numbers above the diagonal, row by row.
at::Tensor skew(const at::Tensor& numbers, std::int64_t size) {
  at::Tensor q = at::zeros({numbers.size(0), size, size});
  const at::Tensor above = at::triu_indices(size, size, 1);
  q.index_put_({at::indexing::Slice(), above[0], above[1]}, numbers);
  return q - q.transpose(1, 2);
}

/// OneTrainer's rotations: five terms of a series.
at::Tensor series(const at::Tensor& q) {
  const at::Tensor q2 = at::bmm(q, q), q3 = at::bmm(q2, q);
  return at::eye(q.size(-1)) + 2 * q + 2 * q2 + 2 * q3 + at::bmm(q3, q);
}

at::Tensor block_diagonal(const at::Tensor& blocks) { return at::block_diag(blocks.unbind()); }

TEST_F(ForeignAdapters, KohyaTurnsOutputsByLimitedRotations) {
  const at::Tensor m = at::randn({2, 4, 4}), kernel = 0.01 * at::randn({3, 2, 2});
  const auto rotated = [](const at::Tensor& w, const at::Tensor& numbers, double alpha) {
    at::Tensor q = numbers - numbers.transpose(1, 2);
    const double norm = q.norm().item<double>(), most = alpha * static_cast<double>(w.size(0));
    q = q * ((std::min(norm, most) + 1e-8) / (norm + 1e-8));
    const at::Tensor one = at::eye(q.size(-1));
    const at::Tensor r = at::matmul(one + q, at::inverse(one - q));
    return at::matmul(block_diagonal(r).t(), w.flatten(1)).view(w.sizes());
  };
  const Tensors file = {
      {"oft_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.oft_blocks", m},
      {"oft_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha",
       at::tensor(0.01F)},
      {"oft_unet_input_blocks_1_0_in_layers_2.oft_blocks", kernel},  // sd-scripts' names for the XL
      {"oft_unet_input_blocks_1_0_in_layers_2.alpha", at::tensor(0.9F)}};
  const Tensors weights = merged(file);
  EXPECT_GT((m - m.transpose(1, 2)).norm().item<double>(), 0.01 * 8);  // the limit is reached
  expect_close(weights.at(weight_of(kQuery)), rotated(query(), m, 0.01));
  expect_close(weights.at(weight_of(kConv)), rotated(conv(), kernel, 0.9));
  EXPECT_EQ(read(file).summary.dialect, "kohya");
}

TEST_F(ForeignAdapters, OldLycorisKeepsTheRotationsThemselves) {
  const at::Tensor r = at::randn({2, 4, 4});  // of any length: rescaled files are not orthogonal
  const Tensors file = {
      {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.oft_diag", r}};
  const at::Tensor turned = at::matmul(block_diagonal(r).t(), query());
  expect_close(merged(file).at(weight_of(kQuery)), turned);
  expect_close(merged(file, 0.25).at(weight_of(kQuery)), query() + 0.25 * (turned - query()));
}

TEST_F(ForeignAdapters, OneTrainerTurnsInputsAndTheWeightsOfConvolutions) {
  const std::string q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.",
                    c = "lora_unet_down_blocks_0_resnets_0_conv1.";
  const at::Tensor v = 0.1 * at::randn({3, 6}), k = 0.1 * at::randn({4, 36});
  const auto linear = [&](const at::Tensor& numbers) {
    return at::matmul(query(), block_diagonal(series(skew(numbers, 4))).t());
  };
  const at::Tensor kernel =
      at::matmul(conv().flatten(1), block_diagonal(series(skew(k, 9)))).view(conv().sizes());
  // Files of the kind in circulation hold an alpha, which does nothing.
  const Tensors weights =
      merged({{q + "oft_R.weight", v}, {q + "alpha", at::tensor(0.5F)}, {c + "oft_R.weight", k}});
  expect_close(weights.at(weight_of(kQuery)), linear(v));
  expect_close(weights.at(weight_of(kConv)), kernel);
  // One block for all, and the scaled form, whose marker is a truth value.
  const at::Tensor shared = v.slice(0, 0, 1);
  expect_close(merged({{q + "oft_R.weight", shared}}).at(weight_of(kQuery)),
               linear(shared.expand({3, 6})));
  expect_close(merged({{q + "oft_R.weight", v}, {q + "oft_R.scaled_oft", at::ones({}, at::kBool)}})
                   .at(weight_of(kQuery)),
               linear(v / (2.0 * std::sqrt(3.0))));
  // Its other formats: dots with a component, and LDM's names.
  for (const std::string& name : {std::string("unet.") + kQuery,
                                  std::string("diffusion_model.input_blocks.1.1.transformer_blocks."
                                              "0.attn1.to_q")})
    expect_close(merged({{name + ".oft_R.weight", v}}).at(weight_of(kQuery)), linear(v));
}

TEST_F(ForeignAdapters, ComfyUiHasEveryMethodUnderLdmNames) {
  const std::string q = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.",
                    c = "diffusion_model.input_blocks.1.0.in_layers.2.",
                    n = "diffusion_model.input_blocks.1.0.in_layers.0.",
                    t = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.";
  const at::Tensor up = at::randn({8, 2}), down = at::randn({2, 12}), bias = at::randn({8});
  const at::Tensor change = at::matmul(up, down);
  for (const auto& [a, b] : {std::pair{"lora_up.weight", "lora_down.weight"},
                             {"lora_B.weight", "lora_A.weight"},
                             {"lora.up.weight", "lora.down.weight"},
                             {"lora_linear_layer.up.weight", "lora_linear_layer.down.weight"},
                             {"lora_B.default.weight", "lora_A.default.weight"},
                             {"lora_B", "lora_A"}}) {
    const Tensors weights =
        merged({{q + a, up}, {q + b, down}, {q + "alpha", at::tensor(1.0F)}, {q + "diff_b", bias}});
    expect_close(weights.at(weight_of(kQuery)), query() + 0.5 * change);
    expect_close(weights.at(std::string("unet.") + kQuery + ".bias"),
                 unet_.layers.at(kQuery)->bias() + bias);
  }
  const at::Tensor kernel = at::randn({6, 4, 3, 3}), scale = at::randn({4}),
                   offset = at::randn({4});
  const at::Tensor whole = at::randn({10, 6});
  const ReadAdapter mixed = read({{c + "diff", kernel},
                                  {n + "diff", scale},
                                  {n + "diff_b", offset},
                                  {t + "set_weight", whole}});
  const Tensors weights = mixed.set.merged_weights();
  EXPECT_EQ(mixed.summary.dialect, "ComfyUI");
  expect_close(weights.at(weight_of(kConv)), conv() + kernel);
  expect_close(weights.at(weight_of(kText)), whole);
  const std::string norm = std::string(kNorm) + ".weight";
  expect_close(weights.at("unet." + norm), unet_.tensors.at(norm) + scale);
  // Other methods come with the same endings as kohya's and LyCORIS's.
  const at::Tensor w1 = at::randn({2, 3}), w2 = at::randn({4, 4});
  expect_close(merged({{q + "lokr_w1", w1}, {q + "lokr_w2", w2}}).at(weight_of(kQuery)),
               query() + at::kron(w1, w2));
  // ComfyUI's limit on a rotation counts for all outputs together.
  const at::Tensor m = at::randn({2, 4, 4});
  at::Tensor skewed = m - m.transpose(1, 2);
  skewed = skewed * (0.5 / skewed.norm().item<double>());
  const at::Tensor r = at::matmul(at::eye(4) + skewed, at::inverse(at::eye(4) - skewed));
  expect_close(
      merged({{q + "oft_blocks", m}, {q + "alpha", at::tensor(0.5F)}}).at(weight_of(kQuery)),
      at::matmul(block_diagonal(r).t(), query()));
}

TEST_F(ForeignAdapters, NormsAreSetToo) {
  const at::Tensor scale = at::randn({4});
  const std::string norm = std::string(kNorm) + ".weight";
  expect_close(merged({{"diffusion_model.input_blocks.1.0.in_layers.0.set_weight", scale}})
                   .at("unet." + norm),
               scale);
  expect_error(ErrorCode::bad_format, "in_layers_0.lora_up.weight: does not belong to a norm", [&] {
    read({{"lora_unet_input_blocks_1_0_in_layers_0.lora_up.weight", at::randn({4, 2})}});
  });
}

TEST_F(ForeignAdapters, NamesOfSeveralProgramsInOneFileAreRead) {
  const at::Tensor up = at::randn({8, 2}), down = at::randn({2, 12});
  const at::Tensor wide = at::randn({10, 3}), narrow = at::randn({3, 6});
  // diffusers' U-Net beside a text encoder of kohya's, OneTrainer's DoRA of input columns under
  // dotted names, and embeddings that are no part of any layer.
  const at::Tensor lengths = at::rand({1, 12}) + 0.5;
  const ReadAdapter adapter =
      read({{std::string("unet.") + kQuery + ".lora_A.weight", down},
            {std::string("unet.") + kQuery + ".lora_B.weight", up},
            {std::string("unet.") + kQuery + ".dora_scale", lengths},
            {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", wide},
            {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", narrow},
            {"bundle_emb.mydog.clip_l", at::randn({2, 6})}});
  const Tensors weights = adapter.set.merged_weights();
  EXPECT_EQ(adapter.summary.dialect, "kohya and diffusers");
  expect_close(weights.at(weight_of(kText)), text() + at::matmul(wide, narrow));
  const at::Tensor sum = query() + at::matmul(up, down);
  expect_close(weights.at(weight_of(kQuery)), sum / sum.norm(2, 0, true) * lengths);
  const auto& said = adapter.summary.decisions;
  EXPECT_TRUE(std::ranges::any_of(said, [](const std::string& one) {
    return one.find("`embedding`") != std::string::npos &&
           one.find("bundle_emb.mydog.clip_l") != std::string::npos;
  }));
}

TEST_F(ForeignAdapters, BundledEmbeddingsAreReadAsEmbeddings) {
  const TemporaryFolder folder;
  const auto file = folder / "lora.safetensors";
  const at::Tensor first = at::randn({2, 6}), second = at::randn({2, 10}),
                   other = at::randn({1, 6});
  const Tensors layers = {{"lora_unet_x.lora_up.weight", at::randn({8, 2})}};
  const auto save = [&](Tensors tensors) {
    tensors.insert(layers.begin(), layers.end());
    io::save_tensors(file, tensors);
  };
  save({{"bundle_emb.my.dog.clip_l", first},
        {"bundle_emb.my.dog.clip_g", second},
        {"bundle_emb.cat.string_to_param.*", other}});
  const auto words = pipeline::read_embeddings(file);
  ASSERT_EQ(words.size(), 2U);
  EXPECT_EQ(words[0].word, "cat");
  EXPECT_EQ(words[1].word, "my.dog");
  ASSERT_EQ(words[1].rows.size(), 2U);
  EXPECT_TRUE(at::equal(words[0].rows.front(), other));
  EXPECT_TRUE(at::equal(words[1].rows[0], first));
  EXPECT_TRUE(at::equal(words[1].rows[1], second));
  save({{"bundle_emb.dog.clip_l_out", first}});  // added to the encoder's output by OneTrainer
  expect_error(ErrorCode::unsupported, "bundle_emb.dog.clip_l_out",
               [&] { pipeline::read_embeddings(file); });
  save({{"bundle_emb.dog.clip_g", first}});
  expect_error(ErrorCode::bad_format, "no \"clip_l\"", [&] { pipeline::read_embeddings(file); });
}

// ringlet's own files, whichever spelling they and the model have.
TEST_F(ForeignAdapters, OwnAdaptersFitTextEncodersWithTheLevelAndWithout) {
  const TemporaryFolder folder;
  nn::ModuleIndex flat;
  flat.layers["encoder.layers.0.mlp.fc1"] = text_.layers.at(kText);
  const adapt::Components level = {{"text_encoder", &text_}}, bare = {{"text_encoder", &flat}};
  const auto file = [&](const char* name) { return folder / (std::string(name) + ".safetensors"); };
  for (const auto& [components, name] : {std::pair{&level, "level"}, {&bare, "bare"}}) {
    const auto targets = adapt::select_targets(*components, {.include = {"*"}});
    const auto set = adapt::AdapterSet::create(adapt::parse_method("oft(block=2)+lora(rank=2)"),
                                               targets, adapt::FactorTable(), Random(1));
    for (const auto& [part, tensor] : set.parameters())
      tensor.detach().copy_(0.1 * at::randn(tensor.sizes()));
    adapt::save_adapter(file(name), set);
  }
  for (const char* name : {"level", "bare"}) {
    const Tensors one = adapt::load_adapter(file(name), level).set.merged_weights();
    const Tensors other = adapt::load_adapter(file(name), bare).set.merged_weights();
    expect_close(one.at(weight_of(kText)),
                 other.at("text_encoder.encoder.layers.0.mlp.fc1.weight"));
    EXPECT_GT((one.at(weight_of(kText)) - text()).abs().max().item<double>(), 0.01);
  }
  // Both spellings in one file would be one layer twice.
  auto metadata = io::SafetensorsFile::open(file("level"))->metadata();
  metadata["ringlet.base_shapes"] = R"({"text_encoder.text_model.encoder.layers.0.mlp.fc1":[10,6],)"
                                    R"("text_encoder.encoder.layers.0.mlp.fc1":[10,6]})";
  io::save_tensors(file("both"), io::load_tensors(file("level")), metadata);
  expect_error(ErrorCode::bad_format, "twice", [&] { adapt::load_adapter(file("both"), level); });
}

TEST_F(ForeignAdapters, PeftFilesAreWrittenForTheModelAsItIs) {
  const TemporaryFolder folder;
  const adapt::Components components = {{"text_encoder", &text_}};
  const auto set = adapt::AdapterSet::create(adapt::parse_method("lora(rank=2)"),
                                             adapt::select_targets(components, {.include = {"*"}}),
                                             adapt::FactorTable(), Random(1));
  const auto written = [&](std::map<std::string, std::string> names) {
    write_adapter(folder / "peft", set, {}, components,
                  {.format = AdapterFormat::peft, .class_names = std::move(names)});
    return io::load_tensors(folder / "peft/adapter_model.safetensors");
  };
  EXPECT_TRUE(written({}).contains("base_model.model." + std::string(kText) + ".lora_A.weight"));
  EXPECT_TRUE(written({{"text_encoder." + std::string(kText), "encoder.layers.0.mlp.fc1"}})
                  .contains("base_model.model.encoder.layers.0.mlp.fc1.lora_A.weight"));
}

}  // namespace
}  // namespace ringlet::formats
