// Damaged JSON: an Error or another valid document, nothing else.
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/core/random.h"
#include "tests/golden/tiny_model.h"

namespace ringlet {
namespace {

/// Every kind of value, escape and nesting.
const std::string kDocument =
    R"({"text":"\u00e9\ud83d\ude00\"\\\/\b\f\n\r\té","numbers":[0,-1,18446744073709551615,)"
    R"(-9223372036854775808,1.5e-3,2E+2],"deep":[[[{"a":{"b":[]}}]]],"t":true,"f":false,)"
    R"("n":null,"":{}})";

/// Parses, and if that works, the result must survive its own text.
bool parses(const std::string& text) {
  try {
    const Json json = parse_json(text, "damaged.json");
    EXPECT_EQ(parse_json(json.dump(), "again"), json) << text;
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_format) << error.what();
    EXPECT_EQ(error.where(), "damaged.json");
    EXPECT_FALSE(error.message().empty());
    return false;
  }
}

TEST(JsonFault, TheDocumentItselfIsFine) { EXPECT_TRUE(parses(kDocument)); }

// A download that stopped must not look like a shorter document.
TEST(JsonFault, EveryPrefixIsAnError) {
  for (std::size_t length = 0; length < kDocument.size(); ++length)
    EXPECT_FALSE(parses(kDocument.substr(0, length))) << length;
}

TEST(JsonFault, EverySuffixIsAnError) {
  for (std::size_t from = 1; from < kDocument.size(); ++from) {
    // The tail of a number or a string may be a document: not this one.
    const std::string tail = kDocument.substr(from);
    EXPECT_FALSE(parses(tail)) << tail;
  }
}

TEST(JsonFault, EveryByteReplacedByEveryOther) {
  std::size_t accepted = 0;
  for (std::size_t at = 0; at < kDocument.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      std::string damaged = kDocument;
      damaged[at] = static_cast<char>(byte);
      accepted += parses(damaged) ? 1 : 0;
    }
  EXPECT_GT(accepted, kDocument.size());  // at the least every byte replaced by itself
}

TEST(JsonFault, EveryByteLeftOutOrDoubled) {
  for (std::size_t at = 0; at < kDocument.size(); ++at) {
    parses(std::string(kDocument).erase(at, 1));
    parses(std::string(kDocument).insert(at, 1, kDocument[at]));
  }
}

TEST(JsonFault, RandomTokens) {
  const std::vector<std::string> tokens = {"{",     "}",     "[", "]",  ",",   ":",
                                           "\"a\"", "\"b\"", "1", "-",  "1.5", "e9",
                                           "true",  "null",  " ", "\"", "\\",  "\n"};
  RandomStream random = Random(20).stream("json");
  std::size_t accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (std::uint64_t k = 1 + random.uniform_int(12); k > 0; --k)
      text += tokens[random.uniform_int(tokens.size())];
    accepted += parses(text) ? 1 : 0;
  }
  EXPECT_GT(accepted, 100u);  // the generator also reaches the good side
}

// Getters on documents of any form: what is not an object has no fields.
TEST(JsonFault, GettersTakeAnyDocument) {
  for (const char* text : {"[]", "7", "\"a\"", "null", "true", "[{\"a\":1}]", "{\"a\":[1]}"}) {
    const Json json = parse_json(text, "any.json");
    try {
      json_value(json, "a", std::int64_t{1}, "any.json");
      json_require<std::string>(json, "a", "any.json");
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_format);
    }
  }
}

}  // namespace
}  // namespace ringlet
