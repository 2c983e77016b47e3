// Requests as JSON objects: every field by its name, and none that nobody knows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ringlet/core/json.h"

namespace ringlet::service {

/// The fields of one object. What is read is checked for its type; finish() refuses what was not.
class JsonFields {
 public:
  /// `path` is the object's own field, "" for a whole request. Throws Error(invalid_argument) for
  /// anything but an object. `object` must outlive the reader.
  explicit JsonFields(const Json& object, std::string path = {});

  /// Puts the field into `value`, which stays as it is where the field is absent or null; says
  /// whether it was there. Throws Error(invalid_argument) that names the field for another type.
  template <class T>
  bool read(const char* name, T& value) {
    const Json* found = find(name);
    if (found == nullptr) return false;
    if (!holds(*found, value)) wrong_type(name, *found, type_of(value));
    get(*found, value);
    return true;
  }

  /// As read; throws Error(invalid_argument) where it is absent or null.
  template <class T>
  void require(const char* name, T& value) {
    if (!read(name, value)) missing(name);
  }

  /// Adds what `element(json, path)` makes of each element of a list, if the field is there.
  template <class Element, class T>
  void read_list(const char* name, const Element& element, std::vector<T>& values) {
    const Json* list = find(name);
    if (list == nullptr) return;
    if (!list->is_array()) wrong_type(name, *list, "a list: [{\"file\": …}, …]");
    for (const Json& one : *list)
      values.push_back(element(one, path(name) + "[" + std::to_string(values.size()) + "]"));
  }

  /// The field as it stands, or null where it is absent or null: for objects and lists of them.
  const Json* find(const char* name);

  /// "adapters.strength": a field's place in errors.
  std::string path(const std::string& name) const;

  /// Throws Error(invalid_argument) for the first field that was never asked for, with the nearest
  /// name among those that were.
  void finish() const;

 private:
  static bool holds(const Json& json, const std::string&) { return json.is_string(); }
  static bool holds(const Json& json, const std::filesystem::path&) { return json.is_string(); }
  template <class T>
  static bool holds(const Json& json, const std::vector<T>&) {
    if (!json.is_array()) return false;
    for (const Json& element : json)
      if (!holds(element, T{})) return false;
    return true;
  }
  template <class T>
  static bool holds(const Json& json, const std::optional<T>&) {
    return holds(json, T{});
  }
  template <class T>
  requires std::is_arithmetic_v<T>
  static bool holds(const Json& json, const T&) {
    return detail::holds(json, static_cast<const T*>(nullptr));
  }

  static void get(const Json& json, std::filesystem::path& value) {
    value = json.get<std::string>();
  }
  template <class T>
  static void get(const Json& json, std::optional<T>& value) {
    get(json, value.emplace());
  }
  template <class T>
  static void get(const Json& json, std::vector<T>& value) {
    value.clear();
    for (const Json& element : json) get(element, value.emplace_back());
  }
  template <class T>
  static void get(const Json& json, T& value) {
    value = json.get<T>();
  }

  static std::string type_of(const std::string&) { return "a string"; }
  static std::string type_of(const std::filesystem::path&) { return "a path, as a string"; }
  static std::string type_of(const bool&) { return "true or false"; }
  static std::string type_of(const double&) { return "a number"; }
  static std::string type_of(const int&) { return "a whole number"; }
  static std::string type_of(const std::int64_t&) { return "a whole number"; }
  static std::string type_of(const std::uint64_t&) { return "a whole number from 0 to 2^64 - 1"; }
  template <class T>
  static std::string type_of(const std::optional<T>&) {
    return type_of(T{});
  }
  template <class T>
  static std::string type_of(const std::vector<T>&) {
    return "a list of values, each " + type_of(T{});
  }

  [[noreturn]] void missing(const char* name) const;
  [[noreturn]] void wrong_type(const char* name, const Json& found, const std::string& type) const;

  const Json& object_;
  std::string path_;
  std::vector<std::string> known_;
};

}  // namespace ringlet::service
