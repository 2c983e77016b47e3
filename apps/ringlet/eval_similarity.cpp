// `ringlet eval similarity`: cosines of sentences by a network of sentences.
#include <algorithm>
#include <cstdio>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <nlohmann/json.hpp>

#include "adapter_options.h"
#include "eval_verbs.h"
#include "options.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/other_network.h"
#include "ringlet/service/adapters.h"
#include "ringlet/tune/sentences.h"

namespace ringlet::app {
namespace {

struct SimilarityOptions {
  CommonOptions common;
  AdapterOptions adapters;
  std::string model, file;
  std::vector<std::string> sentences;
  std::int64_t length = 0;
};

/// [sentences, width], with the adapters.
at::Tensor vectors_of(const SimilarityOptions& o, const tune::SentenceNetwork& network) {
  const at::NoGradGuard no_grad;
  const nn::ModuleIndex index = pipeline::with_other_names(network.index());
  const adapt::Components components = {{pipeline::kOtherComponent, &index}};
  std::vector<adapt::AdapterSet> sets =
      service::load_adapters(components, parse_adapters(o.adapters), "").sets;
  for (adapt::AdapterSet& set : sets) set.attach();
  std::vector<at::Tensor> rows;
  for (const std::string& sentence : o.sentences) {
    const tokenizers::EncodedText encoded = network.encode(sentence);
    rows.push_back(network.vectors({&encoded}).to(at::kCPU, at::kFloat));
  }
  for (adapt::AdapterSet& set : sets) set.detach();
  return at::cat(rows);
}

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
  if (!o.file.empty())
    for (std::string& line : read_lines(o.file)) o.sentences.push_back(std::move(line));
  if (o.sentences.size() < 2)
    throw Error(ErrorCode::invalid_argument, "ringlet eval similarity",
                "two sentences at least are compared", "name them after the options, or --file");
  tune::TaskOptions options;
  options.model = o.model;
  options.length = o.length > 0 ? o.length : tune::usual_length(o.model);
  options.weights.device = o.common.select_device();
  options.weights.dtype = o.common.select_precision(options.weights.device);
  const at::Tensor vectors = vectors_of(o, tune::SentenceNetwork(options));
  const at::Tensor cosines = at::matmul(vectors, vectors.t());
  if (!o.common.json) {
    print_table(o.sentences, cosines);
    return 0;
  }
  nlohmann::json rows = nlohmann::json::array();
  for (std::int64_t i = 0; i < cosines.size(0); ++i) {
    rows.push_back(nlohmann::json::array());
    for (std::int64_t k = 0; k < cosines.size(1); ++k)
      rows.back().push_back(cosines[i][k].item<double>());
  }
  print_json({{"sentences", o.sentences}, {"cosines", rows}});
  return 0;
}

}  // namespace

int cmd_eval_similarity(int argc, char** argv) {
  SimilarityOptions options;
  OptionList list;
  CLI::App app(
      "Cosines of sentences by a network of sentences (BERT or RoBERTa, in a folder of "
      "sentence-transformers or transformers).\nExample:\n  ringlet eval similarity --model "
      "all-MiniLM-L6-v2 \"The weather is lovely today.\" \"It's so sunny outside!\"",
      "eval similarity");
  list.add("model", options.model, "Folder with config.json and model.safetensors").required();
  options.adapters.add_to(list);
  list.add("file", options.file, "A text file with a sentence a line");
  list.add("length", options.length, "Tokens of a sentence, at most")
      .or_else("what the folder says, else 128");
  list.add("sentences", options.sentences, "The sentences").positional();
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  return nn::with_ringlet_errors("eval similarity", [&] { return similarity(options); });
}

}  // namespace ringlet::app
