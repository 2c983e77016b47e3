// Learns a tokenizer's vocabulary from texts, for networks that begin at random.
//   ringlet_learn_vocabulary wordpiece|roberta|gpt2 SIZE OUT_FOLDER TEXT_FILE…
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/tokenizers/byte_bpe_tokenizer.h"
#include "ringlet/tokenizers/wordpiece_tokenizer.h"

using namespace ringlet;

int main(int argc, char** argv) try {
  if (argc < 5) {
    std::fprintf(stderr, "usage: %s wordpiece|roberta|gpt2 SIZE OUT_FOLDER TEXT_FILE...\n",
                 argv[0]);
    return 2;
  }
  const std::string kind = argv[1];
  const auto size = static_cast<std::size_t>(std::strtoul(argv[2], nullptr, 10));
  const std::filesystem::path out = argv[3];
  std::vector<std::string> texts;
  for (int i = 4; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) throw Error(ErrorCode::not_found, argv[i], "the text cannot be opened");
    texts.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (kind == "wordpiece") {
    std::string lines;
    for (const std::string& token : tokenizers::learn_wordpieces(texts, size))
      lines += token + "\n";
    write_file_atomically(out / "vocab.txt", lines);
    return 0;
  }
  const std::vector<std::string> specials =
      kind == "roberta" ? std::vector<std::string>{"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
                        : std::vector<std::string>{"<|endoftext|>"};
  const tokenizers::LearntBytePairs learnt = tokenizers::learn_byte_pairs(texts, size, specials);
  write_file_atomically(out / "vocab.json", learnt.vocabulary);
  write_file_atomically(out / "merges.txt", learnt.merges);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
