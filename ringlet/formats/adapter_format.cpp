#include "ringlet/formats/adapter_format.h"

#include <array>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::formats {
namespace {

constexpr std::array<std::pair<const char*, AdapterFormat>, 5> kFormats = {
    {{"ringlet", AdapterFormat::ringlet},
     {"peft", AdapterFormat::peft},
     {"diffusers", AdapterFormat::diffusers},
     {"kohya", AdapterFormat::kohya},
     {"lycoris", AdapterFormat::lycoris}}};

}  // namespace

AdapterFormat parse_adapter_format(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& [text, format] : kFormats) {
    if (name == text) return format;
    known.emplace_back(text);
  }
  throw Error(ErrorCode::invalid_argument, Field("to"), "\"" + name + "\" is not an adapter format",
              "known: " + join(known));
}

const char* name_of(AdapterFormat format) {
  for (const auto& [name, one] : kFormats)
    if (one == format) return name;
  return "";
}

Naming naming_of(AdapterFormat format) {
  if (format == AdapterFormat::peft) return Naming::peft;
  if (format == AdapterFormat::diffusers) return Naming::diffusers;
  return Naming::kohya;
}

}  // namespace ringlet::formats
