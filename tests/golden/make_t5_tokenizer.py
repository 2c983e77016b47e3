"""Golden token ids of a small SentencePiece model in T5's format.

    python make_t5_tokenizer.py      writes data/tokenizers/t5/* and data/t5_tokenizer.{json,safetensors}

The texts are those of data/tokenizer.json (make_tokenizer.py), and some with special tokens. The ids are
SentencePiece's; transformers' T5Tokenizer, which reads tokenizer.json, must have the same but for texts with several
marks on one letter, of which it drops all but the first. Pinned: sentencepiece 0.2.3, transformers 5.23.0, protobuf 7.
"""
import json
import pathlib
import random
import re
import tempfile
import unicodedata

import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import T5Tokenizer

from make_tokenizer import WORDS

DATA = pathlib.Path(__file__).parent / "data"
FOLDER = DATA / "tokenizers" / "t5"
OTHERS = ["ein Bild einer Katze mit großen Augen, Öl auf Leinwand", "une peinture à l'huile, un château près d'une forêt",
          "un ritratto di donna, città e mare, perché così è bello", "el niño pequeño, mañana y corazón"]
SPECIAL = ["a</s> b", "</s>", "a <extra_id_5>x", "<extra_id_99><extra_id_0>", "<unk>", "x <pad> y", "a < b </s", "<extra_id_100>",
           "a▁b", "a▁▁b", "two\n\nlines  and   blanks", "ﬁne ＦＵＬＬ", "cafe\u0301", "日 本 語", "<<pad>>"]


def character_rules():
    """A part of SentencePiece's nmt_nfkc, which has 240 KB."""
    rules = {}
    for code in [*range(0xA0, 0x180), *range(0x2010, 0x2070), *range(0x2100, 0x2190), *range(0x2460, 0x2474),
                 *range(0xFB00, 0xFB07), *range(0xFF01, 0xFF5F)]:
        letter = chr(code)
        folded, split = unicodedata.normalize("NFKC", letter), unicodedata.normalize("NFD", letter)
        if folded != letter:
            rules[letter] = folded
        if len(split) > 1:
            rules[split] = folded
    for code in [*range(0x9, 0xE), 0x85, 0xA0, 0x1680, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x205F, 0x3000, 0xFEFF, 0xFFFD]:
        rules[chr(code)] = " "
    for code in [*range(0x1, 0x9), *range(0xE, 0x20), 0x7F]:
        rules[chr(code)] = ""
    return rules


def codes(text):
    return " ".join(f"{ord(c):X}" for c in text)


def train(folder):
    rng = random.Random(3)
    lines = OTHERS * 20
    for _ in range(2000):
        lines.append(rng.choice([" ", ", ", " and "]).join(rng.choice(WORDS) for _ in range(rng.randint(3, 12))))
    (folder / "texts.txt").write_text("\n".join(lines) + "\n")
    rules = "".join(f"{codes(k)}\t{codes(v)}\n" for k, v in sorted(character_rules().items()))
    (folder / "rules.tsv").write_text(rules)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"), model_prefix=str(folder / "spiece"), vocab_size=400, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_tsv=str(folder / "rules.tsv"), num_threads=1,
        character_coverage=1.0, hard_vocab_limit=False, minloglevel=2)


def write_folder(folder):
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "spiece.model").write_bytes((folder / "spiece.model").read_bytes())
    T5Tokenizer.from_pretrained(folder).save_pretrained(folder / "saved")
    whole = json.loads((folder / "saved" / "tokenizer.json").read_text())
    (FOLDER / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n")
    (FOLDER / "tokenizer_config.json").write_text('{"extra_ids": 100, "model_max_length": 512}\n')
    return T5Tokenizer.from_pretrained(folder / "saved")


def main():
    with tempfile.TemporaryDirectory() as name:
        train(pathlib.Path(name))
        fast = write_folder(pathlib.Path(name))
    model = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "spiece.model"))
    special = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"<extra_id_{i}>": model.vocab_size() + 99 - i for i in range(100)}}
    parts = re.compile("(" + "|".join(map(re.escape, special)) + ")")

    def ids(text):
        return [i for part in parts.split(text) for i in ([special[part]] if part in special else model.encode(part))] + [1]

    texts = [text for text, _ in json.loads((DATA / "tokenizer.json").read_text())["cases"]] + SPECIAL
    found = [ids(text) for text in texts]
    differ = [text for text, row in zip(texts, found) if fast(text)["input_ids"] != row]
    assert len(differ) <= 2, differ
    padded = [fast(text, padding="max_length", truncation=True, max_length=12)["input_ids"] for text in SPECIAL]
    save_file({"ids": torch.tensor(sum(found, []), dtype=torch.int16),
               "lengths": torch.tensor([len(row) for row in found], dtype=torch.int16)}, DATA / "t5_tokenizer.safetensors")
    (DATA / "t5_tokenizer.json").write_text(json.dumps({"special": SPECIAL, "padded": padded}) + "\n")
    print(len(texts), "texts,", model.vocab_size(), "pieces; transformers differs on", differ)


if __name__ == "__main__":
    main()
