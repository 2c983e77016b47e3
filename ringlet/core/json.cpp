#include "ringlet/core/json.h"

#include <set>
#include <utility>
#include <vector>

#include "ringlet/core/read_file.h"

namespace ringlet {
namespace {

/// Builds the document through nlohmann's DOM builder while it checks what the library lets pass:
/// duplicate keys and depth.
class StrictReader : public Json::json_sax_t {
 public:
  StrictReader(Json& root, int max_depth) : builder_(root, false), max_depth_(max_depth) {}

  const std::string& problem() const { return problem_; }

  bool null() override { return builder_.null(); }
  bool boolean(bool value) override { return builder_.boolean(value); }
  bool number_integer(Json::number_integer_t value) override {
    return builder_.number_integer(value);
  }
  bool number_unsigned(Json::number_unsigned_t value) override {
    return builder_.number_unsigned(value);
  }
  bool number_float(Json::number_float_t value, const std::string& text) override {
    return builder_.number_float(value, text);
  }
  bool string(std::string& value) override { return builder_.string(value); }
  bool binary(Json::binary_t& value) override { return builder_.binary(value); }

  bool start_object(std::size_t size) override {
    seen_.emplace_back();
    return deeper() && builder_.start_object(size);
  }
  bool key(std::string& name) override {
    if (!seen_.back().insert(name).second) return stop("key \"" + name + "\" appears twice");
    return builder_.key(name);
  }
  bool end_object() override {
    seen_.pop_back();
    --depth_;
    return builder_.end_object();
  }
  bool start_array(std::size_t size) override { return deeper() && builder_.start_array(size); }
  bool end_array() override {
    --depth_;
    return builder_.end_array();
  }
  bool parse_error(std::size_t position, const std::string&, const Json::exception&) override {
    return stop("is not valid JSON (near byte " + std::to_string(position) + ")");
  }

 private:
  bool deeper() {
    if (++depth_ > max_depth_)
      return stop("is nested more than " + std::to_string(max_depth_) + " deep");
    return true;
  }
  bool stop(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
    return false;
  }

  nlohmann::detail::json_sax_dom_parser<Json> builder_;
  std::vector<std::set<std::string>> seen_;
  std::string problem_;
  int depth_ = 0;
  int max_depth_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes)
    throw Error(ErrorCode::bad_format, where,
                "is larger than the limit of " + std::to_string(limits.max_bytes) + " bytes");
  // nlohmann would skip a byte order mark and take a NUL for the end of the text.
  if (text.starts_with("\xEF\xBB\xBF") || text.find('\0') != std::string_view::npos)
    throw Error(ErrorCode::bad_format, where,
                "is not valid JSON (a byte order mark or a NUL byte)");
  Json root;
  StrictReader reader(root, limits.max_depth);
  if (!Json::sax_parse(text.begin(), text.end(), &reader) || !reader.problem().empty())
    throw Error(ErrorCode::bad_format, where, reader.problem());
  return root;
}

Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  std::error_code problem;
  if (std::filesystem::is_regular_file(path, problem) &&
      std::filesystem::file_size(path, problem) > limits.max_bytes)
    throw Error(ErrorCode::bad_format, path.string(), "is too large for a JSON file");
  return parse_json(read_file(path), path.string(), limits);
}

}  // namespace ringlet
