#include "ringlet/io/safetensors_header.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/text.h"

namespace ringlet::io {
namespace {

constexpr int kMaxIgnoredDepth = 64;

/// Text of the file for a message: short, whole UTF-8 characters, control characters escaped.
std::string for_message(std::string_view text) {
  std::size_t length = std::min<std::size_t>(text.size(), 100);
  while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80)
    --length;
  return Json(text.substr(0, length)).dump();
}

/// Bytes of a tensor, or an error when the product of its shape does not fit or ends inside a byte.
std::uint64_t tensor_bytes(const TensorInfo& info, const std::string& where) {
  std::uint64_t bits_total = static_cast<std::uint64_t>(bits(info.dtype));
  for (const std::int64_t extent : info.shape)
    if (__builtin_mul_overflow(bits_total, static_cast<std::uint64_t>(extent), &bits_total))
      fail_tensor(where, info.name, "its shape is too large to be real");
  if (bits_total % 8 != 0) fail_tensor(where, info.name, "its data ends inside a byte");
  return bits_total / 8;
}

/// Receives the header as JSON events and keeps only tensors and metadata. A document tree would
/// need more than 20 times the header's size in memory, and a hostile header may have 100 MB.
class HeaderReader : public Json::json_sax_t {
 public:
  HeaderReader(SafetensorsHeader& header, const std::string& where)
      : header_(header), where_(where) {}

  bool null() override {
    if (place_ != Place::metadata) return other("null");
    place_ = Place::header;
    return true;
  }
  bool boolean(bool value) override { return other(value ? "true" : "false"); }
  bool number_integer(Json::number_integer_t value) override {
    return other(std::to_string(value));
  }
  bool number_float(Json::number_float_t, const std::string& text) override { return other(text); }
  bool binary(Json::binary_t&) override { return other("binary data"); }
  bool number_unsigned(Json::number_unsigned_t value) override;
  bool string(std::string& value) override;
  bool key(std::string& name) override;
  bool start_object(std::size_t) override;
  bool end_object() override;
  bool start_array(std::size_t) override;
  bool end_array() override;
  bool parse_error(std::size_t position, const std::string&, const Json::exception&) override {
    fail_format(where_,
                "its header is not valid JSON (near byte " + std::to_string(position) + ")");
  }

 private:
  /// What the next event belongs to.
  enum class Place {
    outside,         // before the header object
    header,          // between the header's entries
    tensor,          // the value of a tensor entry
    entry,           // between the fields of a tensor entry
    dtype,           // the value of a field …
    shape,           // … or the items of its list
    offsets,         //
    ignored,         // the value of an unknown field
    metadata,        // the value of "__metadata__"
    metadata_entry,  // between the entries of the metadata
    metadata_value,  // the value of one
  };

  bool other(const std::string& value);
  bool leave_ignored();
  void first(bool& seen, const char* field) {
    if (std::exchange(seen, true))
      fail_tensor(where_, tensor_.name, "key \"" + std::string(field) + "\" appears twice");
  }
  void start_tensor(std::string name);
  void finish_tensor();
  const char* field() const { return place_ == Place::shape ? "shape" : "data_offsets"; }

