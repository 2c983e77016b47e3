#include "fuzz/safetensors_mutator.h"

#include <algorithm>
#include <array>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace ringlet::fuzz {
namespace {

using Json = nlohmann::ordered_json;

/// A key with its value, both as they stand in the file: mutants need not be valid JSON.
struct Field {
  std::string key;
  std::string value;
};

struct Entry {
  std::string key;
  std::vector<Field> fields;  // of a tensor or of the metadata
  std::string other;          // the value when it is no object
};

struct Document {
  std::vector<Entry> entries;
  std::string data;
  std::string before, after;       // text around the header object
  std::int64_t length_change = 0;  // how wrong the length field is
};

constexpr std::array kNames{R"("a")",          R"("\u0061")", R"("")",       R"("__metadata__")",
                            R"("../x")",       R"("\n")",     R"("\ud800")", "\"\xC0\xAF\"",
                            "\"\xE2\x82\xAC\""};
constexpr std::array kDtypes{"F4",   "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3",     "F8_E8M0",
                             "BOOL", "U8",      "I8",      "U16",     "I16",         "F16",
                             "BF16", "U32",     "I32",     "F32",     "U64",         "I64",
                             "F64",  "C64",     "f32",     "F128",    "F8_E4M3FNUZ", "F8_E5M2FNUZ"};
constexpr std::array kBits{4, 6, 6, 8, 8, 8, 8, 8, 8, 16, 16, 16, 16, 32, 32, 32, 64, 64, 64, 64};
constexpr std::array kNumbers{"0",
                              "1",
                              "2",
                              "3",
                              "7",
                              "8",
                              "64",
                              "-1",
                              "-0",
                              "1.5",
                              "1e20",
                              "4294967296",
                              "2305843009213693952",
                              "4611686018427387904",
                              "9223372036854775807",
                              "9223372036854775808",
                              "18446744073709551614",
                              "18446744073709551615",
                              "18446744073709551616"};
constexpr std::array kValues{"null",        "true",  "\"text\"", "[]",
                             "{}",          "[[1]]", "[0,4]",    "[4]",
                             "[0,4,8]",     "1e999", "[1,2,3]",  R"({"dtype":"F32"})",
                             "\"\\u0000\"", "[",     ""};
constexpr std::array kKeys{R"("dtype")", R"("shape")", R"("data_offsets")", R"("extra")",
                           R"("\u0073hape")"};

std::uint64_t read_length(std::string_view file) {
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i)
    length |= std::uint64_t{static_cast<unsigned char>(file[i])} << (8 * i);
  return length;
}

