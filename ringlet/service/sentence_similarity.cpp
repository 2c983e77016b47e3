#include "ringlet/service/sentence_similarity.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/other_network.h"
#include "ringlet/service/adapters.h"
#include "ringlet/tune/sentences.h"

namespace ringlet::service {
namespace {

/// [sentences, width], with the adapters.
at::Tensor vectors_of(const SimilarityRequest& r, const tune::SentenceNetwork& network) {
  const at::NoGradGuard no_grad;
  const nn::ModuleIndex index = pipeline::with_other_names(network.index());
  const adapt::Components components = {{pipeline::kOtherComponent, &index}};
  std::vector<adapt::AdapterSet> sets = load_adapters(components, r.adapters, "").sets;
  for (adapt::AdapterSet& set : sets) set.attach();
  std::vector<at::Tensor> rows;
  for (const std::string& sentence : r.sentences) {
    const tokenizers::EncodedText encoded = network.encode(sentence);
    rows.push_back(network.vectors({&encoded}).to(at::kCPU, at::kFloat));
  }
  for (adapt::AdapterSet& set : sets) set.detach();
  return at::cat(rows);
}

}  // namespace

void describe(OptionList& list, SimilarityRequest& r) {
  list.add("model", r.model, "Folder with config.json and model.safetensors").required();
  list.add("length", r.length, "Maximum number of tokens in a sentence")
      .within(Range::at_least(0))
      .or_else("what the folder says, else 128");
  list.add("sentences", r.sentences, "The sentences").positional();
}

at::Tensor sentence_cosines(const SimilarityRequest& request) {
  SimilarityRequest r = request;
  OptionList list;
  describe(list, r);
  list.check();
  if (r.sentences.size() < 2)
    throw Error(ErrorCode::invalid_argument, Field("sentences"),
                "at least two sentences are compared");
  return nn::with_ringlet_errors(r.model.string(), [&] {
    tune::TaskOptions options;
    options.model = r.model;
    options.length = r.length > 0 ? r.length : tune::usual_length(r.model);
    options.weights.device = r.device;
    options.weights.dtype = r.precision;
    const at::Tensor vectors = vectors_of(r, tune::SentenceNetwork(options));
    return at::matmul(vectors, vectors.t());
  });
}

}  // namespace ringlet::service
