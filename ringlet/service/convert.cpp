#include "ringlet/service/convert.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/core/error.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/adaptable_model.h"
#include "ringlet/service/adapters.h"
#include "ringlet/service/request_json.h"

namespace ringlet::service {
namespace {

std::optional<adapt::Approximation> write(const ConvertRequest& r) {
  const AdaptableModel opened = open_adaptable(r.model, r.files, r.adapters);
  const adapt::Components components = opened.components();
  const LoadedAdapters adapters = load_adapters(components, r.adapters, opened.hash, opened.kind());
  adapt::AdapterFileInfo info;
  if (r.adapters.size() == 1)
    info = adapters.infos.front();
  else
    keep_control(adapters, info);
  info.base_hash = opened.hash;
  info.base_kind = opened.kind();
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

void describe(OptionList& list, ConvertRequest& r) {
  static constexpr std::array<std::pair<const char*, AdapterForm>, 4> kFormNames = {
      {{"stored", AdapterForm::stored},
       {"lora", AdapterForm::low_rank},
       {"diff", AdapterForm::difference},
       {"", AdapterForm::stored}}};
  list.add("model", r.model, "The model or network that the adapter is for, folder or file")
      .required();
  list.add("to", choice("to", r.format, formats::kAdapterFormatNames),
           "The program that is to read it; peft is a folder")
      .required();
  list.add("out", r.out, "File, or folder for peft").required();
  list.add("as", choice("as", r.form, kFormNames),
           "Convert to another form: lora (nearest low-rank factors, the error is printed) or diff "
           "(full weight differences)");
  list.add("rank", r.low_rank.rank, "Rank of `as=lora`").within(Range::at_least(0));
  list.add("max_error", r.low_rank.max_error,
           "Instead of a rank: each layer's smallest rank with at most this relative error")
      .within(Range::share());
  list.add("metadata", choice("metadata", r.metadata, formats::kMetadataLevelNames),
           "What the file says of the training; full includes captions and folder names");
  list.add("save_precision", choice("save_precision", r.storage, nn::kPrecisionNames),
           "Type of the numbers")
      .or_else("as read");
  pipeline::describe(list, r.files);
}

ConvertRequest convert_request_from_json(const Json& json) {
  ConvertRequest request;
  OptionList list;
  describe(list, request);
  JsonFields fields(json);
  read_options(fields, list);
  read_adapters(fields, request.adapters);
  fields.finish();
  check(request);
  return request;
}

Json to_json(const ConvertRequest& request) {
  ConvertRequest described = request;
  OptionList list;
  describe(list, described);
  Json json = set_values(list);
  write_adapters(json, request.adapters);
  return json;
}

void check(const ConvertRequest& r) {
  ConvertRequest described = r;
  OptionList list;
  describe(list, described);
  list.check();
  if (r.adapters.empty())
    throw Error(ErrorCode::invalid_argument, Field("adapter"), "an adapter is needed");
  const auto [rank, max_error] = r.low_rank;
  const bool low_rank = r.form == AdapterForm::low_rank;
  if (low_rank != (rank > 0 || max_error > 0.0) || (rank > 0 && max_error > 0.0))
    throw Error(ErrorCode::invalid_argument, Field("as"),
                "lora needs one of `rank` and `max_error`, other forms need neither",
                "for example `as=lora` `rank=16`");
}

std::optional<adapt::Approximation> convert(const ConvertRequest& request) {
  check(request);
  return nn::with_ringlet_errors(request.out.string(), [&] { return write(request); });
}

}  // namespace ringlet::service
