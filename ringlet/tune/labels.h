// The classes of a classification task, and a checkpoint's.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "ringlet/core/json.h"

namespace ringlet::tune {

class Labels {
 public:
  /// Those of a config.json ("id2label") where they are the classes of the examples, else the
  /// examples', sorted: then the checkpoint's head means something else and a new one is needed.
  Labels(const Json& config, const std::set<std::string>& of_examples, const std::string& where);

  std::int64_t count() const { return static_cast<std::int64_t>(names_.size()); }
  bool from_config() const { return from_config_; }

  /// The number of a class. Throws Error(invalid_argument) naming `where` for one that is unknown.
  std::int64_t index(const std::string& name, const std::string& where) const;

  /// The config with these classes.
  Json written_into(Json config) const;

 private:
  std::vector<std::string> names_;
  bool from_config_ = false;
};

}  // namespace ringlet::tune
