// The optimisers, and the table that names them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/option.h"
#include "ringlet/train/optimizer.h"

namespace ringlet::train {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;
};

/// AdamW (Loshchilov and Hutter 2019) with the arithmetic of torch.optim.AdamW. Its state is two
/// tensors per parameter, "exp_avg.NAME" and "exp_avg_sq.NAME".
OptimizerSpec adamw(const AdamWOptions& options = {});

/// The numbers of the authors' own code.
struct LionOptions {
  double beta1 = 0.9;
  double beta2 = 0.99;
  double weight_decay = 0.0;
};

/// Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2): the sign
/// of an average, so that every number moves by the learning rate, which wants to be 3 to 10 times
/// smaller than AdamW's. Its state is one tensor per parameter, "exp_avg.NAME".
OptimizerSpec lion(const LionOptions& options = {});

/// AdamW whose averages have eight bits a number (Dettmers et al. 2022), with the arithmetic of
/// bitsandbytes.optim.AdamW8bit: train/dynamic_map.h has the map and the blocks. Tensors of fewer
/// than 4096 numbers keep fp32. Its state is "exp_avg.NAME" and "exp_avg_sq.NAME", with
/// "exp_avg_scale.NAME" and "exp_avg_sq_scale.NAME" for codes.
OptimizerSpec adamw_8bit(const AdamWOptions& options = {});

struct SgdOptions {
  double momentum = 0.9;  ///< torch.optim.SGD has 0
  bool nesterov = false;
  double weight_decay = 0.0;
};

/// Stochastic gradient descent as torch.optim.SGD: its decay is part of the gradient. Its state is
/// "momentum_buffer.NAME". Throws Error(invalid_argument) for nesterov without momentum.
OptimizerSpec sgd(const SgdOptions& options = {});

/// The numbers of transformers' Adafactor, but for the fixed rate.
struct AdafactorOptions {
  bool relative_step = false;                ///< min(0.01, 1 / root of the updates), times the rate
  std::optional<bool> scale_parameter = {};  ///< none = as relative_step
  bool warmup_init = false;                  ///< a relative step begins at 1e-6
  double epsilon1 = 1e-30;
  double epsilon2 = 1e-3;
  double clip_threshold = 1.0;
  double decay_rate = -0.8;
  std::optional<double> beta1 = {};
  double weight_decay = 0.0;
};

/// Adafactor (Shazeer and Stern 2018) with the arithmetic of transformers.Adafactor. With a
/// relative step the learning rate is a factor on it, 1 as published. Its state is
/// "exp_avg_sq_row.NAME" and "exp_avg_sq_col.NAME", of vectors "exp_avg_sq.NAME".
OptimizerSpec adafactor(const AdafactorOptions& options = {});

struct ProdigyOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  std::optional<double> beta3 = {};  ///< none = the root of beta2
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  bool use_bias_correction = false;
  bool safeguard_warmup = false;
  double d0 = 1e-6;
  double d_coef = 1.0;
  std::optional<double> growth_rate = {};  ///< none = no limit
  std::int64_t slice_p = 1;
};

/// Prodigy (Mishchenko and Defazio 2023) as the authors' prodigyopt: AdamW that finds the size of
/// its steps. Its learning rate is a factor, 1 as a rule. One estimate is for all parameters, also
/// of other rates. Its state is "prodigy", and "exp_avg", "exp_avg_sq", "s" and "p0" by parameter.
OptimizerSpec prodigy(const ProdigyOptions& options = {});

struct ScheduleFreeOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  double r = 0.0;
  double weight_lr_power = 2.0;
};

/// Schedule-free AdamW (Defazio et al. 2024) as the authors' AdamWScheduleFree: the weights that
/// are looked at and saved are averages (Optimizer::shown_values). It wants a constant rate, with a
/// warm-up. Its state is "schedule_free", "z.NAME" and "exp_avg_sq.NAME".
OptimizerSpec schedule_free_adamw(const ScheduleFreeOptions& options = {});

struct CameOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double beta3 = 0.9999;
  double epsilon1 = 1e-30;
  double epsilon2 = 1e-16;
  double clip_threshold = 1.0;
  double weight_decay = 0.0;
};

/// CAME (Luo et al. 2023) as the authors' came-pytorch. Its state is that of Adafactor twice, and
/// "exp_avg.NAME".
OptimizerSpec came(const CameOptions& options = {});

struct MuonOptions {
  double momentum = 0.95;
  bool nesterov = true;
  std::int64_t iterations = 5;
  bool match_adamw = true;  ///< torch.optim.Muon's adjust_lr_fn "match_rms_adamw", or "original"
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
};

/// Muon (Jordan et al. 2024) as torch.optim.Muon for matrices, its products in the parameters' own
/// type instead of bf16; AdamW for all other tensors, by the same rate. Its state is
/// "momentum_buffer.NAME", or AdamW's.
OptimizerSpec muon(const MuonOptions& options = {});

/// A matrix [m, n] with its singular values brought near 1 by Newton-Schulz iterations: Muon's.
at::Tensor nearly_orthogonal(const at::Tensor& matrix, std::int64_t iterations);

// The options of one optimiser beside OptimizerNumbers, by the names of its reference.
void describe(OptionList& list, AdamWOptions& options);
void describe(OptionList& list, LionOptions& options);
void describe(OptionList& list, SgdOptions& options);
void describe(OptionList& list, AdafactorOptions& options);
void describe(OptionList& list, ProdigyOptions& options);
void describe(OptionList& list, ScheduleFreeOptions& options);
void describe(OptionList& list, CameOptions& options);
void describe(OptionList& list, MuonOptions& options);

/// What is given for an optimiser of the table; what is empty is its own.
struct OptimizerNumbers {
  std::optional<std::pair<double, double>> betas = {};
  std::optional<double> weight_decay = {};
  std::vector<std::string> options = {};  ///< texts for read_optimizer_options
};

/// The names of the table.
std::vector<std::string> optimizer_names();

/// The optimiser of that name with these numbers. Throws Error(invalid_argument) with the nearest
/// name for one that is not known, and for numbers that it does not have.
OptimizerSpec optimizer_from_name(const std::string& name, const OptimizerNumbers& numbers = {});

}  // namespace ringlet::train
