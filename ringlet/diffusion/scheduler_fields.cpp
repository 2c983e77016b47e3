#include "ringlet/diffusion/scheduler_fields.h"

#include "ringlet/core/error.h"

namespace ringlet::diffusion {

void refuse_unless(const Json& json, const char* field, const Json& neutral,
                   const std::string& where) {
  const auto found = json.find(field);
  if (found == json.end() || found->is_null() || *found == neutral) return;
  throw Error(ErrorCode::unsupported, where,
              std::string("field \"") + field + "\" is " + found->dump(),
              "ringlet implements " + neutral.dump() + " only; edit the field to use that");
}

void refuse_other_solvers(const Json& json, const std::string& where) {
  const auto name = json_value<std::string>(json, "_class_name", "", where);
  if (name == "DPMSolverMultistepScheduler" || name == "UniPCMultistepScheduler")
    refuse_unless(json, "solver_order", 2, where);
  if (name == "DPMSolverMultistepScheduler") refuse_unless(json, "solver_type", "midpoint", where);
  if (name == "UniPCMultistepScheduler") refuse_unless(json, "solver_type", "bh2", where);
  if (name == "DDPMScheduler") refuse_unless(json, "variance_type", "fixed_small", where);
}

bool is_sde_solver(const Json& json, const std::string& where) {
  const auto algorithm = json_value<std::string>(json, "algorithm_type", "dpmsolver++", where);
  if (algorithm == "sde-dpmsolver++") return true;
  refuse_unless(json, "algorithm_type", "dpmsolver++", where);
  return false;
}

}  // namespace ringlet::diffusion
