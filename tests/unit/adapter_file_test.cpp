#include "ringlet/adapt/set/adapter_file.h"

#include <array>
#include <limits>

#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/io/tensor_file.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_adapted_model.h"

namespace ringlet::adapt {
namespace {

/// Writes an adapter, then damages one thing of it.
class AdapterFile : public testing::Test {
 protected:
  AdapterFile() : path_(folder_ / "a.safetensors") {
    const AdapterSet set = model_.adapters("trm(rank=2)+lora(rank=2)");
    disturb(set);
    save_adapter(path_, set);
    tensors_ = io::load_tensors(path_);
    for (auto& [name, tensor] : tensors_) tensor = tensor.clone();
    metadata_ = io::SafetensorsFile::open(path_)->metadata();
  }

  /// Writes the damaged content and expects this error, and that nothing changed in the model.
  void expect_refused(ErrorCode code, const std::string& words) {
    io::save_tensors(path_, tensors_, metadata_);
    expect_refused(model_, code, words);
  }
  void expect_refused(const TinyModel& model, ErrorCode code, const std::string& words) const {
    const std::vector<at::Tensor> before = model.outputs();
    expect_error(code, path_.string(), [&] { load_adapter(path_, model.components()); });
    expect_error(code, words, [&] { load_adapter(path_, model.components()); });
    EXPECT_TRUE(equal(model.outputs(), before));
    for (const Target& target : model.targets()) EXPECT_EQ(target.layer->adapter, nullptr);
  }

  TemporaryFolder folder_;
  std::filesystem::path path_;
  TinyModel model_;
  std::map<std::string, at::Tensor> tensors_;
  io::Metadata metadata_;
};

class AdapterFileMethods : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, AdapterFileMethods, testing::ValuesIn(all_methods()), method_name);

// L4
TEST_P(AdapterFileMethods, SavedLoadedAndSavedAgainIsTheSameFile) {
  const TemporaryFolder folder;
  const TinyModel model;
  for (const at::ScalarType storage : {at::kFloat, at::kHalf, at::kBFloat16}) {
    AdapterSet set = model.adapters(GetParam());
    disturb(set);
    const AdapterFileInfo info = {.base_hash = "abc",
                                  .training = R"({"seed":7})",
                                  .extra = {{"modelspec.title", "A cat"}, {"ss_steps", "10"}},
                                  .storage = storage};
    save_adapter(folder / "one", set, info);
    LoadedAdapter loaded = load_adapter(folder / "one", model.components());
    EXPECT_EQ(loaded.info.base_hash, info.base_hash);
    EXPECT_EQ(loaded.info.training, info.training);
    EXPECT_EQ(loaded.info.extra, info.extra);
    EXPECT_EQ(loaded.info.storage, storage);
    save_adapter(folder / "two", loaded.set, loaded.info);
    EXPECT_EQ(file_content(folder / "one"), file_content(folder / "two"));

    EXPECT_FALSE(loaded.set.attached());
    const Parameters expected = set.parameters(), actual = loaded.set.parameters();
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(actual[i].first, expected[i].first);
      EXPECT_EQ(actual[i].second.scalar_type(), at::kFloat);
      EXPECT_FALSE(actual[i].second.requires_grad());
      const at::Tensor stored = expected[i].second.detach().to(storage).to(at::kFloat);
      EXPECT_TRUE(at::equal(actual[i].second, stored)) << actual[i].first;
    }
    if (storage != at::kFloat) continue;
    set.set_trainable(false);  // what is trained may be computed another way, to rounding
    set.attach();
    const std::vector<at::Tensor> outputs = model.outputs();
    set.detach();
    set.set_trainable(true);
    loaded.set.attach();
    EXPECT_TRUE(equal(model.outputs(), outputs));
  }
}

// L7
TEST_P(AdapterFileMethods, WritesFiniteNumbersOnly) {
  const TemporaryFolder folder;
  const TinyModel model;
  const AdapterSet healthy = model.adapters(GetParam());
  save_adapter(folder / "a", healthy);
  const std::string before = file_content(folder / "a");
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (std::size_t i = 0; i < healthy.parameters().size(); ++i) {
      const AdapterSet set = model.adapters(GetParam());
      const auto [name, tensor] = set.parameters()[i];
      tensor.detach().flatten()[-1].fill_(value);
      expect_error(ErrorCode::non_finite, name, [&] { save_adapter(folder / "a", set); });
      expect_error(ErrorCode::non_finite, name, [&] { save_adapter(folder / "new", set); });
    }
  EXPECT_EQ(file_content(folder / "a"), before);
  EXPECT_EQ(entry_count(folder.path()), 1u);
}

TEST_F(AdapterFile, NumbersTooLargeForTheStorageTypeAreNotWritten) {
  const AdapterSet set = model_.adapters("lora");
  set.parameters().back().second.detach().fill_(1e5);
  expect_error(ErrorCode::non_finite, "too large for fp16",
               [&] { save_adapter(folder_ / "half", set, {.storage = at::kHalf}); });
  EXPECT_FALSE(std::filesystem::exists(folder_ / "half"));
  save_adapter(folder_ / "bf16", set, {.storage = at::kBFloat16});
}

