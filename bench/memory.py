#!/usr/bin/env python3
"""What `ringlet train` says that it will take of memory, beside what it takes.

    bench/memory.py [--sizes starter middle sd1 sdxl sd35] [--only METHOD …] [--resolution N] [--modes off on limit]
                    [--json FILE]

For every method, without and with gradient checkpointing and with a memory limit in the middle between the
two, on three models: the starter model, one of
140 M parameters and one of Stable Diffusion 1.5's size (random weights, fp16 files, made once in the
work folder by ringlet_make_tiny_checkpoint). A run has two steps and makes one sample picture before
and after. "says" is the plan's number, "takes" the process's peak resident memory, as the system counts
it. Ends with status 1 where they differ by more than 10 %. Needs the release build; Stable
Diffusion 1.5's size takes up to 10 GB of memory and half a minute a run. sd35 and sdxl have the shapes of Stable Diffusion
3.5 medium and XL in bf16 (peer_models.py), and their base stays so: 5 GB of disk, many minutes.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

from compare import BIN, ROOT, peer_python, run
from compare_methods import METHODS

ALLOWED = 0.10
PIXELS = {"starter": 128, "middle": 256, "sd1": 256, "sdxl": 1024, "sd35": 512}
BATCH = {"starter": 4, "middle": 2, "sd1": 1, "sdxl": 1, "sd35": 1}
DEFAULT_SIZES = ["starter", "middle", "sd1"]
NARROW = ["--base-storage", "bf16", "--sample-guidance", "1"]
WORDS = {"sd35": NARROW, "sdxl": NARROW}


def model_of(size, work):
    if size == "starter":
        return ROOT / "assets/starter"
    folder = work / f"model-{size}"
    if size in WORDS:
        if not (folder / "model_index.json").exists():
            run(peer_python(work), ROOT / "bench/peer_models.py", size, folder)
        return folder
    if not (folder / "model_index.json").exists():
        print("making", folder, file=sys.stderr)
        subprocess.run([BIN / "ringlet_make_tiny_checkpoint", folder, "1", size, "fp16"], check=True,
                       stdout=subprocess.DEVNULL)
    return folder


def measure(words, log):
    """The plan and the peak, in bytes, of one run."""
    with open(log, "wb") as err:
        child = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=err)
        out = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, words))} failed:\n{log.read_text()}\n{out.decode()}")
    return json.loads(out)["plan"]["expected_bytes"], usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=DEFAULT_SIZES, choices=list(PIXELS))
    parser.add_argument("--only", nargs="+", help="methods whose text begins so")
    parser.add_argument("--full", action="store_true", help="also --method full, which takes four times the weights")
    parser.add_argument("--resolution", type=int, help="pixels of a side [128 for the starter model, else 256]")
    parser.add_argument("--batch-size", type=int, help="pictures at a time [4, 2 and 1]")
    parser.add_argument("--pictures", type=pathlib.Path, default=ROOT / "examples/quickstart/robot")
    parser.add_argument("--targets", default="attention")
    parser.add_argument("--modes", nargs="+", default=["off", "on", "limit"], choices=["off", "on", "limit"],
                        help="of gradient checkpointing; limit needs the other two")
    parser.add_argument("--json", type=pathlib.Path, help="where all numbers go")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    methods = [method for method in METHODS if not options.only or any(method.startswith(word) for word in options.only)]
    methods += ["full"] if options.full else []

    rows = []
    print("| model | pixels | method | checkpointing | says, MiB | takes, MiB | says / takes |")
    print("|---|---|---|---|---|---|---|")
    for size in options.sizes:
        model = model_of(size, work)
        for method in methods:
            said = {}
            for checkpointing in options.modes:
                out = work / "memory-run"
                shutil.rmtree(out, ignore_errors=True)
                pixels = options.resolution or PIXELS[size]
                words = [BIN / "ringlet", "train", "--json", "--model", model, "--instance-images",
                         options.pictures.resolve(), "--method", method, "--steps", "2", "--seed", "1",
                         "--resolution", pixels, "--batch-size", options.batch_size or BATCH[size],
                         "--sample-prompt", "a robot", "--sample-images", "1", "--sample-steps", "1",
                         *WORDS.get(size, []), "--out", out]
                words += [] if method == "full" else ["--targets", *options.targets.split(",")[:1]]
                words += ["--gradient-checkpointing"] if checkpointing == "on" else []
                if checkpointing == "limit":
                    words += ["--memory-limit", f"{(said['off'] + said['on']) // 2 // 2**20}M"]
                says, takes = measure(words, work / "memory-run.log")
                said[checkpointing] = says
                rows.append({"model": size, "pixels": pixels, "method": method, "checkpointing": checkpointing,
                             "says": says, "takes": takes, "ratio": says / takes})
                print(f"| {size} | {pixels} | {method} | {checkpointing} | {says / 2**20:.0f} "
                      f"| {takes / 2**20:.0f} | {says / takes:.2f} |", flush=True)
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1))
    shutil.rmtree(work / "memory-run", ignore_errors=True)
    worst = max(rows, key=lambda row: abs(row["ratio"] - 1.0))
    off = sum(abs(row["ratio"] - 1.0) > ALLOWED for row in rows)
    print(f"\n{len(rows)} runs; {off} differ by more than {ALLOWED:.0%}; the furthest: {worst['method']} on "
          f"{worst['model']}, {worst['ratio']:.2f}")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
