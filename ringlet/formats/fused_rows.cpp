#include "ringlet/formats/fused_rows.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include "ringlet/formats/part_format.h"

namespace ringlet::formats {
namespace {

const PartFormat* recognised(const LayerTensors& layer) {
  const auto format = std::ranges::find_if(part_formats(), [&](const PartFormat& one) {
    return one.recognises != nullptr && one.recognises(layer);
  });
  return format == part_formats().end() ? nullptr : &*format;
}

/// The layer's own tensors in the form that a file has them.
LayerTensors as_read(const LayerWriting& layer, const std::string& name) {
  LayerTensors tensors{.prefix = name, .naming = Naming::comfyui, .tensors = layer.tensors};
  for (const auto& entry : layer.tensors) tensors.names[entry.first] = name + "." + entry.first;
  return tensors;
}

/// One piece with other places for its rows: the same ranges, read the other way round.
std::vector<RowRange> reversed(const std::vector<RowRange>& ranges) {
  std::vector<RowRange> places;
  std::int64_t begin = 0;
  for (const RowRange& range : ranges) {
    places.push_back({begin, range.count});
    begin += range.count;
  }
  // Where each range of the fused layer came from, in the fused layer's order.
  std::vector<std::size_t> order(ranges.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](std::size_t i) { return ranges[i].begin; });
  std::vector<RowRange> back;
  for (const std::size_t i : order) back.push_back(places[i]);
  return back;
}

}  // namespace

RowTaker::RowTaker(const LayerTensors& fused, const std::vector<RowRange>& ranges,
                   std::int64_t rows, bool keeps_rank)
    : fused_(fused), ranges_(ranges), rows_(rows), keeps_rank_(keeps_rank) {
  piece_.prefix = fused.prefix;
  piece_.naming = fused.naming;
  piece_.names = fused.names;
}

Error RowTaker::mismatch(const char* what, const std::string& problem) const {
  const auto name = fused_.names.find(what);
  return {ErrorCode::mismatch, name == fused_.names.end() ? fused_.prefix : name->second, problem,
          "the adapter was made for another model, or is damaged"};
}

Error RowTaker::impossible(const std::string& why) const {
  return {ErrorCode::unsupported, fused_.telling_name(),
          "is of a layer that is several layers here, and " + why,
          "merge the adapter with the program that made it, and use the merged model"};
}

const at::Tensor& RowTaker::use(const char* what) {
  const auto found = fused_.tensors.find(what);
  if (found == fused_.tensors.end())
    throw Error(ErrorCode::bad_format, fused_.prefix + ending(fused_.naming, what), "is missing",
                "the file is incomplete; download it again");
  used_.insert(what);
  if (!is_setting(what) && !is_factor_type(found->second.scalar_type()))
    throw mismatch(what,
                   std::string("has numbers of type ") + at::toString(found->second.scalar_type()));
  return found->second;
}

void RowTaker::put(const char* what, const at::Tensor& tensor) {
  piece_.tensors[what] = tensor;
  piece_.names.try_emplace(what, fused_.telling_name());  // made of others of the file's
}

bool RowTaker::is_aligned(std::int64_t per) const {
  return std::ranges::all_of(ranges_, [&](const RowRange& range) {
    return range.begin % per == 0 && range.count % per == 0;
  });
}