  SafetensorsHeader& header_;
  const std::string& where_;
  Place place_ = Place::outside;
  bool in_list_ = false;
  int ignored_depth_ = 0;
  bool metadata_seen_ = false;
  std::string metadata_key_;
  TensorInfo tensor_{};
  std::vector<std::uint64_t> offsets_;
  bool dtype_seen_ = false, shape_seen_ = false, offsets_seen_ = false;
};

/// A value that no place but an ignored field has a use for.
bool HeaderReader::other(const std::string& value) {
  switch (place_) {
    case Place::ignored:
      return leave_ignored();
    case Place::tensor:
      fail_tensor(where_, tensor_.name, "its entry is not an object");
    case Place::dtype:
      fail_tensor(where_, tensor_.name, "dtype " + value + " is not known");
    case Place::shape:
    case Place::offsets:
      if (!in_list_) fail_tensor(where_, tensor_.name, std::string(field()) + " is not a list");
      fail_tensor(
          where_, tensor_.name,
          std::string(field()) + " holds " + value.substr(0, 40) + ", not a non-negative integer");
    case Place::metadata:
      fail_format(where_, "__metadata__ is not an object");
    case Place::metadata_value:
      fail_format(where_, "__metadata__ entry " + for_message(metadata_key_) + " is not a string");
    default:
      fail_format(where_, "its header is not a JSON object");
  }
}

bool HeaderReader::leave_ignored() {
  if (ignored_depth_ == 0) place_ = Place::entry;
  return true;
}

bool HeaderReader::number_unsigned(Json::number_unsigned_t value) {
  if (!in_list_) return other(std::to_string(value));
  if (place_ == Place::offsets) {
    if (offsets_.size() == 2)
      fail_tensor(where_, tensor_.name, "data_offsets does not hold two numbers");
    offsets_.push_back(value);
    return true;
  }
  if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    fail_tensor(where_, tensor_.name, "its shape is too large to be real");
  if (tensor_.shape.size() == kMaxDimensions)
    fail_tensor(where_, tensor_.name,
                "its shape has more than " + std::to_string(kMaxDimensions) + " dimensions");
  tensor_.shape.push_back(static_cast<std::int64_t>(value));
  return true;
}

bool HeaderReader::string(std::string& value) {
  if (place_ == Place::metadata_value) {
    if (!header_.metadata.emplace(metadata_key_, std::move(value)).second)
      fail_format(where_, "__metadata__ key " + for_message(metadata_key_) + " appears twice");
    if (header_.metadata.size() > kMaxMetadataEntries)
      throw Error(ErrorCode::unsupported, where_,
                  "holds more than " + std::to_string(kMaxMetadataEntries) + " metadata entries");
    place_ = Place::metadata_entry;
    return true;
  }
  const std::optional<Dtype> dtype = place_ == Place::dtype ? dtype_named(value) : std::nullopt;
  if (!dtype) return other(for_message(value));
  tensor_.dtype = *dtype;
  place_ = Place::entry;
  return true;
}

bool HeaderReader::key(std::string& name) {
  if (place_ == Place::header) {
    if (name != "__metadata__") {
      start_tensor(std::move(name));
      return true;
    }
    if (std::exchange(metadata_seen_, true))
      fail_format(where_, "key \"__metadata__\" appears twice");
    place_ = Place::metadata;
  } else if (place_ == Place::metadata_entry) {
    metadata_key_ = std::move(name);
    place_ = Place::metadata_value;
  } else if (place_ == Place::entry) {
    place_ = name == "dtype"          ? Place::dtype
             : name == "shape"        ? Place::shape
             : name == "data_offsets" ? Place::offsets
                                      : Place::ignored;
    if (place_ == Place::dtype) first(dtype_seen_, "dtype");
    if (place_ == Place::shape) first(shape_seen_, "shape");
    if (place_ == Place::offsets) first(offsets_seen_, "data_offsets");
  }
  return true;
}

bool HeaderReader::start_object(std::size_t) {
  switch (place_) {
    case Place::outside:
      place_ = Place::header;
      return true;
    case Place::tensor:
      place_ = Place::entry;
      return true;
    case Place::metadata:
      place_ = Place::metadata_entry;
      return true;
    case Place::ignored:
      if (++ignored_depth_ > kMaxIgnoredDepth)
        fail_format(where_,
                    "its header is nested more than " + std::to_string(kMaxIgnoredDepth) + " deep");
      return true;
    default:
      return other("an object");
  }
}

bool HeaderReader::end_object() {
  if (place_ == Place::ignored) {
    --ignored_depth_;
    return leave_ignored();
  }
  if (place_ == Place::entry) finish_tensor();
  place_ = Place::header;
  return true;
}

bool HeaderReader::start_array(std::size_t) {
  if (place_ == Place::ignored) return start_object(0);
  if ((place_ != Place::shape && place_ != Place::offsets) || in_list_) return other("a list");
  in_list_ = true;
  return true;
}

bool HeaderReader::end_array() {
  if (place_ == Place::ignored) return end_object();
  in_list_ = false;
  place_ = Place::entry;
  return true;
}

void HeaderReader::start_tensor(std::string name) {
  if (header_.tensors.size() == kMaxTensors)
    throw Error(ErrorCode::unsupported, where_,
                "holds more than " + std::to_string(kMaxTensors) + " tensors");
  tensor_ = {};
  tensor_.name = std::move(name);
  offsets_.clear();
  dtype_seen_ = shape_seen_ = offsets_seen_ = false;
  place_ = Place::tensor;
}

void HeaderReader::finish_tensor() {
  if (!dtype_seen_) fail_tensor(where_, tensor_.name, "dtype is missing");
  if (!shape_seen_) fail_tensor(where_, tensor_.name, "shape is missing");
  if (!offsets_seen_) fail_tensor(where_, tensor_.name, "data_offsets is missing");
  if (offsets_.size() != 2)
    fail_tensor(where_, tensor_.name, "data_offsets does not hold two numbers");
  tensor_.begin = offsets_[0];
  tensor_.end = offsets_[1];
  if (tensor_.end < tensor_.begin) fail_tensor(where_, tensor_.name, "data_offsets run backwards");
  const std::uint64_t expected = tensor_bytes(tensor_, where_);
  if (tensor_.end - tensor_.begin != expected)
    fail_tensor(where_, tensor_.name,
                "data_offsets span " + std::to_string(tensor_.end - tensor_.begin) +
                    " bytes, but its shape and dtype need " + std::to_string(expected));
  header_.tensors.push_back(std::move(tensor_));
}

}  // namespace

void fail_format(const std::string& where, const std::string& message, const std::string& hint) {
  throw Error(ErrorCode::bad_format, where, message, hint);
}

void fail_tensor(const std::string& where, std::string_view name, const std::string& message) {
  fail_format(where, "tensor " + for_message(name) + ": " + message,
              "the file is damaged or was not written by a safetensors library");
}

void read_header_text(std::string_view text, const std::string& where, SafetensorsHeader& header) {
  if (!is_utf8(text)) fail_format(where, "its header is not UTF-8 text");
  // The JSON lexer would skip a byte order mark and take a NUL for the end of the text.
  if (text.starts_with("\xEF\xBB\xBF") || text.find('\0') != std::string_view::npos)
    fail_format(where, "its header is not valid JSON (a byte order mark or a NUL byte)");
  HeaderReader reader(header, where);
  if (!Json::sax_parse(text.begin(), text.end(), &reader))
    fail_format(where, "its header is not valid JSON");
  std::ranges::sort(header.tensors, {}, &TensorInfo::name);
  const auto twin = std::ranges::adjacent_find(header.tensors, {}, &TensorInfo::name);
  if (twin != header.tensors.end())
    fail_format(where, "key " + for_message(twin->name) + " appears twice");
}

}  // namespace ringlet::io
