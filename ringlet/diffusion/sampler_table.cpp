#include "ringlet/diffusion/sampler_table.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"

namespace ringlet::diffusion {
namespace {

constexpr std::string_view kKarras = "-karras";

/// Lower case, "+" as "p", and "-" between words.
std::string normal_form(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == '+')
      out += 'p';
    else if (c == ' ' || c == '_')
      out += '-';
    else
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  if (out.starts_with("k-")) out.erase(0, 2);
  return out;
}

const std::map<std::string, std::string>& aliases() {
  static const std::map<std::string, std::string> table = {
      {"plms", "pndm"},
      {"euler-a", "euler-ancestral"},
      {"dpmpp-2m-sde-multistep", "dpmpp-2m-sde"},
      {"dpmpp", "dpmpp-2m"},
      {"unipc-bh2", "unipc"},
  };
  return table;
}

const SamplerEntry* find_entry(const std::string& name) {
  const auto alias = aliases().find(name);
  const std::string& wanted = alias == aliases().end() ? name : alias->second;
  for (const SamplerEntry& entry : sampler_table())
    if (wanted == entry.name || wanted == normal_form(entry.label) ||
        wanted == normal_form(entry.diffusers_class))
      return &entry;
  return nullptr;
}

}  // namespace

const std::vector<SamplerEntry>& sampler_table() {
  static const std::vector<SamplerEntry> table = {
      {"ddim", "DDIM", "DDIMScheduler", Grid::ddim, sample_ddim},
      {"ddpm", "DDPM", "DDPMScheduler", Grid::ddpm, sample_ddpm},
      {"pndm", "PLMS", "PNDMScheduler", Grid::pndm, sample_pndm, true},
      {"euler", "Euler", "EulerDiscreteScheduler", Grid::k, sample_euler},
      {"euler-ancestral", "Euler a", "EulerAncestralDiscreteScheduler", Grid::k,
       sample_euler_ancestral},
      {"heun", "Heun", "HeunDiscreteScheduler", Grid::k, sample_heun},
      {"dpmpp-2m", "DPM++ 2M", "DPMSolverMultistepScheduler", Grid::dpm, sample_dpmpp_2m},
      {"dpmpp-2m-sde", "DPM++ 2M SDE", "", Grid::dpm, sample_dpmpp_2m_sde},
      {"dpmpp-sde", "DPM++ SDE", "DPMSolverSDEScheduler", Grid::k, sample_dpmpp_sde},
      {"unipc", "UniPC", "UniPCMultistepScheduler", Grid::unipc, sample_unipc},
      {"lcm", "LCM", "LCMScheduler", Grid::lcm, sample_lcm, true},
  };
  return table;
}

std::string SamplerChoice::name() const {
  return entry->name + (karras ? std::string(kKarras) : "");
}

std::string SamplerChoice::label() const { return entry->label + (karras ? " Karras" : ""); }

SamplingSteps SamplerChoice::steps(std::shared_ptr<const NoiseProcess> process, std::int64_t steps,
                                   PictureSize size) const {
  if (!entry->runs_on(*process))
    throw Error(ErrorCode::unsupported, Field("sampler"),
                entry->name + " needs integer timesteps, but this model's noise process is " +
                    std::string(process->name()),
                "use euler, heun, dpmpp-2m or unipc");
  return make_sampling_steps(std::move(process), {entry->grid, steps, karras, spacing, size});
}

SamplerChoice find_sampler(std::string_view name) {
  std::string wanted = normal_form(name);
  const bool karras = wanted.ends_with(kKarras);
  if (karras) wanted.resize(wanted.size() - kKarras.size());
  const SamplerEntry* entry = wanted.empty() ? nullptr : find_entry(wanted);
  if (entry != nullptr && (!karras || entry->takes_karras())) return {entry, karras};

  std::vector<std::string> names;
  for (const SamplerEntry& known : sampler_table()) {
    names.push_back(known.name);
    if (known.takes_karras()) names.push_back(known.name + std::string(kKarras));
  }
  const std::string near = nearest_name(normal_form(name), names);
  throw Error(ErrorCode::invalid_argument, Field("sampler"),
              "there is no sampler \"" + std::string(name) + "\"",
              (near.empty() ? "" : "did you mean \"" + near + "\"? ") + ("known: " + join(names)));
}

void describe(OptionList& list, SamplerChoice& choice) {
  std::vector<std::string> names;
  for (const SamplerEntry& entry : sampler_table()) names.push_back(entry.name);
  const auto read = [&choice](const std::vector<std::string>& texts) {
    const SamplerChoice found = texts.back().empty() ? SamplerChoice() : find_sampler(texts.back());
    choice.entry = found.entry;
    choice.karras = found.karras;
  };
  const auto value = [&choice] { return choice.entry ? Json(choice.name()) : Json(); };
  const auto shown = [&choice] { return choice.entry ? choice.name() : ""; };
  list.add("sampler", {.read = read, .value = value, .shown = shown, .words = std::move(names)},
           "Sampler; most also with -karras")
      .or_else("the model's own");
  list.add("spacing", ringlet::choice("spacing", choice.spacing, kSpacingNames),
           "Which noise levels of training the steps visit")
      .or_else("the model's default; trailing for models with zero terminal SNR");
}

SamplerChoice default_sampler(const NoiseProcess& process) {
  const SamplerDefault own = process.default_sampler();
  const std::string wanted = normal_form(own.name);
  const SamplerEntry* entry = wanted.empty() ? nullptr : find_entry(wanted);
  if (entry != nullptr && entry->runs_on(process))
    return {entry, own.karras && entry->takes_karras()};
  if (!own.name.empty())
    log(LogLevel::warning, "the model's own sampler " + own.name +
                               " is not available; using euler (choose with `sampler`)");
  return {find_entry("euler"), own.karras};
}

}  // namespace ringlet::diffusion
