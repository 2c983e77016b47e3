#include "ringlet/service/json_fields.h"

#include <algorithm>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::service {

JsonFields::JsonFields(const Json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object.is_object())
    throw Error(ErrorCode::invalid_argument, Field(path_.empty() ? "request" : path_),
                "is not a JSON object", "write {\"field\": value, …}");
}

std::string JsonFields::path(const std::string& name) const {
  return path_.empty() ? name : path_ + "." + name;
}

const Json* JsonFields::find(const char* name) {
  if (std::ranges::find(known_, name) == known_.end()) known_.emplace_back(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::finish() const {
  for (const auto& [name, value] : object_.items()) {
    if (std::ranges::find(known_, name) != known_.end()) continue;
    const std::string near = nearest_name(name, known_);
    throw Error(ErrorCode::invalid_argument, Field(path(name)), "there is no such field",
                near.empty() ? "the fields are " + join(known_) : "did you mean \"" + near + "\"?");
  }
}

void JsonFields::missing(const char* name) const {
  throw Error(ErrorCode::invalid_argument, Field(path(name)), "is needed");
}

void JsonFields::wrong_type(const char* name, const Json& found, const std::string& type) const {
  constexpr std::size_t kLongest = 60;
  std::string text = found.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "…";
  throw Error(ErrorCode::invalid_argument, Field(path(name)), text + " has the wrong type",
              "give " + type);
}

}  // namespace ringlet::service