at::Tensor RowTaker::rows_of(const char* what, std::int64_t per) {
  const at::Tensor& whole = use(what);
  if (whole.dim() == 0 || whole.size(0) * per != rows_)
    throw mismatch(what, "is of " + std::to_string(whole.dim() == 0 ? 1 : whole.size(0) * per) +
                             " outputs, the model's layers have " + std::to_string(rows_) +
                             " together");
  std::vector<at::Tensor> parts;
  for (const RowRange& range : ranges_)
    parts.push_back(whole.narrow(0, range.begin / per, range.count / per));
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

double RowTaker::scale(std::int64_t rank) {
  if (!has("alpha")) return 1.0;
  const at::Tensor& alpha = use("alpha");
  if (alpha.numel() != 1) throw mismatch("alpha", "is not one number");
  const double value = alpha.to(at::kDouble).item<double>();
  return value == 0.0 ? 1.0 : value / static_cast<double>(rank);
}

void RowTaker::take_beside() {
  if (has("diff_b")) take("diff_b");
  if (has("alpha") && !used_.contains("alpha")) keep("alpha");
  if (!has("magnitude")) return;
  const at::Tensor& m = use("magnitude");
  const bool columns = m.dim() == 2 && m.size(0) == 1 && rows_ != 1;
  if (columns)
    throw impossible(
        "DoRA's lengths are those of input columns, each over the rows of all of them");
  if (m.numel() != rows_)
    throw mismatch("magnitude", "has " + std::to_string(m.numel()) + " numbers for " +
                                    std::to_string(rows_) + " outputs");
  take("magnitude");
}

LayerTensors RowTaker::finish() {
  const PartFormat* const format = recognised(fused_);
  if (format == nullptr && !has("diff_b"))
    throw Error(ErrorCode::unsupported, fused_.telling_name(),
                "is a tensor of an unsupported method",
                "merge the adapter with the program that made it, and use the merged model");
  if (format != nullptr && format->take_rows == nullptr)
    throw impossible(std::string("the numbers of its method") +
                     (*format->shown == '\0' ? "" : std::string(" (") + format->shown + ")") +
                     " cannot be divided among them");
  if (format != nullptr) format->take_rows(*this);
  take_beside();
  for (const auto& [what, name] : fused_.names)
    if (!used_.contains(what))
      throw Error(ErrorCode::bad_format, name, "does not belong to the rest of its layer's tensors",
                  "the file is damaged, or of an unsupported method");
  return std::move(piece_);
}

LayerTensors piece_of(const LayerTensors& fused, const FusedLayer& layer, std::size_t piece,
                      bool keeps_rank) {
  return RowTaker(fused, layer.pieces.at(piece).rows, layer.rows, keeps_rank).finish();
}

std::vector<std::pair<const LayerWriting*, RowRange>> RowJoiner::adapted() const {
  std::vector<std::pair<const LayerWriting*, RowRange>> some;
  for (std::size_t i = 0; i < pieces_.size(); ++i)
    if (pieces_[i] != nullptr) some.emplace_back(pieces_[i], layer_.pieces[i].rows.front());
  return some;
}

bool RowJoiner::is_complete() const { return adapted().size() == pieces_.size(); }

bool RowJoiner::has(const char* what) const {
  return std::ranges::all_of(adapted(),
                             [&](const auto& one) { return one.first->tensors.contains(what); });
}

bool RowJoiner::any(const char* what) const {
  return std::ranges::any_of(adapted(),
                             [&](const auto& one) { return one.first->tensors.contains(what); });
}

bool RowJoiner::equal(const char* what) const {
  return has(what) && std::ranges::all_of(adapted(), [&](const auto& one) {
           const at::Tensor& own = one.first->tensors.at(what);
           return own.sizes() == first(what).sizes() && at::equal(own, first(what));
         });
}

bool RowJoiner::equal_scale() const {
  const auto some = adapted();
  const LayerWriting& one = *some.front().first;
  return std::ranges::all_of(some, [&](const auto& other) {
    return other.first->alpha == one.alpha && other.first->rank == one.rank;
  });
}

const at::Tensor& RowJoiner::first(const char* what) const {
  return adapted().front().first->tensors.at(what);
}

at::Tensor RowJoiner::stacked(const char* what, std::int64_t per) const {
  std::vector<std::int64_t> sizes = first(what).sizes().vec();
  sizes.front() = rows() / per;
  at::Tensor all = at::zeros(sizes, first(what).options());
  for (const auto& [one, range] : adapted())
    all.narrow(0, range.begin / per, range.count / per).copy_(one->tensors.at(what));
  return all;
}

at::Tensor RowJoiner::block_diagonal(const char* what, bool scaled) const {
  const auto some = adapted();
  std::int64_t ranks = 0;
  for (const auto& entry : some) ranks += entry.first->tensors.at(what).size(1);
  const LayerWriting& reference = *some.front().first;
  at::Tensor all = at::zeros({rows(), ranks}, first(what).options());
  std::int64_t begin = 0;
  for (const auto& [one, range] : some) {
    const at::Tensor& own = one->tensors.at(what);
    const double relative = (one->alpha / one->rank) / (reference.alpha / reference.rank);
    all.narrow(0, range.begin, range.count)
        .narrow(1, begin, own.size(1))
        .copy_(scaled && relative != 1.0 ? own * relative : own);
    begin += own.size(1);
  }
  return all;
}

at::Tensor RowJoiner::all_ranks(const char* what) const {
  std::vector<at::Tensor> all;
  for (const auto& entry : adapted()) all.push_back(entry.first->tensors.at(what));
  return at::cat(all);
}

void RowJoiner::put_scale(double alpha, double rank) {
  put("alpha", at::scalar_tensor(alpha, at::kFloat));
  joined_.alpha = alpha;
  joined_.rank = rank;
}

bool RowJoiner::join_method() {
  const PartFormat* format = nullptr;
  bool same = true;
  for (const auto& [piece, rows] : adapted()) {
    const PartFormat* const own = recognised(as_read(*piece, layer_.name));
    same = same && (format == nullptr || own == format);
    format = own;
  }
  if (!same)
    refuse("has one method for all parts of " + layer_.name + ", which have several");
  else if (format != nullptr && format->join_rows == nullptr)
    refuse(std::string("has no form for ") + format->part + " of parts of " + layer_.name);
  else if (format != nullptr)
    format->join_rows(*this);
  return joined_.refused.empty();
}

LayerWriting RowJoiner::finish() {
  if (!join_method()) return std::move(joined_);
  if (has("diff_b"))
    put("diff_b", stacked("diff_b"));
  else if (any("diff_b"))
    refuse("has a bias for all parts of " + layer_.name + " or for none");
  if (!any("magnitude")) return std::move(joined_);
  const bool by_rows =
      is_complete() && has("magnitude") && std::ranges::all_of(adapted(), [](const auto& entry) {
        return entry.first->tensors.at("magnitude").size(0) == entry.second.count;
      });
  if (by_rows)
    put("magnitude", stacked("magnitude"));
  else
    refuse("has DoRA's lengths for the rows of all parts of " + layer_.name + " only");
  return std::move(joined_);
}

LayerWriting fuse(const std::vector<const LayerWriting*>& pieces, const FusedLayer& layer) {
  if (pieces.size() > 1) return RowJoiner(pieces, layer).finish();
  LayerWriting moved = *pieces.front();
  const LayerTensors own = as_read(moved, layer.name);
  try {
    moved.tensors = RowTaker(own, reversed(layer.pieces.front().rows), layer.rows,
                             /*keeps_rank=*/true)
                        .finish()
                        .tensors;
  } catch (const Error& error) {
    moved.refused = "has no form for it with the rows of " + layer.name + ": " + error.message();
  }
  return moved;
}

}  // namespace ringlet::formats
