// The optimisers, and the table that names them.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

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

/// The numbers that all optimisers of the table have; what is empty is the optimiser's own.
struct OptimizerNumbers {
  std::optional<std::pair<double, double>> betas = {};
  std::optional<double> weight_decay = {};
};

/// The names of the table.
std::vector<std::string> optimizer_names();

/// The optimiser of that name with these numbers. Throws Error(invalid_argument) with the nearest
/// name for one that is not known.
OptimizerSpec optimizer_from_name(const std::string& name, const OptimizerNumbers& numbers = {});

}  // namespace ringlet::train
