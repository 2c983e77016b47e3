#include "ringlet/service/convert.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/core/error.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/adaptable_model.h"
#include "ringlet/service/adapters.h"

namespace ringlet::service {
namespace {

std::optional<adapt::Approximation> write(const ConvertRequest& r) {
  const AdaptableModel opened = open_adaptable(r.model, r.files, r.adapters);
  const adapt::Components components = opened.components();
  const LoadedAdapters adapters = load_adapters(components, r.adapters, opened.hash);
  adapt::AdapterFileInfo info;
  if (r.adapters.size() == 1)
    info = adapters.infos.front();
  else
    keep_control(adapters, info);
  info.base_hash = opened.hash;
  if (r.storage) info.storage = *r.storage;

  const std::vector<adapt::AdapterSet>& sets = adapters.sets;
  std::optional<adapt::Approximation> low;
  std::optional<adapt::AdapterSet> combined;
  const adapt::AdapterSet* written = &sets.front();
  if (r.form == AdapterForm::low_rank) {
    low = adapt::as_low_rank(pointers_to(sets), r.low_rank);
    std::ranges::sort(low->layers, std::greater(), &adapt::LayerError::relative);
    written = &low->set;
  } else if (r.form == AdapterForm::difference) {
    written = &combined.emplace(adapt::as_difference(pointers_to(sets)));
  } else if (sets.size() > 1 || r.adapters.front().strength != 1.0 ||
             !r.adapters.front().blocks.empty()) {
    written = &combined.emplace(adapt::combine(pointers_to(sets)));
  }
  formats::write_adapter(r.out, *written, info, components,
                         {.format = r.format,
                          .metadata = r.metadata,
                          .title = r.out.stem().string(),
                          .class_names = opened.class_names});
  return low;
}

}  // namespace

void check(const ConvertRequest& r) {
  if (r.adapters.empty())
    throw Error(ErrorCode::invalid_argument, Field("adapter"), "an adapter is needed");
  const auto [rank, max_error] = r.low_rank;
  const bool low_rank = r.form == AdapterForm::low_rank;
  if (low_rank != (rank > 0 || max_error > 0.0) || (rank > 0 && max_error > 0.0))
    throw Error(ErrorCode::invalid_argument, Field("as"),
                "lora needs `rank` or `max_error`, other forms need neither",
                "for example `as=lora` `rank=16`");
  if (!(max_error >= 0.0) || max_error >= 1.0)
    throw Error(ErrorCode::invalid_argument, Field("max_error"), "must lie between 0 and 1");
  if (rank < 0)
    throw Error(ErrorCode::invalid_argument, Field("rank"), "must be a whole number above 0");
}

std::optional<adapt::Approximation> convert(const ConvertRequest& request) {
  check(request);
  return nn::with_ringlet_errors(request.out.string(), [&] { return write(request); });
}

}  // namespace ringlet::service
