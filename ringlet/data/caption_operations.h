// What is done to a caption each time it is shown, in the order that kohya's sd-scripts document:
// prefix and suffix, dropping the whole caption, wildcards, tokens to keep, shuffling, dropping of
// tags, the secondary separator. Pure functions of a random stream.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/core/random.h"

namespace ringlet::data {

struct CaptionOperations {
  std::string prefix = {}, suffix = {};  ///< with a space between them and the caption; "" = none
  /// {a|b|c} stands for one of its words, {{ and }} for braces; of several lines one is chosen.
  bool wildcards = false;
  std::string separator = ",";             ///< between tags
  std::int64_t keep_tokens = 0;            ///< the first tags stay where they are
  std::string keep_tokens_separator = {};  ///< what is before it stays, and what is behind a second
  std::string secondary_separator = {};    ///< between tags that stay together; becomes `separator`
  bool shuffle = false;                    ///< the other tags change places
  double tag_dropout = 0.0;                ///< the share of the other tags that are left out
  std::int64_t dropout_every_epochs = 0;   ///< each n-th epoch shows no caption; 0 = none does
  std::int64_t variants = 8;               ///< of a caption that these operations change at random

  bool operator==(const CaptionOperations&) const = default;
};

/// The options of a program; the share of empty captions is another one.
void describe(OptionList& list, CaptionOperations& operations);

/// Refuses options that have no effect together, such as tags to keep where none are moved. Throws
/// Error(invalid_argument).
void check(const CaptionOperations& operations);

/// The caption as it is shown, unless it is dropped. Throws nothing.
std::string changed_caption(const CaptionOperations& operations, std::string caption,
                            RandomStream& random);

/// The captions that a picture shows, which are encoded before the run: `variants` draws of the
/// stream "caption variant" of the picture's number, or one where nothing is drawn. Equal ones
/// stay, so that each keeps its probability.
std::vector<std::string> caption_variants(const CaptionOperations& operations,
                                          const std::string& caption, const Random& random,
                                          std::uint64_t picture);

/// Whether an epoch, counted from 0, shows no captions: the n-th, 2n-th, … of kohya's, which count
/// from 1.
bool drops_captions(std::int64_t every_epochs, std::int64_t epoch);

}  // namespace ringlet::data
