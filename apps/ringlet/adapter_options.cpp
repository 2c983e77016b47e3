#include "adapter_options.h"

#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include "options.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

double strength_in(std::string_view text, const char* option, const std::string& example) {
  const std::optional<double> strength = read_number(text);
  if (!strength)
    throw Error(ErrorCode::invalid_argument, option,
                "\"" + std::string(text) + "\" is not a strength",
                "write a number, for example " + example);
  return *strength;
}

pipeline::AdapterChoice parse_adapter(const std::string& text) {
  if (fs::exists(text)) return {text, 1.0, {}};
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || !fs::exists(text.substr(0, colon)))
    throw Error(ErrorCode::not_found, text, "the adapter file does not exist",
                "give --adapter FILE or --adapter FILE:strength");
  const std::string file = text.substr(0, colon);
  return {
      file, strength_in(std::string_view(text).substr(colon + 1), "--adapter", file + ":0.8"), {}};
}

std::pair<std::string, double> parse_block(const std::string& text) {
  constexpr const char* kExample = "unet.up_blocks.*=0.5";
  const std::size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0)
    throw Error(ErrorCode::invalid_argument, "--block-strength", "\"" + text + "\" has no strength",
                std::string("write PATTERN=strength, for example ") + kExample);
  return {text.substr(0, equals),
          strength_in(std::string_view(text).substr(equals + 1), "--block-strength", kExample)};
}

}  // namespace

void AdapterOptions::add_to(OptionList& list) {
  list.add("adapter", files,
           "Adapter file (ringlet, kohya, LyCORIS, diffusers) or PEFT folder, with :strength where "
           "it is not 1; may be given several times");
  list.add("block_strength", blocks,
           "PATTERN=strength: the adapters' strength in some layers, as a factor, for example "
           "\"unet.up_blocks.*=0.5\"; may be given several times");
}

std::vector<pipeline::AdapterChoice> parse_adapters(const AdapterOptions& options) {
  std::vector<std::pair<std::string, double>> blocks;
  for (const std::string& text : options.blocks) blocks.push_back(parse_block(text));
  std::vector<pipeline::AdapterChoice> choices;
  for (const std::string& text : options.files) {
    choices.push_back(parse_adapter(text));
    choices.back().blocks = blocks;
  }
  return choices;
}

}  // namespace ringlet::app
