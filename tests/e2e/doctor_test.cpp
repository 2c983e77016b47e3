// `ringlet doctor`: the report on this machine.
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/core/version.h"
#include "tests/e2e/run_program.h"

namespace ringlet::e2e {
namespace {

Json report(const Arguments& more) {
  Arguments all = {"doctor", "--json"};
  all.insert(all.end(), more.begin(), more.end());
  const ProgramResult result = run_program(all);
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.err, "");
  return parse_json(result.out, "stdout");
}

TEST(Doctor, WithoutProbesSaysWhatIsThere) {
  const Json json = report({"--no-probes"});
  EXPECT_EQ(json.at("ringlet"), kVersion);
  for (const char* key : {"libtorch", "opencv"}) EXPECT_TRUE(json.at(key).is_string()) << key;
  EXPECT_GT(json.at("cpu").at("cores").get<int>(), 0);
  EXPECT_GT(json.at("cpu").at("threads").get<int>(), 0);
  EXPECT_TRUE(json.at("cpu").at("features").is_array());
  EXPECT_GT(json.at("memory").at("total_bytes").get<std::uint64_t>(), 0u);
  EXPECT_GT(json.at("memory").at("available_bytes").get<std::uint64_t>(), 0u);
  EXPECT_TRUE(json.at("cuda").at("devices").is_number_integer());
  EXPECT_EQ(json.at("cuda").at("reason") == "", json.at("cuda").at("devices") != 0);
  EXPECT_TRUE(json.at("mpi").at("present").is_boolean());
  EXPECT_FALSE(json.contains("matmul_gflops"));
  EXPECT_FALSE(json.contains("auto"));
  for (const Json& problem : json.at("problems"))
    for (const char* key : {"what", "fix"}) EXPECT_NE(problem.at(key), "");
}

TEST(Doctor, ProbesNameThePrecisionOfAuto) {
  const Json json = report({});
  EXPECT_GT(json.at("matmul_gflops").at("fp32").get<double>(), 0.0);
  EXPECT_GT(json.at("matmul_gflops").at("bf16").get<double>(), 0.0);
  const auto precision = json.at("auto").at("precision").get<std::string>();
  EXPECT_TRUE(precision == "fp32" || precision == "bf16" || precision == "fp16") << precision;
  EXPECT_TRUE(json.at("auto").at("device").is_string());
}

TEST(Doctor, ThreadsAreThoseAskedFor) {
  EXPECT_EQ(report({"--no-probes", "--threads", "1"}).at("cpu").at("threads"), 1);
}

TEST(Doctor, SaysHowThreadsAreChosen) {
  EXPECT_EQ(report({"--no-probes", "--threads", "1"}).at("cpu").at("thread_choice"), "as given");
  const ProgramResult free =
      run_program({"doctor", "--no-probes"}, {.environment = Arguments{"NO_THREADS_ASKED_FOR=1"}});
  EXPECT_EQ(free.status, 0) << free.err;
  EXPECT_NE(free.out.find("threads "), std::string::npos) << free.out;
  EXPECT_NE(free.out.find("one per processor"), std::string::npos) << free.out;
  EXPECT_NE(free.out.find("other programs use"), std::string::npos) << free.out;
}

TEST(Doctor, TheTableEndsWithProblemsOrNone) {
  const ProgramResult result = run_program({"doctor", "--no-probes"});
  EXPECT_EQ(result.status, 0) << result.err;
  for (const char* words : {"LibTorch", "memory", "GPU", "MPI"})
    EXPECT_NE(result.out.find(words), std::string::npos) << result.out;
  const bool well = result.out.find("no problem found") != std::string::npos;
  EXPECT_NE(well, result.out.find("fix: ") != std::string::npos) << result.out;
}

TEST(Doctor, AUselessCudaVariableIsAProblem) {
  const ProgramResult result =
      run_program({"doctor", "--no-probes"}, {.environment = Arguments{"CUDA_VISIBLE_DEVICES="}});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_NE(result.out.find("CUDA_VISIBLE_DEVICES is set"), std::string::npos) << result.out;
}

}  // namespace
}  // namespace ringlet::e2e
