// The rows of part_formats(), one file each, and what several of them need.
#pragma once

#include "ringlet/formats/layer_reader.h"
#include "ringlet/formats/layer_writer.h"
#include "ringlet/formats/part_format.h"

namespace ringlet::formats {

PartFormat adalora_format();
PartFormat bias_format();
PartFormat boft_format();
PartFormat common_format();
PartFormat difference_format();
PartFormat fourierft_format();
PartFormat glora_format();
PartFormat hra_format();
PartFormat ia3_format();
PartFormat loha_format();
PartFormat lokr_format();
PartFormat lora_format();
PartFormat magnitude_format();
PartFormat oft_format();
PartFormat saved_format();
PartFormat vera_format();

/// DoRA's lengths beside another part, where the layer has them.
void read_magnitude(LayerReader& layer);
/// Refuses lengths that the program has no form for.
void write_magnitude(LayerWriter& layer);

/// A bias beside another part, where the layer has one: ComfyUI and LyCORIS keep a difference of
/// the bias beside the tensors of every method.
void read_bias(LayerReader& layer);

/// The two factors of a low rank and their scale, which is returned. A start that is not zero
/// doubles the ranks.
double write_low_rank(LayerWriter& layer, const char* down, const char* up);

/// LyCORIS' OFT and BOFT: the constraint that the file keeps as alpha, 0 without one.
double read_constraint(LayerReader& layer);
void write_constraint(LayerWriter& layer, double constraint);

/// The scale of output rows that OFT and BOFT files may have beside the rotations.
void read_row_scale(LayerReader& layer, const char* what);
/// Writes it, of ones where there is none if it is `always` there.
void write_row_scale(LayerWriter& layer, const char* what, bool always);
/// Whether the method is one rotation, perhaps with such a scale behind it, and nothing else.
/// Refuses other methods.
bool is_rotation(LayerWriter& layer);

}  // namespace ringlet::formats
