#include "ringlet/data/caption_operations.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::data {
namespace {

std::string stripped(std::string_view text) {
  constexpr const char* kBlank = " \t\r\n\v\f";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kBlank) - begin + 1));
}

std::vector<std::string> pieces(const std::string& text, const std::string& separator) {
  std::vector<std::string> found;
  std::size_t begin = 0;
  for (std::size_t end; (end = text.find(separator, begin)) != std::string::npos;
       begin = end + separator.size())
    found.push_back(text.substr(begin, end - begin));
  found.push_back(text.substr(begin));
  return found;
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
  return from.empty() ? text : join(pieces(text, from), to);
}

const std::string& one_of(const std::vector<std::string>& choices, RandomStream& random) {
  return choices[random.uniform_int(choices.size())];
}

/// Each {a|b}, whose inside holds no closing brace, by one of its words.
std::string with_choices(const std::string& text, RandomStream& random) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t end = text[i] == '{' ? text.find('}', i + 1) : std::string::npos;
    if (end == std::string::npos || end == i + 1) {
      out += text[i];
      continue;
    }
    out += one_of(pieces(text.substr(i + 1, end - i - 1), "|"), random);
    i = end;
  }
  return out;
}

/// Doubled braces stand for themselves: texts that the caption does not hold take their place while
/// words are chosen.
std::string with_wildcards(const std::string& caption, RandomStream& random) {
  std::string open = "\x02", close = "\x03";
  while (caption.find(open) != std::string::npos || caption.find(close) != std::string::npos) {
    open += '\x02';
    close += '\x03';
  }
  const std::string hidden = replaced(replaced(caption, "{{", open), "}}", close);
  return replaced(replaced(with_choices(hidden, random), open, "{"), close, "}");
}

/// The tags of a caption by what may happen to them.
struct Tags {
  std::vector<std::string> kept, free, last;
};

std::vector<std::string> tags_of(const std::string& text, const std::string& separator) {
  std::vector<std::string> tags;
  for (const std::string& piece : pieces(text, separator))
    if (std::string tag = stripped(piece); !tag.empty()) tags.push_back(std::move(tag));
  return tags;
}

Tags divided(const CaptionOperations& o, const std::string& caption) {
  const std::string& mark = o.keep_tokens_separator;
  if (const std::size_t first = mark.empty() ? std::string::npos : caption.find(mark);
      first != std::string::npos) {
    const std::size_t begin = first + mark.size(), second = caption.find(mark, begin);
    Tags tags{tags_of(caption.substr(0, first), o.separator),
              tags_of(caption.substr(begin, second == std::string::npos ? second : second - begin),
                      o.separator),
              {}};
    if (second != std::string::npos)
      tags.last = tags_of(caption.substr(second + mark.size()), o.separator);
    return tags;
  }
  Tags tags;  // sd-scripts keeps empty tags here
  for (const std::string& piece : pieces(stripped(caption), o.separator)) {
    const bool keeps = static_cast<std::int64_t>(tags.kept.size()) < o.keep_tokens;
    (keeps ? tags.kept : tags.free).push_back(stripped(piece));
  }
  return tags;
}

void shuffle(std::vector<std::string>& tags, RandomStream& random) {
  for (std::size_t i = tags.size(); i > 1; --i) std::swap(tags[i - 1], tags[random.uniform_int(i)]);
}

std::string with_moved_tags(const CaptionOperations& o, const std::string& caption,
                            RandomStream& random) {
  Tags tags = divided(o, caption);
  if (o.shuffle) shuffle(tags.free, random);
  std::vector<std::string> all = std::move(tags.kept);
  for (std::string& tag : tags.free)
    if (o.tag_dropout <= 0.0 || random.uniform() >= o.tag_dropout) all.push_back(std::move(tag));
  all.insert(all.end(), tags.last.begin(), tags.last.end());
  return join(all);
}