TEST_F(AdapterFile, RefusesToWriteWhatIsNotItsOwn) {
  const AdapterSet set = model_.adapters("lora");
  expect_error(ErrorCode::invalid_argument, "Double",
               [&] { save_adapter(folder_ / "b", set, {.storage = at::kDouble}); });
  expect_error(ErrorCode::invalid_argument, "ringlet.method: is a metadata key", [&] {
    save_adapter(folder_ / "b", set, {.extra = {{"ringlet.method", "x"}}});
  });
  EXPECT_EQ(entry_count(folder_.path()), 1u);
}

TEST_F(AdapterFile, SaysAllThatIsNeededToBuildItAgain) {
  EXPECT_EQ(metadata_.at("ringlet.format"), "1");
  EXPECT_EQ(metadata_.at("ringlet.method"), "trm(init=asymmetric,rank=2)+lora(alpha=2,rank=2)");
  EXPECT_EQ(metadata_.at("ringlet.modes"), "3");
  EXPECT_EQ(metadata_.at("ringlet.base_shapes"),
            R"({"text_encoder.layers.0.fc1":[20,7],"unet.mid.attn1.to_out.0":[12,12],)"
            R"("unet.mid.attn1.to_q":[12,12],"unet.mid.attn2.to_k":[12,10],)"
            R"("unet.mid.conv":[6,8,3,3]})");
  EXPECT_TRUE(tensors_.contains("unet.mid.attn1.to_out.0.transform.core_2"));
  EXPECT_TRUE(tensors_.contains("text_encoder.layers.0.fc1.residual.down"));
}

TEST_F(AdapterFile, KeepsFactorsThatWereChosenByHand) {
  FactorTable factors(2);
  factors.set(12, {2, 6});
  factors.set(320, {16, 20});  // no layer has it
  const AdapterSet set =
      AdapterSet::create(parse_method("trm+tr"), model_.targets(), factors, Random(1));
  save_adapter(path_, set);
  const LoadedAdapter loaded = load_adapter(path_, model_.components());
  EXPECT_EQ(loaded.set.factors().modes(), 2);
  EXPECT_EQ(loaded.set.factors().entries(), set.factors().entries());
  EXPECT_EQ(loaded.set.factors().entries().at(12), (Factors{2, 6}));
  EXPECT_EQ(loaded.set.factors().entries().at(320), (Factors{16, 20}));
}

TEST_F(AdapterFile, ABaseOfAnotherKindChangesNothing) {
  const TinyModel wider(16);
  expect_refused(wider, ErrorCode::mismatch,
                 "layer \"unet.mid.attn2.to_k\" has shape [12, 10] in the file, [12, 16] in the");
  expect_refused(wider, ErrorCode::mismatch, "another kind of base model");

  TinyModel fewer(16);  // the first by name is reported
  fewer.unet_.layers.erase("mid.attn1.to_out.0");
  expect_refused(fewer, ErrorCode::mismatch,
                 "layer \"unet.mid.attn1.to_out.0\" of shape [12, 12], which the model does not");

  Components only_unet = model_.components();
  only_unet.erase("text_encoder");
  expect_error(ErrorCode::mismatch,
               "\"text_encoder.layers.0.fc1\" of shape [20, 7], but the model "
               "has no \"text_encoder\"",
               [&] { load_adapter(path_, only_unet); });
}

TEST_F(AdapterFile, AnotherHashOfTheBaseIsAWarning) {
  const AdapterSet set = model_.adapters("lora");
  save_adapter(path_, set, {.base_hash = "1234"});
  const LogCapture log;
  load_adapter(path_, model_.components());
  load_adapter(path_, model_.components(), "1234");
  save_adapter(folder_ / "unknown", set);
  load_adapter(folder_ / "unknown", model_.components(), "5678");
  EXPECT_EQ(log.warnings(), "");
  load_adapter(path_, model_.components(), "5678");
  EXPECT_NE(log.warnings().find("another base model (1234, this one is 5678)"), std::string::npos);
}

TEST_F(AdapterFile, OtherFilesAreNotAdapters) {
  metadata_.erase("ringlet.method");
  expect_refused(ErrorCode::unsupported, "is not a ringlet adapter file");
  metadata_.clear();
  expect_refused(ErrorCode::unsupported, "is not a ringlet adapter file");
  expect_error(ErrorCode::not_found, "missing",
               [&] { load_adapter(folder_ / "missing", model_.components()); });
}

TEST_F(AdapterFile, NewerFormatsAndMethodsAreSaidToBeNewer) {
  metadata_["ringlet.format"] = "2";
  expect_refused(ErrorCode::unsupported, "has format 2; this ringlet reads up to 1");
  for (const char* wrong : {"", "0", "-1", "1.0", "1 ", "99999999999999999999"}) {
    metadata_["ringlet.format"] = wrong;
    expect_refused(ErrorCode::bad_format, "not a whole number above 0");
  }
  metadata_["ringlet.format"] = "1";
  metadata_["ringlet.method"] = "spectral(rank=2)";
  expect_refused(ErrorCode::unsupported, "there is no method \"spectral\"");
}

