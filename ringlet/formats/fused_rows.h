// Layers of an original layout that are several layers here: the tensors of a fused layer divided
// among its pieces, and those of the pieces put together. What is exact, each method's file in
// parts/ says.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/error.h"
#include "ringlet/formats/adapter_names.h"
#include "ringlet/formats/adapter_tensors.h"
#include "ringlet/formats/layer_writer.h"

namespace ringlet::formats {

/// The tensors of one piece of a fused layer. `keeps_rank`: a configuration states the rank, so
/// that ranks of other pieces stay, too. Throws Error(mismatch) that names a tensor of another
/// size, and Error(unsupported) for methods that change the pieces only together.
LayerTensors piece_of(const LayerTensors& fused, const FusedLayer& layer, std::size_t piece,
                      bool keeps_rank);

/// The pieces of a fused layer as one layer; null for those without an adapter. `refused` of the
/// result says why there is no such form.
LayerWriting fuse(const std::vector<const LayerWriting*>& pieces, const FusedLayer& layer);

/// What the files of parts/ take rows with: every tensor of the fused layer has to be used.
class RowTaker {
 public:
  RowTaker(const LayerTensors& fused, const std::vector<RowRange>& ranges, std::int64_t rows,
           bool keeps_rank);

  const LayerTensors& fused() const { return fused_; }
  const std::vector<RowRange>& ranges() const { return ranges_; }
  std::int64_t rows() const { return rows_; }  ///< of the fused layer
  bool keeps_rank() const { return keeps_rank_; }
  bool has(const char* what) const { return fused_.has(what); }

  /// A tensor of the fused layer, which is then used. Throws where it is missing or not of factors.
  const at::Tensor& use(const char* what);
  void put(const char* what, const at::Tensor& tensor);
  void keep(const char* what) { put(what, use(what)); }  ///< it belongs to all rows
  /// The rows of a tensor that has one per output, `per` of them as one.
  at::Tensor rows_of(const char* what, std::int64_t per = 1);
  void take(const char* what) { put(what, rows_of(what)); }

  /// The range in units of `per` rows where it begins and ends on such a unit, else nothing.
  bool is_aligned(std::int64_t per) const;

  /// alpha / rank, 1 without alpha.
  double scale(std::int64_t rank);

  Error mismatch(const char* what, const std::string& problem) const;
  Error impossible(const std::string& why) const;

  LayerTensors finish();

 private:
  void take_beside();

  const LayerTensors& fused_;
  std::vector<RowRange> ranges_;
  std::int64_t rows_;
  bool keeps_rank_;
  LayerTensors piece_;
  std::set<std::string> used_;
};

/// What the files of parts/ put pieces together with.
class RowJoiner {
 public:
  RowJoiner(const std::vector<const LayerWriting*>& pieces, const FusedLayer& layer)
      : pieces_(pieces), layer_(layer) {}

  /// Those that are adapted, and the rows of each.
  std::vector<std::pair<const LayerWriting*, RowRange>> adapted() const;
  std::int64_t rows() const { return layer_.rows; }
  bool is_complete() const;

  bool has(const char* what) const;  ///< in all that are adapted
  bool any(const char* what) const;
  bool equal(const char* what) const;  ///< the same numbers in all, which have it
  bool equal_scale() const;
  const at::Tensor& first(const char* what) const;

  /// Tensors with one row per `per` outputs, one below the other; zeros for other pieces.
  at::Tensor stacked(const char* what, std::int64_t per = 1) const;
  /// The same with the ranks (columns) of each piece beside those of the others.
  /// `scaled`: those of another scale than the first are multiplied, so that one scale fits all.
  at::Tensor block_diagonal(const char* what, bool scaled = true) const;
  at::Tensor all_ranks(const char* what) const;  ///< [ranks of the first + of the second + …, …]

  void put(const char* what, const at::Tensor& tensor) { joined_.tensors[what] = tensor; }
  void put_scale(double alpha, double rank);
  void refuse(const std::string& why) { joined_.refused = why; }

  LayerWriting finish();

 private:
  bool join_method();  ///< whether it could

  const std::vector<const LayerWriting*>& pieces_;
  const FusedLayer& layer_;
  LayerWriting joined_;
};

}  // namespace ringlet::formats
