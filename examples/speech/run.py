#!/usr/bin/env python3
"""Speech: a small wav2vec 2.0 that has learnt one accent of espeak-ng, adapted to another one.

    examples/speech/run.py [--out FOLDER] [--methods FILE] [--seeds SEED...]

Utterances of one or two words of a fixed list. The base hears American English at several speeds and pitches; it is
adapted to Scottish English with few utterances (word error rate on others). Needs the package espeak-ng.
"""
import json
import pathlib
import random
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "domains"))
import compare  # noqa: E402

WORDS = """one two three four five six seven eight nine ten red green blue white black dog cat bird horse fish house tree
water fire stone music table garden window river morning evening summer winter number letter paper silver yellow orange""".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def speak(folder, voice, count, seed):
    """WAV files with what they say beside them."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    lot = random.Random(seed)
    for i in range(count):
        text = " ".join(lot.sample(WORDS, lot.choice((1, 2, 2))))
        file = folder / f"{i:04}.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", str(lot.randint(150, 210)), "-p", str(lot.randint(30, 70)), "-w",
                        str(file), text], check=True)
        file.with_suffix(".txt").write_text(text + "\n")


def main():
    chosen = compare.arguments(__doc__, "speech").parse_args()
    out = chosen.out
    if shutil.which("espeak-ng") is None:
        sys.exit("install espeak-ng first (apt-get install espeak-ng)")
    for name, voice, count, seed in (("base", "en-us", 1500, 1), ("base-held", "en-us", 120, 2), ("new", "en-gb-scotland", 150, 3),
                                     ("new-held", "en-gb-scotland", 120, 4)):
        speak(out / name, voice, count, seed)
    tokens = ["<pad>", "<unk>", "|", *LETTERS]
    folder = compare.new_network(out / "init", dict(
        model_type="wav2vec2", vocab_size=len(tokens), pad_token_id=0, feat_extract_norm="layer", conv_bias=True,
        do_stable_layer_norm=True, conv_dim=[48] * 5, conv_kernel=[10, 8, 4, 4, 4], conv_stride=[5, 4, 2, 2, 2],
        hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4))
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    task = ("--task", "ctc", "--batch-size", 16)
    model = compare.base(out / "base-run", folder, 1500, 2e-3, *task, "--data", out / "base", "--eval-data", out / "base-held")
    compare.run(chosen, "American to Scottish English, wav2vec2", out, model, 150, *task, "--data", out / "new", "--eval-data",
                out / "new-held")


if __name__ == "__main__":
    main()
