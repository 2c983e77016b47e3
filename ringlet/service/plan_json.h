// What a run is going to do, or has measured, as JSON.
#pragma once

#include "ringlet/core/json.h"
#include "ringlet/train/fine_tune.h"
#include "ringlet/tune/tune.h"

namespace ringlet::service {

/// {"model", "pictures", "captions_from_files", "captions": [{"caption", "tokens"}],
/// "captions_too_long": [{"where", "tokens", "limit", "cut"}], "notes": [{"kind", "text",
/// "files"}], "class_pictures", "class_pictures_found", "class_pictures_to_make", "class_notes",
/// "method", "layers", "parameters", "control_parameters", "validation_pictures", "resolution",
/// "steps", "first_step", "epochs", "optimizer", "expected_bytes"}.
Json to_json(const train::FineTunePlan& plan);

/// {"network", "examples", "held_out", "method", "layers", "new_layers", "parameters", "epochs",
/// "optimizer", "first_step"}.
Json to_json(const tune::TunePlan& plan);

/// {"step", "scores": {name: value}}.
Json to_json(const tune::ScoreRow& row);

}  // namespace ringlet::service
