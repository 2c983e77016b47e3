#!/usr/bin/env python3
"""What the storage of the frozen base changes: quality, memory and time.

    bench/base_storage.py [--model FOLDER] [--side N] [--steps N] [--method TEXT] [--json FILE]

For every storage: bytes of the U-Net's weights and the relative error of its predictions beside fp32
(ringlet_bench_base_storage), then a run of `ringlet train --base-storage` whose losses are compared with
those over fp32, step by step: the same pictures, noise and levels. Storages take turns. Needs the release
build, or another in RINGLET_BENCH_BIN.
"""
import argparse
import csv
import json
import pathlib
import shutil
import statistics
import subprocess

from compare import BIN, ROOT

STORAGES = ("fp32", "bf16", "fp8", "int8", "nf4")


def losses(folder):
    with open(folder / "metrics.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def train(options, storage, work):
    out = work / f"base-storage-{storage}"
    shutil.rmtree(out, ignore_errors=True)
    words = [BIN / "ringlet", "train", "--model", options.model, "--instance-images",
             ROOT / "examples/quickstart/robot", "--instance-prompt", "a photo of a robot", "--method", options.method,
             "--base-storage", storage, "--steps", options.steps, "--seed", 1, "--learning-rate", "1e-3",
             "--batch-size", options.batch_size, "--sample-images", 1, "--sample-steps", 1, "--precision", "fp32",
             "--quiet", "--out", out]
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return losses(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "assets/starter")
    parser.add_argument("--side", type=int, default=16, help="of the latents whose predictions are compared [16]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="of training; 0 = none [30]")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--method", default="trm(rank=2)+lora(rank=4)")
    parser.add_argument("--json", type=pathlib.Path, help="where all numbers go")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found = {}
    print("| storage | weights, MiB | error of predictions | s per pass | mean loss | first step | last ten | "
          "largest difference of a step |")
    print("|---|---|---|---|---|---|---|---|")
    for storage in STORAGES:
        words = [BIN / "ringlet_bench_base_storage", options.model, storage, options.side, options.repeats]
        row = json.loads(subprocess.run([str(word) for word in words], check=True, capture_output=True).stdout)
        row["losses"] = train(options, storage, options.work) if options.steps else []
        found[storage] = row
        base, own = found["fp32"]["losses"], row["losses"]
        shown = ["", "", "", ""]
        if own:
            difference = max(abs(a - b) / a for a, b in zip(base, own))
            shown = [f"{statistics.mean(own):.5f}", f"{own[0]:.5f}", f"{statistics.mean(own[-10:]):.5f}",
                     f"{100 * difference:.2f} %"]
        print(f"| {storage} | {row['weight_bytes'] / 2**20:.1f} | "
              f"{statistics.mean(row['relative_errors']):.5f} (at most {max(row['relative_errors']):.5f}) | "
              f"{statistics.median(row['seconds']):.3f} | " + " | ".join(shown) + " |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
