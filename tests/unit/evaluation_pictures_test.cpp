#include "ringlet/service/evaluation_pictures.h"

#include <algorithm>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::service {
namespace {

TEST(EvaluationPictures, HaveTheModelsGuidanceUnlessItIsGiven) {
  using Row = std::pair<const char*, const char*>;
  const TemporaryFolder folder;
  for (const auto& [model, own] : {Row{"sd1", "7.5"}, Row{"sdxl", "5"}}) {
    golden::write_folder(folder / model, model);
    EvaluationPictures pictures{.model = folder / model};
    pictures.folder = folder / "made";
    const auto guidance = [&] {
      const auto settings = SubjectGeneration(pictures, {"a dog"}).record().settings;
      const auto found =
          std::ranges::find(settings, "guidance", [](const auto& row) { return row.first; });
      return found == settings.end() ? "none" : found->second;
    };
    EXPECT_EQ(guidance(), own);
    pictures.guidance = 3.0;
    EXPECT_EQ(guidance(), "3");
  }
}

}  // namespace
}  // namespace ringlet::service
