#include "ringlet/train/text_to_image/sample_prompts.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"
#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

[[noreturn]] void bad_line(const std::string& place, const std::string& what,
                           const std::string& hint = {}) {
  throw Error(ErrorCode::bad_format, place, what, hint);
}

std::string dashed(const std::string& flag) { return std::string(2, '-') + flag; }

std::string trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\f\v";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(kBlank) - first + 1));
}

template <class Number>
Number whole_number_of(const std::string& flag, const std::string& text, const std::string& place,
                       Number least) {
  Number number{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size() || number < least)
    bad_line(place, dashed(flag) + " \"" + text + "\": a whole number" +
                        (least > 0 ? " above 0" : "") + " is needed");
  return number;
}

double scale_of(const std::string& flag, const std::string& text, const std::string& place) {
  constexpr double kLargest = 1000.0;
  const std::optional<double> number = read_number(text);
  if (!number || *number < 0.0 || *number > kLargest)
    bad_line(place, dashed(flag) + " \"" + text + "\": a number from 0 to 1000 is needed");
  return *number;
}

diffusion::SamplerChoice sampler_of(const std::string& text, const std::string& place) {
  if (text == "dpmsolver++") return diffusion::find_sampler("dpmpp-2m");
  try {
    return diffusion::find_sampler(text);
  } catch (const Error& error) {
    bad_line(place, dashed("ss") + " \"" + text + "\": " + error.message(), error.hint());
  }
}

using SetField = void (*)(SamplePrompt&, const std::string& text, const std::string& place);

/// By their names without the dashes.
constexpr std::array<std::pair<const char*, SetField>, 8> kFlags = {{
    {"n", [](SamplePrompt& p, const std::string& text, const std::string&) { p.negative = text; }},
    {"w",
     [](SamplePrompt& p, const std::string& text, const std::string& place) {
       p.width = whole_number_of<std::int64_t>("w", text, place, 1);
     }},
    {"h",
     [](SamplePrompt& p, const std::string& text, const std::string& place) {
       p.height = whole_number_of<std::int64_t>("h", text, place, 1);
     }},
    {"d",
     [](SamplePrompt& p, const std::string& text, const std::string& place) {
       p.seed = whole_number_of<std::uint64_t>("d", text, place, 0);
     }},
    {"s",
     [](SamplePrompt& p, const std::string& text, const std::string& place) {
       p.steps = whole_number_of<std::int64_t>("s", text, place, 1);
     }},
    {"l", [](SamplePrompt& p, const std::string& text,
             const std::string& place) { p.guidance = scale_of("l", text, place); }},
    {"g", [](SamplePrompt& p, const std::string& text,
             const std::string& place) { p.told_guidance = scale_of("g", text, place); }},
    {"ss", [](SamplePrompt& p, const std::string& text,
              const std::string& place) { p.sampler = sampler_of(text, place); }},
}};

/// Flags of sd-scripts that have no counterpart in a sheet.
constexpr std::array<std::pair<const char*, const char*>, 4> kOtherFlags = {{
    {"cn", "use `control` and `validation_pictures` for samples that follow a signal"},
    {"ctr", "use `control` and `validation_pictures` for samples that follow a signal"},
    {"fs", "the shift is the model's own"},
    {"rcfg", "there is one scale of classifier-free guidance, that of the flag l"},
}};

void set_flag(SamplePrompt& prompt, const std::string& flag, const std::string& value,
              const std::string& place) {
  for (const auto& [name, set] : kFlags)
    if (flag == name) {
      if (value.empty()) bad_line(place, dashed(flag) + " has no value");
      return set(prompt, value, place);
    }
  for (const auto& [name, hint] : kOtherFlags)
    if (flag == name) bad_line(place, dashed(flag) + " is not supported", hint);
  std::vector<std::string> names;
  for (const auto& [name, set] : kFlags) names.push_back(dashed(name));
  const std::string nearest = nearest_name(dashed(flag), names);
  bad_line(place, dashed(flag) + " is not known",
           nearest.empty() ? "known are " + join(names) : "did you mean " + nearest + "?");
}

/// Where the next flag begins: two dashes behind a blank, and a letter.
std::size_t next_flag(std::string_view line, std::size_t from) {
  const std::string dashes = " " + dashed("");
  for (std::size_t at = line.find(dashes, from); at != std::string_view::npos;
       at = line.find(dashes, at + 1)) {
    const std::size_t letter = at + dashes.size();
    if (letter < line.size() && std::isalpha(static_cast<unsigned char>(line[letter])) != 0)
      return at;
  }
  return std::string_view::npos;
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

SamplePrompt parse_sample_prompt(std::string_view line, const std::string& place) {
  SamplePrompt prompt;
  prompt.place = place;
  std::string with_blank = " " + trimmed(line);  // a line may begin with a flag
  std::ranges::replace(with_blank, '\t', ' ');
  const std::string_view text = with_blank;
  std::size_t begin = next_flag(text, 0);
  prompt.text = trimmed(text.substr(0, begin));
  while (begin != std::string_view::npos) {
    const std::size_t end = next_flag(text, begin + 1);
    const std::string part =
        trimmed(text.substr(begin, end == std::string_view::npos ? end : end - begin));
    const std::size_t blank = part.find(' ');
    set_flag(prompt, lower(part.substr(2, blank == std::string::npos ? blank : blank - 2)),
             blank == std::string::npos ? "" : trimmed(part.substr(blank)), place);
    begin = end;
  }
  return prompt;
}

std::vector<SamplePrompt> read_sample_prompts(const std::filesystem::path& file) {
  std::vector<SamplePrompt> prompts;
  const std::vector<std::string> lines = read_text_lines(file);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string line = trimmed(lines[i]);
    if (line.empty() || line.starts_with('#')) continue;
    prompts.push_back(parse_sample_prompt(line, file.string() + ":" + std::to_string(i + 1)));
  }
  if (prompts.empty())
    throw Error(ErrorCode::bad_format, file.string(), "holds no prompt",
                "write a prompt per line; lines that begin with # are comments");
  return prompts;
}

void SamplePrompt::apply_to(pipeline::GenerateRequest& request,
                            const pipeline::TextToImageModel& model) const {
  request.prompt = text;
  if (negative) request.negative_prompt = negative;
  if (steps) request.steps = steps;
  if (sampler.entry != nullptr) request.sampler = sampler;
  const std::int64_t unit = model.size_unit();
  const auto rounded = [&](std::int64_t side) { return std::max(unit, side / unit * unit); };
  if (width) request.size.width = rounded(*width);
  if (height) request.size.height = rounded(*height);
  if (guidance)
    (model.guidance_is_distilled() ? request.true_guidance : request.guidance) = guidance;
  if (!told_guidance) return;
  if (!model.guidance_is_distilled())
    throw Error(ErrorCode::invalid_argument, place,
                dashed("g") + " is for models that are told a guidance scale, and this one is not",
                "give " + dashed("l") + ", the scale of classifier-free guidance");
  request.guidance = told_guidance;
}

}  // namespace ringlet::train
