#include "ringlet/nn/weight_store.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::nn {
namespace {

at::Tensor value(double number) { return at::full({2}, number, at::kFloat); }

class Shards : public testing::Test {
 protected:
  Shards() {
    io::save_tensors(folder_ / "a.safetensors", {{"one", value(1)}, {"two", value(2)}});
    io::save_tensors(folder_ / "b.safetensors", {{"three", value(3)}});
  }
  std::filesystem::path index(const Json& weight_map) {
    const auto path = folder_ / "model.safetensors.index.json";
    write_file_atomically(path,
                          Json{{"metadata", Json::object()}, {"weight_map", weight_map}}.dump());
    return path;
  }
  const Json good_ = {
      {"one", "a.safetensors"}, {"two", "a.safetensors"}, {"three", "b.safetensors"}};
  TemporaryFolder folder_;
};

TEST_F(Shards, AGoodIndexJoinsItsShards) {
  const auto path = index(good_);
  const auto store = FileStore::open(path);
  EXPECT_EQ(store->names(), (std::vector<std::string>{"one", "three", "two"}));
  EXPECT_TRUE(at::equal(*store->find("three", {}, {}), value(3)));
  EXPECT_TRUE(at::equal(*store->find("two", {}, {}), value(2)));
  EXPECT_FALSE(store->find("four", {}, {}));
  EXPECT_EQ(store->description(), path.string());
  EXPECT_EQ(store->files().size(), 2u);
}

TEST_F(Shards, ATensorInTheWrongShardIsRefused) {
  const auto path =
      index({{"one", "a.safetensors"}, {"two", "b.safetensors"}, {"three", "b.safetensors"}});
  expect_error(ErrorCode::bad_format, "places tensor \"two\" in \"b.safetensors\"",
               [&] { FileStore::open(path); });
}

TEST_F(Shards, ATensorThatNoShardHoldsIsRefused) {
  Json map = good_;
  map["four"] = "b.safetensors";
  expect_error(ErrorCode::bad_format, "places tensor \"four\"",
               [&] { FileStore::open(index(map)); });
}

TEST_F(Shards, AMissingShardIsNamed) {
  Json map = good_;
  map["four"] = "c.safetensors";
  expect_error(ErrorCode::not_found, "c.safetensors", [&] { FileStore::open(index(map)); });
}

TEST_F(Shards, TheIndexCannotNameFilesOutsideItsFolder) {
  for (const std::string name : {"../b.safetensors", "/etc/passwd", "sub/b.safetensors", "", "."}) {
    Json map = good_;
    map["four"] = name;
    expect_error(ErrorCode::bad_format, "not a plain name", [&] { FileStore::open(index(map)); });
  }
}

TEST_F(Shards, TheSameTensorInTwoShardsIsRefused) {
  io::save_tensors(folder_ / "b.safetensors", {{"three", value(3)}, {"one", value(9)}});
  expect_error(ErrorCode::bad_format, "b.safetensors: tensor \"one\" is already in another shard",
               [&] { FileStore::open(index(good_)); });
}

TEST_F(Shards, ADamagedIndexIsRefused) {
  const auto path = folder_ / "x.index.json";
  for (const char* text : {"{}", "[]", "7", R"({"weight_map":[]})", R"({"weight_map":null})",
                           R"({"weight_map":{"one":7}})", R"({"weight_map":{"one":null}})", "{"}) {
    SCOPED_TRACE(text);
    write_file_atomically(path, text);
    expect_error(ErrorCode::bad_format, "x.index.json", [&] { FileStore::open(path); });
  }
}

TEST_F(Shards, AShardThatIsAFolderIsAnError) {
  std::filesystem::create_directory(folder_ / "c.safetensors");
  Json map = good_;
  map["four"] = "c.safetensors";
  expect_error(ErrorCode::io, "not a regular file", [&] { FileStore::open(index(map)); });
}

// The mapping must live as long as any view of it.
TEST_F(Shards, TensorsOutliveTheirStore) {
  at::Tensor three;
  {
    const auto store = FileStore::open(folder_ / "b.safetensors");
    three = *store->find("three", {}, {});
  }
  std::filesystem::remove(folder_ / "b.safetensors");
  EXPECT_TRUE(at::equal(three, value(3)));
}

// Mappings are copy-on-write: an in-place operation on a weight must not reach the user's file.
TEST_F(Shards, WritingToAViewDoesNotChangeTheFile) {
  const auto store = FileStore::open(folder_ / "b.safetensors");
  store->find("three", {}, {})->fill_(7.0);
  EXPECT_TRUE(at::equal(io::load_tensors(folder_ / "b.safetensors").at("three"), value(3)));
}

TEST(RandomStore, NumbersDependOnSeedAndNameAlone) {
  const RandomStore store(1);
  const auto get = [](const RandomStore& from, const char* name, const Shape& shape) {
    return *from.find(name, shape, Init::normal(1.0));
  };
  const at::Tensor first = get(store, "a.weight", {8, 4});
  get(store, "b.weight", {100});  // what was asked for in between does not matter
  EXPECT_TRUE(at::equal(first, get(store, "a.weight", {8, 4})));
  EXPECT_TRUE(at::equal(first, get(RandomStore(1), "a.weight", {8, 4})));
  EXPECT_FALSE(at::equal(first, get(RandomStore(2), "a.weight", {8, 4})));
  EXPECT_FALSE(at::equal(first, get(store, "a.bias", {8, 4})));
}

TEST(RandomStore, FollowsTheInit) {
  const RandomStore store(1);
  const at::Tensor uniform = *store.find("u", {100, 100}, Init::uniform(0.5));
  EXPECT_LE(uniform.abs().max().item<double>(), 0.5);
  EXPECT_NEAR(uniform.std().item<double>(), 0.5 / std::sqrt(3.0), 0.01);
  EXPECT_NEAR(uniform.mean().item<double>(), 0.0, 0.02);
  const at::Tensor normal = *store.find("n", {100, 100}, Init::normal(0.02));
  EXPECT_NEAR(normal.std().item<double>(), 0.02, 0.001);
  EXPECT_TRUE(at::equal(*store.find("c", {3}, Init::constant(1.5)), at::full({3}, 1.5)));
}

}  // namespace
}  // namespace ringlet::nn
