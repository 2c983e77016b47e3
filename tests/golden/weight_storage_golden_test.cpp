// Weights in narrow storage: code for code those of the published formulas
// (make_weight_storage.py).
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/nn/stored_weight.h"
#include "tests/golden/expected.h"

namespace ringlet::nn {
namespace {

class WeightStorageGolden : public testing::Test, protected golden::Expected {
 protected:
  WeightStorageGolden() : Expected("weight_storage", 1e-6) {}
};

TEST_F(WeightStorageGolden, CodesScalesAndValuesAreThoseOfTheFormulas) {
  for (const std::string name : configs_.at("weights"))
    for (const WeightStorage storage :
         {WeightStorage::fp8, WeightStorage::int8, WeightStorage::nf4}) {
      SCOPED_TRACE(name + " " + weight_storage_name(storage));
      const std::string key = name + "." + weight_storage_name(storage) + ".";
      const StoredWeight stored = StoredWeight::narrowed(expected_.at(name + ".weight"), storage);
      const at::Tensor codes = stored.tensors().at(0).view(-1);
      const at::Tensor& want = expected_.at(key + "codes");
      EXPECT_TRUE(at::equal(codes.view(at::kByte), want.view(-1).view(at::kByte)));
      expect_near(key + "scales", stored.tensors().at(1).view(-1));
      expect_near(key + "values", stored.widened(at::kFloat));
    }
}

}  // namespace
}  // namespace ringlet::nn
