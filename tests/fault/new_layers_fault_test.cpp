// Adapter files whose new layers contradict them.
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/weight_store.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::adapt {
namespace {

class NewLayers : public testing::Test {
 protected:
  NewLayers() {
    const nn::WeightSource source(std::make_shared<nn::RandomStore>(1));
    const nn::Linear own(source.at("own"), 4, 4);
    index_ = source.finish();
    nn::ModuleIndex all = index_;
    all.layers.emplace("head", nn::made_linear_layer("head", 4, 3));
    const std::vector<Assignment> assignments = {
        {{"model", "head", all.layers.at("head")}, parse_method("diff")},
        {{"model", "own", all.layers.at("own")}, parse_method("diff")}};
    const AdapterSet set = AdapterSet::create(assignments, FactorTable(), Random(0));
    AdapterFileInfo info;
    info.new_layers = {{"model.head", "head"}};
    info.network_config = "{}";
    save_adapter(folder_ / "a.safetensors", set, info);
  }
  LoadedAdapter load(const char* name) const {
    return load_adapter(folder_ / name, {{"model", &index_}});
  }
  /// The file with other metadata.
  void changed(const std::string& key, const std::string& value) const {
    io::Metadata metadata = io::SafetensorsFile::open(folder_ / "a.safetensors")->metadata();
    metadata[key] = value;
    io::save_tensors(folder_ / "b.safetensors", io::load_tensors(folder_ / "a.safetensors"),
                     metadata);
  }
  nn::ModuleIndex index_;
  TemporaryFolder folder_;
};

TEST_F(NewLayers, AreMadeWhereTheBaseLacksThem) {
  const LoadedAdapter loaded = load("a.safetensors");
  EXPECT_EQ(loaded.info.new_layers.at("model.head"), "head");
  EXPECT_EQ(loaded.info.network_config, "{}");
  const auto made = nn::made_linear_layer("head", 4, 3);
  EXPECT_TRUE(loaded.set.entries().front().target.layer->weight().equal(made->weight()));
  EXPECT_FALSE(nn::made_linear_layer("other", 4, 3)->weight().equal(made->weight()));
  EXPECT_EQ(adapted_layers(folder_ / "a.safetensors"), std::vector<std::string>{"model.own"});
  save_adapter(folder_ / "again.safetensors", loaded.set, loaded.info);
  EXPECT_EQ(io::SafetensorsFile::open(folder_ / "again.safetensors")->metadata(),
            io::SafetensorsFile::open(folder_ / "a.safetensors")->metadata());
}

TEST_F(NewLayers, ThatAreWrongAreRefused) {
  const auto refused = [&](ErrorCode code, const char* words, const std::string& key,
                           const std::string& value) {
    changed(key, value);
    expect_error(code, words, [&] { load("b.safetensors"); });
  };
  refused(ErrorCode::bad_format, "model.tail", "ringlet.new_layers", R"({"model.tail": "head"})");
  refused(ErrorCode::bad_format, "model.head", "ringlet.new_layers", R"({"model.head": 3})");
  refused(ErrorCode::bad_format, "not a JSON object", "ringlet.new_layers", "[]");
  refused(ErrorCode::bad_format, "fewer than its new layer", "ringlet.base_shapes",
          R"({"model.head": [4000000000, 4000000000], "model.own": [4, 4]})");
  refused(ErrorCode::mismatch, "which the model does not have", "ringlet.new_layers", "{}");
}

}  // namespace
}  // namespace ringlet::adapt