TEST_F(AdapterFile, DamagedMetadataIsNamed) {
  const io::Metadata whole = metadata_;
  for (const auto& [key, value] : whole) {
    if (key == "ringlet.method") continue;
    metadata_.erase(key);
    expect_refused(ErrorCode::bad_format, "lacks the metadata \"" + key + "\"");
    metadata_ = whole;
  }
  const std::vector<std::array<std::string, 3>> wrong = {
      {"ringlet.modes", "9", "more than 8"},
      {"ringlet.modes", "two", "not a whole number"},
      {"ringlet.modes", "2", "2 factors"},
      {"ringlet.factors", "[]", "is not a JSON object"},
      {"ringlet.factors", "{", "ringlet.factors"},
      {"ringlet.factors", R"({"12":[2,2,3]})", "factors of 12 are not a string"},
      {"ringlet.factors", R"({"x":"2x2x3"})", "not a whole number"},
      {"ringlet.factors", R"({"12":"2x2x2"})", "too small"},
      {"ringlet.factors", R"({"12":"2000000000x2000000000x2000000000"})", "too large"},
      {"ringlet.factors", R"({"12":"4x4x4"})", "too large"},
      {"ringlet.base_shapes", "{}", "names no layer"},
      {"ringlet.base_shapes", R"({"unet.mid.conv":[6]})", "which no layer has"},
      {"ringlet.base_shapes", R"({"unet.mid.conv":[6,-8,3,3]})", "which no layer has"},
      {"ringlet.base_shapes", R"({"unet.mid.conv":"6"})", "wrong type"}};
  for (const auto& [key, value, words] : wrong) {
    metadata_[key] = value;
    expect_refused(ErrorCode::bad_format, words);
    metadata_ = whole;
  }
  for (const char* name : {"", "unet", "unet.", ".", "unet.mid"}) {
    metadata_["ringlet.base_shapes"] = "{\"" + std::string(name) + "\":[6,8]}";
    expect_refused(ErrorCode::mismatch, "changes layer \"" + std::string(name) + "\"");
  }
}

// A file must not make ringlet allocate more than it brings along.
TEST_F(AdapterFile, HugeRanksAreRefusedBeforeAnythingIsAllocated) {
  for (const char* method : {"trm(rank=1000000)", "lora(rank=1000000)", "tr(rank=100000)",
                             "trm(rank=3)+tr(rank=1000000)", "lora(rank=50)"}) {
    metadata_["ringlet.method"] = method;
    expect_refused(ErrorCode::bad_format, "numbers, fewer than");
  }
  TinyModel wide;
  wide.unet_.layers["mid.wide"] =
      std::make_shared<nn::LinearLayer>(at::zeros({1}).expand({1, 1 << 12}), at::Tensor());
  metadata_["ringlet.base_shapes"] = R"({"unet.mid.wide":[1,4096]})";
  metadata_["ringlet.modes"] = "1";
  metadata_["ringlet.factors"] = "{}";
  metadata_["ringlet.method"] = "trm(rank=1000000)";
  io::save_tensors(path_, tensors_, metadata_);
  expect_refused(wide, ErrorCode::bad_format, "too large for its layers");
}

TEST_F(AdapterFile, TensorsAreThoseOfTheMethodAndFinite) {
  const std::map<std::string, at::Tensor> whole = tensors_;
  const std::string name = "unet.mid.attn1.to_q.residual.down";
  const at::Tensor original = tensors_.at(name);

  tensors_.erase(name);
  tensors_["spare"] = at::ones({1000});
  expect_refused(ErrorCode::bad_format, "tensor \"" + name + "\" is missing");
  tensors_ = whole;
  tensors_["unet.mid.attn1.to_q.residual.mid"] = at::ones({2});
  expect_refused(ErrorCode::bad_format, "residual.mid\" belongs to none of its layers");
  tensors_ = whole;
  tensors_[name] = original.t().contiguous();
  expect_refused(ErrorCode::bad_format, "has shape [12, 2] instead of [2, 12]");
  tensors_[name] = original.to(at::kHalf);
  expect_refused(ErrorCode::bad_format, "another type than the first");
  tensors_[name] = original.clone();
  tensors_[name][1][3] = std::numeric_limits<float>::quiet_NaN();
  expect_refused(ErrorCode::non_finite, "tensor \"" + name + "\" holds a NaN");
  tensors_ = whole;
  for (auto& [each, tensor] : tensors_) tensor = tensor.to(at::kDouble);
  expect_refused(ErrorCode::bad_format, "type Double");
}

TEST_F(AdapterFile, ALoadedOneMayReplaceItsOwnFile) {
  const LoadedAdapter loaded = load_adapter(path_, model_.components());
  const std::string before = file_content(path_);
  save_adapter(path_, loaded.set, loaded.info);
  EXPECT_EQ(file_content(path_), before);
}

}  // namespace
}  // namespace ringlet::adapt
