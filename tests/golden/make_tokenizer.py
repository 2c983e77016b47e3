"""Golden token ids over a small vocabulary in CLIP's format.

    python make_tokenizer.py OPEN_CLIP_WHEEL          writes data/tokenizer/* and data/tokenizer.json
    python make_tokenizer.py OPEN_CLIP_WHEEL --full F writes the full vocabulary and more strings
                                                      to folder F, for a check by hand

The vocabulary is the first 4,000 merges of the CLIP vocabulary (MIT licence, OpenAI), taken from
the wheel open-clip-torch 3.3.0. Pinned: transformers 5.23.0, tokenizers 0.23.3.
"""
import argparse
import gzip
import json
import pathlib
import random
import zipfile

from transformers import CLIPTokenizer

DATA = pathlib.Path(__file__).parent / "data"
WORDS = """a photo of sks dog cat woman man city street painting oil portrait landscape highly detailed 4k 8k hdr
masterpiece best quality trending artstation by greg rutkowski unreal engine octane render cinematic lighting
sunset mountain river forest castle dragon robot astronaut riding horse on mars cyberpunk neon watercolor sketch
anime manga photograph 35mm film grain bokeh depth field wearing red dress hat standing sitting running jumping
supercalifragilistic antidisestablishmentarianism qwertyuiop zzz xyzzy hello world the and with without very
don't it's we're they've I'm you'll he'd O'Brien rock'n'roll 'tis y'all's""".split()
ODD = ["", " ", "\t\n", "!", "!!!", "a!", "?!.,;:", "'s", "''s", "it''s", "'S 'T 'RE", "dog's", "dogs'", "rock 'n' roll",
       "1234567890", "3.14159", "1st 2nd", "a1b2c3", "100%", "$5", "#hash", "@user", "C++", "C#", "(a:1.2)", "((cat))",
       "[dog|cat]", "<lora:x:0.8>", "BREAK", "AND", "--ar 16:9", "a,b,c", "a_b_c", "snake_case", "camelCase", "ALLCAPS",
       "<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "<|STARTOFTEXT|>", "<|endoftext|", "<|endoftext|>x<|startoftext|>y",
       "café", "cafe\u0301", "naïve", "Ångström", "ﬁne ligature", "ＦＵＬＬ width", "İstanbul", "ΣΑΣ ΣΊΣΥΦΟΣ", "straße STRASSE ẞ",
       "日本語 テスト", "中文提示词", "한국어 프롬프트", "हिन्दी संकेत", "العربية", "עברית", "русский язык", "ไทย", "Ελληνικά",
       "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈 flag", "a😀b", "x\u200by", "zero\u00a0width", "\ufeffbom", "tab\tand\nline\r\n", "a\u2003b\u3000c",
       "½ ¼ Ⅳ ² ③", "٣٤٥ १२३", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "𐍈𐌰", "\u0301leading", "e\u0301\u0301", "a\u0000b", "\u001b[31m", "\x7f", "\u0085next",
       "&amp; &lt;b&gt;", "“quotes” ‘single’ – —", "…", "don’t", "©®™", "←→↑↓", "x" * 300, "ab" * 200, "!" * 200, "a " * 120,
       "é" * 90, "日" * 90, "1" * 100, "'" * 50, "word " * 80 + "end", "Ǆ ǅ ǆ ﬃ", "\u1e9e\u0130\u0131", "ᾳ ῼ Ώ"]


def vocabulary(wheel, merges_used):
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read("open_clip/bpe_simple_vocab_16e6.txt.gz")).decode()
    merges = text.split("\n")[1:1 + merges_used]
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = symbols + [s + "</w>" for s in symbols] + ["".join(m.split()) for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges


def write_folder(folder, vocab, merges, config, token_map=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    if token_map:
        (folder / "special_tokens_map.json").write_text(json.dumps(token_map, indent=1) + "\n")


def strings(count):
    rng = random.Random(7)
    out = list(ODD)
    blocks = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x52F), (0x5D0, 0x6FF), (0x900, 0x97F), (0x1E00, 0x1FFF),
              (0x2000, 0x22FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1F64F), (0x300, 0x36F)]
    while len(out) < count:
        kind = rng.random()
        if kind < 0.55:
            words = [rng.choice(WORDS) for _ in range(rng.randint(1, 14))]
            words = [w.upper() if rng.random() < 0.1 else w.title() if rng.random() < 0.1 else w for w in words]
            out.append(rng.choice([" ", " ", ", ", "  ", "-", ""]).join(words))
        elif kind < 0.8:
            low, high = rng.choice(blocks)
            out.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 20))))
        else:
            pieces = []
            for _ in range(rng.randint(2, 8)):
                low, high = rng.choice(blocks)
                pieces.append(rng.choice([rng.choice(WORDS), chr(rng.randint(low, high)), " ", "'", rng.choice("0123456789!.,")]))
            out.append("".join(pieces))
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("wheel")
    parser.add_argument("--full", type=pathlib.Path)
    arguments = parser.parse_args()
    folder = arguments.full or DATA / "tokenizer"
    vocab, merges = vocabulary(arguments.wheel, 48894 if arguments.full else 4000)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>",
              "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    write_folder(folder, vocab, merges, config)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    cases = [[s, tokenizer(s)["input_ids"]] for s in strings(20000 if arguments.full else 2200)]
    padded = [[s, tokenizer(s, padding="max_length", truncation=True, max_length=20)["input_ids"]] for s in ODD]

    variants = []
    for config_pad, map_pad, complete in [("!", None, False), ("<|endoftext|>", "!", False), ("<|endoftext|>", "!", True)]:
        extra = dict(config, pad_token=config_pad)
        if complete:
            extra["added_tokens_decoder"] = {str(vocab[t]): {"content": t, "lstrip": False, "normalized": False,
                                                            "rstrip": False, "single_word": False, "special": True}
                                             for t in ("<|startoftext|>", "<|endoftext|>")}
        token_map = {k: extra[k] for k in ("bos_token", "eos_token", "unk_token")} | {"pad_token": map_pad} if map_pad else None
        variant = pathlib.Path("/tmp/ringlet_tokenizer_variant")
        for old in variant.glob("*"):
            old.unlink()
        write_folder(variant, vocab, merges, extra, token_map)
        other = CLIPTokenizer.from_pretrained(variant)
        ids = [[s, other(s, padding="max_length", truncation=True, max_length=12)["input_ids"]] for s in ("a!", "!", "hi there !!")]
        variants.append({"config": extra, "map": token_map, "cases": ids})
    target = folder / "cases.json" if arguments.full else DATA / "tokenizer.json"
    target.write_text(json.dumps({"cases": cases, "padded": padded, "variants": variants}, separators=(",", ":")) + "\n")
    print(len(cases), "strings")


if __name__ == "__main__":
    main()
