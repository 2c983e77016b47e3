// One layer of a foreign adapter file: read_layer.cpp has what all methods share, read_low_rank.cpp
// and read_rotations.cpp a family of methods each.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "ringlet/core/error.h"
#include "ringlet/formats/adapter_families.h"

namespace ringlet::formats {

/// Takes tensors out of a layer, one after the other; none may be left over.
class LayerReader {
 public:
  LayerReader(const LayerTensors& file, const ReadingContext& context,
              std::set<std::string>& decisions)
      : file_(file),
        context_(context),
        decisions_(decisions),
        shape_(adapt::LayerShape::of(context.layer->weight())) {}

  LayerReading read();

 private:
  bool has(const char* what) const { return file_.tensors.contains(what); }
  Error bad(const char* what, const std::string& problem) const;

  /// Of numbers that no model would have: the file is at fault, whatever model it is for.
  Error damaged(const char* what, const std::string& problem) const;
  void check_finite(const std::string& what, const at::Tensor& tensor) const;

  /// PEFT keeps the weight of tables and heads beside their adapters, and loads it with them.
  void check_base();
  const at::Tensor& take(const char* what);

  /// A tensor that is a parameter of ringlet's as it stands.
  const at::Tensor& give(const char* what, const std::string& parameter);
  void give(const std::string& parameter, const at::Tensor& tensor);

  /// A tensor of one number.
  double scalar(const char* what);

  /// A number that everything else is multiplied by. Throws for one that only damage explains: what
  /// it scales would not be finite in fp32.
  double checked_scale(double value, const std::string& where) const;

  /// alpha, from the file, the configuration, or the rank.
  double alpha(std::int64_t rank);

  /// A PEFT configuration must be one of what the tensors are.
  void check_type(const char* type) const;

  /// And of their rank.
  void check_rank(const char* what, std::int64_t rank) const;
  bool configured(const char* flag) const;
  std::string ranked(const std::string& part, std::int64_t rank, double of_alpha,
                     const std::string& more = "") const;
  std::int64_t rank_of(const char* what, const at::Tensor& tensor, std::int64_t axis) const;

  /// "+magnitude(…)" where the file has one.
  std::string magnitude();
  void read_family();
  void read_lora();

  /// PEFT's LoRA of a table of [count, width]: (B A)^t is added to it.
  void read_table();

  /// "pissa" or "olora" where PEFT's start changes the layer's weight.
  std::string start_from() const;

  /// PEFT starts such adapters again when it loads them, and so the start has to be found again.
  std::string start_from_weight(const std::string& start, std::int64_t rank, double of_alpha,
                                const std::string& more);
  void read_adalora();
  void read_loha();
  void read_lokr();
  std::string lokr_scale(std::int64_t rank, const std::string& form);

  /// d of a factor [rows, d(, kh, kw)], which may be flat.
  std::int64_t columns(const char* what, const at::Tensor& tensor, std::int64_t c) const;
  std::string over_patches(std::int64_t width) const;

  /// The numbers of PEFT's OFT. OneTrainer's scaled OFT divides them while it computes.
  const at::Tensor& give_oft_numbers(std::int64_t block);
  void read_peft_oft();
  std::string peft_cayley();

  /// OneTrainer's is PEFT's with five terms, but it turns the weight of a convolution where PEFT
  /// turns the input: the transpose.
  std::string onetrainer_cayley();

  /// "+diagonal(…)" for the row scales that OFT and BOFT files may have.
  std::string row_scale(const char* what, int transform);
  void read_lycoris_oft();

  /// LyCORIS before 2.1.0.dev9 (February 2024) saved the rotations, R^t W0 for each block of rows,
  /// in place of the numbers that they are made from.
  void read_old_lycoris_oft();
  void read_peft_boft();
  void read_hra();
  void read_glora();
  void read_ia3();
  void read_fourier();
  void read_vera();

  /// A layer that PEFT trained and saved whole, as it does with a new head: the difference from the
  /// model's own.
  void read_saved();
  void read_difference();

  /// ComfyUI and LyCORIS keep a difference of the bias beside the tensors of every method.
  void read_bias();

  const LayerTensors& file_;
  const ReadingContext& context_;
  std::set<std::string>& decisions_;
  adapt::LayerShape shape_;
  LayerReading reading_;
  std::set<std::string> used_;
};

}  // namespace ringlet::formats
