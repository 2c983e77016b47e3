// The prompts of DreamBooth's evaluation (Ruiz et al. 2023), 25 for objects and 25 for live
// subjects. From the data set google/dreambooth, licensed CC BY 4.0, with "{}" for token and class.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ringlet::eval {

/// "dreambooth-objects" or "dreambooth-live"; empty for another name.
std::vector<std::string> published_prompts(std::string_view name);

/// The prompt with `subject` ("sks dog") for "{}"; a prompt without "{}" as it is.
std::string with_subject(const std::string& prompt, const std::string& subject);

}  // namespace ringlet::eval
