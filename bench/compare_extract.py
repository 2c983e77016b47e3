#!/usr/bin/env python3
"""`ringlet extract` of two builds on the same pair of models, in one run.

    bench/compare_extract.py --before BINARY [--after BINARY] --base FILE --tuned FILE [--include GLOB]
                             [--rounds N] [--methods METHOD …]

The builds take turns, one thread each; the seconds are those that the fits report, so that opening the
files does not count. Prints medians, the total errors and their ratios as a Markdown table, and exits
with 1 where the second build has a larger error, or takes more than a fifth of the time.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = ("trm(rank=2)+lora(rank=2)", "trm(rank=2)+tr(rank=4)", "trm(rank=2)", "tr(rank=4)", "dora(rank=2)",
           "oft(block=16)", "loha(rank=2)", "lokr(rank=4)")


def measured(binary, options, method, out):
    command = [binary, "extract", "--base", options.base, "--tuned", options.tuned, "--include", options.include,
               "--method", method, "--out", out, "--json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          env=dict(os.environ, OMP_NUM_THREADS="1"))
    if done.returncode != 0:
        sys.exit(f"{method}:\n{done.stderr}")
    total = json.loads(done.stdout)["total"]
    return total["seconds"], total["relative_error"], total["steps"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=pathlib.Path, required=True)
    parser.add_argument("--after", type=pathlib.Path, default=ROOT / "build/release/bin/ringlet")
    parser.add_argument("--base", type=pathlib.Path, required=True)
    parser.add_argument("--tuned", type=pathlib.Path, required=True)
    parser.add_argument("--include", default="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    options = parser.parse_args()
    print("| method | before: s | error | steps | after: s | error | steps | time |\n|---|---|---|---|---|---|---|---|")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "adapter.safetensors"
        for method in options.methods:
            runs = {binary: [] for binary in (options.before, options.after)}
            for _ in range(options.rounds):
                for binary, results in runs.items():
                    results.append(measured(binary, options, method, out))
            (before, error, steps), (after, new_error, new_steps) = (
                (statistics.median(run[0] for run in results), *results[0][1:]) for results in runs.values())
            print(f"| {method} | {before:.2f} | {error:.4f} | {steps} | {after:.2f} | {new_error:.4f} | {new_steps} | "
                  f"{after / before:.2f} |", flush=True)
            good = good and new_error <= error + 5e-5 and after <= before / 5
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
