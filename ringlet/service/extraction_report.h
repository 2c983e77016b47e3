// What came of an extraction or a comparison of methods, for programs and as a picture.
#pragma once

#include "ringlet/core/json.h"
#include "ringlet/io/image.h"
#include "ringlet/pipeline/extract.h"

namespace ringlet::service {

/// {"method", "share", "unchanged", "rounded", "types", "rounding", "layers": [{"layer", "method",
/// "change", "relative_error", "parameters", "steps", "seconds", "closed_form", "converged"}],
/// "total": the same of all layers}.
Json to_json(const pipeline::ModelDifference& difference, const pipeline::Extraction& extraction);

/// {"share", "rounded", "types", "rounding", "layers": their number, "fits": [{"curve", "method",
/// "budget", "converged_layers" and what to_json of an extraction has in "total"}], "left_out"}.
Json to_json(const pipeline::ModelDifference& difference,
             const pipeline::FitComparison& comparison);

/// Relative error against parameters, a curve for every method.
io::Image draw_comparison(const pipeline::FitComparison& comparison);

}  // namespace ringlet::service
