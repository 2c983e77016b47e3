#!/usr/bin/env python3
"""`ringlet generate` beside stable-diffusion.cpp, in one run.

    bench/compare_generate.py [--rounds N] [--side PIXELS] [--steps N] [--threads N] [--no-peer] [--keep NAME]
                              [--work FOLDER]

A model folder of Stable Diffusion 1.5's size with random fp16 weights, 512 pixels, classifier-free
guidance, Euler. The programs take turns: ringlet by default, with --low-memory and with --precision bf16,
and stable-diffusion.cpp's Python package with f16 weights, which pip builds from source in the work
folder's venv-generate (bench/requirements-generate.txt; it takes a C++ compiler and half an hour on two
cores). A step's seconds are those between steps; ringlet's are the difference of a run of N + 1 steps and
one of one step, by N. Peak memory is the process's.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from compare import BIN, ROOT, peer_python, run
from results import add_keep, keep, markdown_table, median, seconds_of_runs, spread

OURS = {"ringlet": [], "ringlet --low-memory": ["--low-memory"], "ringlet --precision bf16": ["--precision", "bf16"]}
PEER = "stable-diffusion.cpp"


def generate(model, more, side, steps, threads):
    """Seconds and peak MiB of one process."""
    with tempfile.TemporaryDirectory() as folder:
        words = [BIN / "ringlet", "generate", "--json", "--model", model, "--prompt", "a photo of a cat", "--sampler",
                 "euler", "--width", side, "--height", side, "--steps", steps, "--threads", threads, "--seed", "1",
                 "--out", pathlib.Path(folder) / "cat.png", *more]
        child = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE)
        out = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, words))} failed")
    return json.loads(out)["seconds"], usage.ru_maxrss // 1024


def measure(model, more, options):
    one, _ = generate(model, more, options.side, 1, options.threads)
    all_, peak = generate(model, more, options.side, 1 + options.steps, options.threads)
    return dict(seconds=[(all_ - one) / options.steps], peak_mib=peak)


def table(result):
    runs = result["measured"]
    own = seconds_of_runs(runs["ringlet"])
    rows = [[name if name == PEER else f"`{name}`", spread(seconds_of_runs(measured)),
             f"{median(seconds_of_runs(measured)) / median(own):.2f}",
             f"{median([one['peak_mib'] for one in measured]):.0f}"] for name, measured in runs.items()]
    return markdown_table(["program", "seconds per step (least..most)", "relative to ringlet", "peak MiB"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--steps", type=int, default=2, help="timed steps a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true", help="ringlet alone")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    add_keep(parser)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    python = None if options.no_peer else peer_python(work, "venv-generate", "requirements-generate.txt")
    model = work / "model-sd1"
    if not (model / "model_index.json").exists():
        run(BIN / "ringlet_make_tiny_checkpoint", model, "1", "sd1", "fp16")
    runs = {name: [] for name in [*OURS, *([] if options.no_peer else [PEER])]}
    for _ in range(options.rounds):
        for name, more in OURS.items():
            runs[name].append(measure(model, more, options))
        if not options.no_peer:
            runs[PEER].append(json.loads(run(python, ROOT / "bench/peer_generate.py", model, options.side,
                                             1 + options.steps, options.threads)))
    print(table(keep(parser, options, runs)))


if __name__ == "__main__":
    main()