std::optional<Document> read_document(std::string_view file) {
  if (file.size() < 8) return std::nullopt;
  const std::uint64_t length = read_length(file);
  if (length > file.size() - 8) return std::nullopt;
  const Json json = Json::parse(file.substr(8, length), nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const auto text = [](const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  Document document;
  for (const auto& [key, value] : json.items()) {
    Entry& entry = document.entries.emplace_back();
    entry.key = text(key);
    if (value.is_object())
      for (const auto& [name, field] : value.items())
        entry.fields.push_back({text(name), text(field)});
    else
      entry.other = text(value);
  }
  document.data = file.substr(8 + length);
  return document;
}

std::string write_document(const Document& document) {
  std::string header = document.before + "{";
  for (const Entry& entry : document.entries) {
    if (&entry != document.entries.data()) header += ',';
    header += entry.key + ":";
    if (!entry.other.empty()) {
      header += entry.other;
      continue;
    }
    header += '{';
    for (const Field& field : entry.fields) {
      if (&field != entry.fields.data()) header += ',';
      header += field.key + ":" + field.value;
    }
    header += '}';
  }
  header += "}" + document.after;
  const std::uint64_t length = header.size() + static_cast<std::uint64_t>(document.length_change);
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(length >> (8 * i));
  return file + header + document.data;
}

class Mutator {
 public:
  Mutator(Document& document, std::uint32_t seed) : document_(document), random_(seed) {}

  void mutate() {
    for (std::size_t count = 1 + below(3); count > 0; --count) mutate_once();
    // Half of the mutants are made consistent again, so that the checks behind the first are
    // reached and accepted files stay frequent.
    if (below(2) == 0) lay_out();
  }

 private:
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  template <class List>
  std::string any(const List& list) {
    return std::string(list[below(list.size())]);
  }
  Entry* any_entry() {
    if (document_.entries.empty()) return nullptr;
    return &document_.entries[below(document_.entries.size())];
  }

  void mutate_once() {
    switch (below(12)) {
      case 0:
        return add_tensor();
      case 1:
        return change_entries();
      case 2:
        return change_metadata();
      case 3:
        document_.data.resize(below(2) == 0 ? below(64) : document_.data.size() + below(9));
        return;
      case 4:
        document_.length_change = static_cast<std::int64_t>(below(19)) - 9;
        return;
      case 5:
        (below(4) == 0 ? document_.before : document_.after) += std::string(1 + below(8), ' ');
        return;
      case 6:
      case 7:
        return change_number("\"shape\"");
      case 8:
      case 9:
        return change_number("\"data_offsets\"");
      default:
        return change_field();
    }
  }

  void add_tensor() {
    std::string shape = "[";
    for (std::size_t rank = below(4), i = 0; i < rank; ++i)
      shape += (i > 0 ? "," : "") + std::to_string(below(5));
    const std::string end = std::to_string(document_.data.size());
    std::string name = "\"t";
    name += std::to_string(below(50)) + "\"";
    document_.entries.push_back({name,
                                 {{"\"dtype\"", "\"" + any(kDtypes) + "\""},
                                  {"\"shape\"", shape + "]"},
                                  {"\"data_offsets\"", "[" + end + "," + end + "]"}},
                                 ""});
  }

  void change_entries() {
    Entry* entry = any_entry();
    if (entry == nullptr) return;
    switch (below(5)) {
      case 0:
        entry->key = any(kNames);
        return;
      case 1:
        document_.entries.push_back(Entry(*entry));
        return;
      case 2:
        document_.entries.erase(document_.entries.begin() + (entry - document_.entries.data()));
        return;
      case 3:
        entry->other = any(kValues);
        return;
      default:
        std::swap(*entry, *any_entry());
    }
  }

  void change_metadata() {
    const auto is_metadata = [](const Entry& entry) { return entry.key == "\"__metadata__\""; };
    auto found = std::ranges::find_if(document_.entries, is_metadata);
    if (found == document_.entries.end())
      found = document_.entries.insert(document_.entries.begin(), {"\"__metadata__\"", {}, ""});
    found->fields.push_back({any(kNames), below(3) > 0 ? any(kNames) : any(kValues)});
  }

  void change_number(std::string_view key) {
    Entry* entry = any_entry();
    if (entry == nullptr) return;
    for (Field& field : entry->fields) {
      if (field.key != key) continue;
      const Json list = Json::parse(field.value, nullptr, false);
      if (!list.is_array()) continue;
      std::vector<std::string> items;
      for (const Json& item : list) items.push_back(item.dump());
      const std::size_t place = below(items.size() + 1);
      if (place == items.size())
        items.push_back(any(kNumbers));
      else if (below(6) == 0)
        items.erase(items.begin() + static_cast<std::ptrdiff_t>(place));
      else
        items[place] = below(2) == 0 ? any(kNumbers) : std::to_string(below(70));
      field.value = "[";
      for (const std::string& item : items)
        field.value += (field.value.size() > 1 ? "," : "") + item;
      field.value += "]";
    }
  }

  void change_field() {
    Entry* entry = any_entry();
    if (entry == nullptr) return;
    if (entry->fields.empty() || below(8) == 0) {
      entry->fields.push_back({any(kKeys), any(kValues)});
      return;
    }
    Field& field = entry->fields[below(entry->fields.size())];
    switch (below(5)) {
      case 0:
        entry->fields.erase(entry->fields.begin() + (&field - entry->fields.data()));
        return;
      case 1:
        entry->fields.push_back(Field(field));
        return;
      case 2:
        field.value = any(kValues);
        return;
      default:
        for (Field& other : entry->fields)
          if (other.key == "\"dtype\"") other.value = "\"" + any(kDtypes) + "\"";
    }
  }

  /// Bytes that the entry's dtype and shape ask for; nothing when they make no (small) tensor.
  static std::optional<std::uint64_t> bytes_of(const Entry& entry) {
    std::uint64_t total = 0;
    for (const Field& field : entry.fields)
      for (std::size_t i = 0; i < kBits.size(); ++i)
        if (field.key == "\"dtype\"" && field.value == "\"" + std::string(kDtypes[i]) + "\"")
          total = static_cast<std::uint64_t>(kBits[i]);
    for (const Field& field : entry.fields) {
      const Json list = Json::parse(field.value, nullptr, false);
      if (field.key != "\"shape\"" || !list.is_array()) continue;
      for (const Json& item : list) {
        if (!item.is_number_unsigned() || item.get<std::uint64_t>() > 1000) return std::nullopt;
        total *= item.get<std::uint64_t>();
        if (total > 32'768) return std::nullopt;
      }
    }
    return (total + 7) / 8;
  }

  void lay_out() {
    std::uint64_t end = 0;
    for (Entry& entry : document_.entries) {
      const std::optional<std::uint64_t> size = bytes_of(entry);
      for (Field& field : entry.fields) {
        if (!size || field.key != "\"data_offsets\"") continue;
        field.value = "[" + std::to_string(end) + "," + std::to_string(end + *size) + "]";
        end += *size;
      }
    }
    document_.data.resize(end, 'x');
  }

  Document& document_;
  std::minstd_rand random_;
};

}  // namespace

std::string mutate_safetensors(std::string_view file, std::uint32_t seed) {
  std::optional<Document> document = read_document(file);
  if (!document) return std::string(file);
  Mutator(*document, seed).mutate();
  return write_document(*document);
}

}  // namespace ringlet::fuzz
