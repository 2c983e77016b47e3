#!/usr/bin/env python3
"""Training steps of ringlet's adapters beside a LoRA with diffusers and PEFT, in one run.

    bench/compare_train.py [--rounds N] [--side LATENTS] [--batch N] [--checkpointing] [--keep NAME]
                           [--work FOLDER] [--device cuda] [--precision bf16] [--unet FOLDER] [--no-peer]

A U-Net of Stable Diffusion 1.5's size with random weights, adapters on all its attention projections,
batch 1, fp32 on the CPU unless said otherwise. The programs take turns, so that drift of a shared
machine hits all of them. Prints medians as a Markdown table; the last column is the time beside PEFT's.
"""
import argparse
import json
import os
import pathlib

from compare import BIN, ROOT, peer_python, run
from results import add_keep, keep, markdown_table, median, seconds_of_runs, spread

METHODS = ["lora(rank=4)", "trm(rank=2)+lora(rank=4)", "trm(rank=2)+tr(rank=6)"]

PEER = "PEFT LoRA r=4"


def table(result):
    runs = result["measured"]
    seconds = {name: seconds_of_runs(measured) for name, measured in runs.items()}
    rows = [[name if name == PEER else f"`{name}`", f"{measured[0]['parameters']:,}", spread(seconds[name]),
             f"{median([one['peak_mib'] for one in measured]):.0f}",
             f"{median(seconds[name]) / median(seconds[PEER]):.2f}" if PEER in runs else "",
             f"{median(seconds[name]) / median(seconds[METHODS[0]]):.2f}"] for name, measured in runs.items()]
    return markdown_table(["method", "parameters", "seconds per step (least..most)", "peak MiB", "relative to PEFT",
                           "relative to lora"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=64, help="latents' side: 64 for pictures of 512 pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="timed steps a round")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--unet", type=pathlib.Path, help="another network's folder")
    parser.add_argument("--no-peer", action="store_true", help="ringlet alone")
    add_keep(parser)
    options = parser.parse_args()
    os.environ |= {"RINGLET_BENCH_DEVICE": options.device, "RINGLET_BENCH_PRECISION": options.precision,
                   "RINGLET_BENCH_BATCH": str(options.batch)}
    work = options.work.resolve()
    python = None if options.no_peer and options.unet else peer_python(work)
    unet = options.unet.resolve() if options.unet else work / "unet"
    if not options.unet:
        run(python, ROOT / "bench/peer_unet.py", "--make", unet)
    tail = [options.side, options.steps] + (["checkpointing"] if options.checkpointing else [])
    commands = {} if options.no_peer else {
        PEER: [python, ROOT / "bench/peer_train.py", unet, options.side, options.steps, "peft-lora", *tail[2:]]}
    commands |= {method: [BIN / "ringlet_bench_train", unet, method, *tail] for method in METHODS}
    runs = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            runs[name].append(json.loads(run(*command)))
    print(table(keep(parser, options, runs)))


if __name__ == "__main__":
    main()
