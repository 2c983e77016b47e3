// A step that memory is too small for: sizes, and what to change.
#include <new>

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/memory_error.h"
#include "tests/child_process.h"
#include "tests/expect_error.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

TEST(MemoryErrors, WhatWasAskedForIsTold) {
  const auto told = [](const std::string& text) {
    return nn::to_error(std::runtime_error(text), "here").message();
  };
  EXPECT_EQ(
      told("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate "
           "memory: you tried to allocate 42949672960 bytes. Error code 12 (Cannot allocate"),
      "there is not enough memory: 40 GiB more were asked for");
  EXPECT_EQ(told("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
            "the GPU has not enough free memory: 2.00 GiB more were asked for");
  EXPECT_EQ(told("std::bad_alloc"), "there is not enough memory");
  EXPECT_EQ(told("out of memory: tried to allocate"), "there is not enough memory");
}

class MemoryRuns : public FineTuning {};

// Whoever runs out of it in the third step: the checkpoint of the second is there.
TEST_F(MemoryRuns, TheStepSaysItsSizesAndTheRunCanGoOn) {
  FineTuneOptions o = options();
  o.batch_size = 2;
  o.trainer.checkpoint_every = 1;
  try {
    FineTune(o).run({.progress = {}, .step = [](const StepResult& step) {
                       TORCH_CHECK(step.step != 3,
                                   "DefaultCPUAllocator: can't allocate memory: you tried to "
                                   "allocate 4398046511104 bytes. Error code 12");
                       return true;
                     }});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    const std::string text = error.what();
    for (const char* words :
         {"4.0 TiB more were asked for",
          "batches of 2 at 16 pixels, in 3 aspect buckets need about", "were taken at the peak",
          "`memory_limit=", "a smaller `batch_size`", "a smaller `resolution`",
          "`gradient_checkpointing`", "`resume` continues it"})
      EXPECT_NE(text.find(words), std::string::npos) << words << "\n" << text;
  }
  const auto latest = CheckpointFolder(o.out / "checkpoints", 2).latest();
  ASSERT_TRUE(latest);
  EXPECT_EQ(CheckpointFolder::load(*latest).step, 2);
  o.resume = true;
  EXPECT_TRUE(run(o));
}

/// What the child of the next test finds wrong, or 0.
int run_in_little_space(const FineTuneOptions& o) {
  FineTune tuning(o);
  rlimit limit{};
  bool limited = false;
  try {
    tuning.run({.progress = {}, .step = [&](const StepResult& step) {
                  if (step.step != 2) return true;
                  ::getrlimit(RLIMIT_AS, &limit);
                  const rlimit none{std::min<rlim_t>(limit.rlim_max, 1 << 20), limit.rlim_max};
                  limited = ::setrlimit(RLIMIT_AS, &none) == 0;
                  at::empty({std::int64_t{1} << 28});  // what a larger step would take
                  return true;
                }});
    return 1;
  } catch (const Error& error) {
    ::setrlimit(RLIMIT_AS, &limit);
    if (!limited) return 2;
    if (error.code() != ErrorCode::out_of_memory) return 3;
    if (error.message().find("GiB more were asked for") == std::string::npos) return 4;
  }
  FineTuneOptions again = o;
  again.resume = true;
  return FineTune(again).run({}) ? 0 : 5;
}

// The kernel's own refusal, in a child because the limit is the process's.
TEST_F(MemoryRuns, TheKernelsRefusalIsTheSame) {
  FineTuneOptions o = options();
  o.trainer.checkpoint_every = 1;
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer ends the process itself";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "AddressSanitizer ends the process itself";
#endif
#endif
  EXPECT_EQ(status_of_child([&] { return run_in_little_space(o); }), 0);
}

}  // namespace
}  // namespace ringlet::train
