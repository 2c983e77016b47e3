// What the peers computed, as the scripts of this folder wrote it.
#pragma once

#include <map>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"

namespace ringlet::golden {

/// data/NAME.json and data/NAME.safetensors, for a test fixture to inherit.
class Expected {
 protected:
  Expected(const std::string& name, double tolerance) : tolerance_(tolerance) {
    const std::string file = std::string(RINGLET_SOURCE_DIR) + "/tests/golden/data/" + name;
    configs_ = read_json_file(file + ".json");
    expected_ = io::load_tensors(file + ".safetensors");
  }

  /// Relative to the largest expected value.
  void expect_near(const std::string& name, const at::Tensor& actual, double tolerance) const {
    const at::Tensor& want = expected_.at(name);
    ASSERT_EQ(actual.sizes(), want.sizes()) << name;
    EXPECT_LE((actual - want).abs().max().item<double>(),
              tolerance * want.abs().max().item<double>())
        << name;
  }
  void expect_near(const std::string& name, const at::Tensor& actual) const {
    expect_near(name, actual, tolerance_);
  }

  Json configs_;
  std::map<std::string, at::Tensor> expected_;

 private:
  double tolerance_;
};

}  // namespace ringlet::golden
