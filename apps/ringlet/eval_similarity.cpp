// `ringlet eval similarity`: cosines of sentences by a network of sentences.
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "adapter_options.h"
#include "eval_verbs.h"
#include "options.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/sentence_similarity.h"
#include "ringlet/service/text_lines.h"

namespace ringlet::app {
namespace {

struct SimilarityOptions {
  CommonOptions common;
  AdapterOptions adapters;
  service::SimilarityRequest request;
  std::string file;
};

void print_table(const std::vector<std::string>& sentences, const at::Tensor& cosines) {
  const auto count = static_cast<std::int64_t>(sentences.size());
  for (std::int64_t i = 0; i < count; ++i)
    std::printf("%3lld  %s\n", static_cast<long long>(i + 1),
                printable(sentences[static_cast<std::size_t>(i)]).c_str());
  std::printf("\n    ");
  for (std::int64_t i = 0; i < count; ++i) std::printf(" %8lld", static_cast<long long>(i + 1));
  for (std::int64_t i = 0; i < count; ++i) {
    std::printf("\n%3lld ", static_cast<long long>(i + 1));
    for (std::int64_t k = 0; k < count; ++k) std::printf(" %8.4f", cosines[i][k].item<double>());
  }
  std::printf("\n");
}

int similarity(SimilarityOptions& o) {
  service::SimilarityRequest& request = o.request;
  if (!o.file.empty())
    for (std::string& line : service::read_lines(o.file))
      request.sentences.push_back(std::move(line));
  if (request.sentences.size() < 2)
    throw Error(ErrorCode::invalid_argument, "ringlet eval similarity",
                "at least two sentences are needed", "give them after the options, or --file");
  request.adapters = parse_adapters(o.adapters);
  request.device = o.common.select_device();
  request.precision = o.common.select_precision(request.device);
  const at::Tensor cosines = service::sentence_cosines(request);
  if (!o.common.json) {
    print_table(request.sentences, cosines);
    return 0;
  }
  nlohmann::json rows = nlohmann::json::array();
  for (std::int64_t i = 0; i < cosines.size(0); ++i) {
    rows.push_back(nlohmann::json::array());
    for (std::int64_t k = 0; k < cosines.size(1); ++k)
      rows.back().push_back(cosines[i][k].item<double>());
  }
  print_json({{"sentences", request.sentences}, {"cosines", rows}});
  return 0;
}

}  // namespace

int cmd_eval_similarity(int argc, char** argv) {
  SimilarityOptions options;
  OptionList list;
  CLI::App app(
      "Cosine similarity of sentences by a sentence encoder (BERT or RoBERTa, in a folder of "
      "sentence-transformers or transformers).\nExample:\n  ringlet eval similarity --model "
      "all-MiniLM-L6-v2 \"The weather is lovely today.\" \"It's so sunny outside!\"",
      "eval similarity");
  service::describe(list, options.request);
  options.adapters.add_to(list);
  list.add("file", options.file, "A text file with one sentence per line");
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  return nn::with_ringlet_errors("eval similarity", [&] { return similarity(options); });
}

}  // namespace ringlet::app
