// A part's form in other programs' adapter files: what its tensors are called, how PEFT calls the
// method and its settings, who can hold it, how it is read and written. One file of parts/ each and
// one line in the list, part_formats.cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ringlet/adapt/method.h"
#include "ringlet/formats/adapter_format.h"

namespace ringlet::formats {

class LayerReader;
class LayerWriter;
class RowJoiner;
class RowTaker;
struct LayerTensors;

/// Groups of endings that a dialect knows together; combined by |.
using Spellings = unsigned;
inline constexpr Spellings kPeftNames = 1;
/// LoRA under dotted names: diffusers' spellings, and those that ComfyUI reads beside them.
inline constexpr Spellings kDotted = 2;
/// What kohya, LyCORIS, ComfyUI and OneTrainer write under their own names of layers, and
/// OneTrainer under diffusers', too.
inline constexpr Spellings kShared = 4;
/// Under names whose dots have become underscores alone: with dots it could be any tensor's.
inline constexpr Spellings kUnderscored = 8;
inline constexpr Spellings kCloneofsimo = 16;
/// Of Black Forest Labs alone: what stands in their files beside adapters.
inline constexpr Spellings kOriginal = 32;

/// What an ending says of the file.
enum class Telling {
  method,   ///< which method it is of
  little,   ///< nothing by itself: a name that tensors of other files have, too
  setting,  ///< a scale or a switch that stands beside the numbers of several methods
};

/// How a tensor's name ends, and what that means under one name for all dialects: "down", "alpha".
/// The first of each meaning is the one that a dialect writes.
struct Ending {
  const char* text;
  const char* what;
  Spellings spellings;
  Telling telling = Telling::method;
  /// It tells the method only behind this: a layer's older name that ends so.
  const char* behind = "";
};

/// Fields of PEFT's configuration.
struct PeftForm {
  std::vector<std::string> types = {};   ///< the first is written
  std::vector<std::string> fields = {};  ///< that are read, or change nothing of what is computed
  const char* alpha_field = "alpha";
  const char* block_size_field = nullptr;    ///< one size of blocks for all layers,
  const char* block_number_field = nullptr;  ///< or one number of them
  const char* input_layers_field = nullptr;  ///< lists the layers that are changed on their input
  bool of_conv1d = true;                     ///< it has code for GPT-2's class of layers
};

struct PartFormat {
  const char* part = "";       ///< ringlet's name of the part that is written, or ""
  const char* shown = "";      ///< of files whose names tell it: "LoRA"
  const char* algorithm = "";  ///< LyCORIS' name where it is another than ringlet's
  std::vector<Ending> endings = {};
  PeftForm peft = {};
  std::vector<AdapterFormat> held_by = {};

  /// Whether a layer's tensors are this part's to read; the first part of the list takes them.
  bool (*recognises)(const LayerTensors& layer) = nullptr;
  void (*read)(LayerReader& layer) = nullptr;
  void (*write)(LayerWriter& layer) = nullptr;

  /// The tensors of some output rows of a fused layer (fused_rows.h); null where each of its
  /// numbers changes rows everywhere.
  void (*take_rows)(RowTaker& layer) = nullptr;
  /// The reverse, of layers that form a fused one.
  void (*join_rows)(RowJoiner& layer) = nullptr;

  bool holds(AdapterFormat format) const;
};

/// All of them, the more special ones first: DoRA is LoRA with one tensor more.
const std::vector<PartFormat>& part_formats();

/// The part by which programs know a method: its first transform, else the residual.
const adapt::PartSpec& leading_part(const adapt::Method& method);

/// The row of a part that some program has a form for, or nothing.
const PartFormat* find_format(std::string_view part);

}  // namespace ringlet::formats
