// Fields of a scheduler_config.json that several processes read alike.
#pragma once

#include <string>

#include "ringlet/core/json.h"

namespace ringlet::diffusion {

/// Throws Error(unsupported) where a field that ringlet does not implement has another value than
/// the one that changes nothing.
void refuse_unless(const Json& json, const char* field, const Json& neutral,
                   const std::string& where);

/// Refuses orders and variants of diffusers' solvers that ringlet does not implement.
void refuse_other_solvers(const Json& json, const std::string& where);

/// Whether DPMSolverMultistep's algorithm_type is the stochastic one. Throws Error(unsupported) for
/// others than the two that ringlet implements.
bool is_sde_solver(const Json& json, const std::string& where);

}  // namespace ringlet::diffusion