bool moves_tags(const CaptionOperations& o) { return o.shuffle || o.tag_dropout > 0.0; }

}  // namespace

void describe(OptionList& list, CaptionOperations& o) {
  list.add("caption_prefix", o.prefix, "Text before every caption").repeated();
  list.add("caption_suffix", o.suffix, "Text behind every caption").repeated();
  list.add(
          "caption_wildcards", o.wildcards,
          "In captions, {a|b|c} stands for one of its words, doubled braces for braces; of several "
          "lines one is chosen")
      .repeated();
  list.add("caption_separator", o.separator, "What stands between the tags of a caption")
      .repeated();
  list.add("keep_tokens", o.keep_tokens, "Tags at the beginning that stay where they are")
      .within(Range::at_least(0))
      .repeated();
  list.add("keep_tokens_separator", o.keep_tokens_separator,
           "Tags before this text, and behind a second one, stay where they are, for example |||")
      .repeated();
  list.add("secondary_separator", o.secondary_separator,
           "What stands between tags that stay together, for example ;;;")
      .repeated();
  list.add("shuffle_caption", o.shuffle, "Tags change their places").repeated();
  list.add("tag_dropout", o.tag_dropout, "Share of the tags that are left out")
      .within(Range::between(0, 1))
      .repeated();
  list.add("caption_dropout_every_epochs", o.dropout_every_epochs,
           "Every n-th epoch shows empty captions; 0 = none does")
      .within(Range::at_least(0))
      .repeated();
  list.add("caption_variants", o.variants,
           "Variants of each caption that are encoded before the run and drawn from, where "
           "wildcards, "
           "shuffling or dropping of tags make it random")
      .within(Range::at_least(1))
      .repeated();
}

void check(const CaptionOperations& o) {
  OptionList list;
  CaptionOperations described = o;
  describe(list, described);
  list.check();
  if (o.separator.empty())
    throw Error(ErrorCode::invalid_argument, Field("caption_separator"), "must not be empty",
                "leave it out for a comma");
  if (moves_tags(o)) return;
  const char* const without = "it has no effect: tags stay in their places anyway";
  const char* const hint = "give `shuffle_caption` or `tag_dropout` as well, or leave it out";
  if (o.keep_tokens > 0)
    throw Error(ErrorCode::invalid_argument, Field("keep_tokens"), without, hint);
  if (!o.keep_tokens_separator.empty())
    throw Error(ErrorCode::invalid_argument, Field("keep_tokens_separator"), without, hint);
}

std::string changed_caption(const CaptionOperations& o, std::string caption, RandomStream& random) {
  if (!o.prefix.empty()) caption = o.prefix + " " + caption;
  if (!o.suffix.empty()) caption += " " + o.suffix;
  const std::vector<std::string> lines = pieces(caption, "\n");
  if (!o.wildcards)
    caption = lines.front();
  else
    caption = with_wildcards(lines.size() > 1 ? one_of(lines, random) : caption, random);
  if (moves_tags(o)) caption = with_moved_tags(o, caption, random);
  return replaced(caption, o.secondary_separator, o.separator);
}

std::vector<std::string> caption_variants(const CaptionOperations& o, const std::string& caption,
                                          const Random& random, std::uint64_t picture) {
  std::vector<std::string> found;
  const bool draws = o.wildcards || moves_tags(o);
  for (std::int64_t i = 0; i < (draws ? o.variants : 1); ++i) {
    RandomStream stream = random.stream("caption variant", picture, static_cast<std::uint64_t>(i));
    found.push_back(changed_caption(o, caption, stream));
  }
  const bool alike = std::ranges::all_of(
      found, [&](const std::string& variant) { return variant == found.front(); });
  if (alike) found.resize(1);
  return found;
}

bool drops_captions(std::int64_t every_epochs, std::int64_t epoch) {
  return every_epochs > 0 && (epoch + 1) % every_epochs == 0;
}

}  // namespace ringlet::data
