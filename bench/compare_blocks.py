#!/usr/bin/env python3
"""One block of a diffusion transformer at real width, forward and backward, beside diffusers + PEFT.

    bench/compare_blocks.py [--blocks BLOCK …] [--tokens N …] [--methods METHOD …] [--rounds N] [--steps N]
                            [--time-up-to N] [--keep NAME] [--work FOLDER]

A double and a single block of FLUX (3072 wide, 24 heads of 128, 512 tokens of text) and one of Stable
Diffusion 3.5 medium (1536 wide, dual attention, 333 tokens of text), with random weights that both sides
read from one file. Adapters on all projections of attention and feed-forward, batch 1, fp32, on the CPU.
Both sides take turns with one thread each. Seconds are processor time, so that other programs
change them little. Kept bytes are counted on both sides by hooks on what
autograd saves, the block's own input included. `trm` methods have no counterpart: they are measured beside
PEFT's LoRA and beside ringlet's own. Prints Markdown.
"""
import argparse
import json
import os
import pathlib
import sys

from compare import BIN, ROOT, peer_python, run
from results import add_keep, keep, markdown_table, median, seconds_of_runs, spread

PEERS = {"lora(rank=4)": "peft-lora", "trm(rank=2)+lora(rank=4)": "peft-lora", "trm(rank=2)+tr(rank=6)": "peft-lora",
         "dora(rank=4)": "peft-dora", "oft(block=32)": "peft-oft"}
BLOCKS = ["flux-double", "flux-single", "sd3"]
AGREE = 1e-4  # of the norms of the inputs' gradients: adapters begin as the identity


def mib(count):
    return f"{count / 2**20:,.0f}"


def table(result):
    rows = []
    for one in result["measured"]:
        loras = seconds_of_runs(next(iter(one["ringlet"].values())))
        for method, runs in one["ringlet"].items():
            peers = one["peers"][PEERS[method]]
            ours, theirs = seconds_of_runs(runs), seconds_of_runs(peers)
            times = [spread(ours), spread(theirs), f"{median(ours) / median(theirs):.2f}",
                     f"{median(ours) / median(loras):.2f}"] if ours else [""] * 4
            kept = runs[0]["saved_bytes"], peers[0]["saved_bytes"]
            rows.append([one["block"], one["tokens"], f"`{method}`", f"{runs[0]['parameters']:,}", *times,
                         mib(kept[0]), mib(kept[1]), f"{kept[0] / kept[1]:.2f}"])
    return markdown_table(["block", "tokens", "method", "parameters", "s (least..most)", "PEFT: s", "ratio",
                           "beside lora", "kept: MiB", "PEFT: MiB", "ratio"], rows)


def check_agreement(block, measured):
    norms = [one["norm"] for runs in measured for one in runs if one["seconds"]]
    if norms and max(norms) - min(norms) > AGREE * max(norms):
        sys.exit(f"{block}: the sides do not compute the same: {norms}")


def measure(block, tokens, options, python, work):
    file = work / f"{block}.safetensors"
    run(python, ROOT / "bench/peer_blocks.py", "--make", block, file)
    timed = tokens <= options.time_up_to
    steps, rounds = (options.steps, options.rounds) if timed else (0, 1)
    ours = {method: [] for method in options.methods}
    peers = {PEERS[method]: [] for method in options.methods}
    for _ in range(rounds):
        for method, runs in ours.items():
            runs.append(json.loads(run(BIN / "ringlet_bench_block", block, file, method, tokens, steps)))
            if len(peers[PEERS[method]]) < len(runs):
                peers[PEERS[method]].append(
                    json.loads(run(python, ROOT / "bench/peer_blocks.py", block, file, tokens, steps, PEERS[method])))
    check_agreement(block, [*ours.values(), *peers.values()])
    for one in (one for runs in ours.values() for one in runs):
        one["keepers"] = {name: keeper["bytes"] for name, keeper in one["keepers"].items()}
    for one in (one for runs in peers.values() for one in runs):
        del one["shapes"]
    return dict(block=block, tokens=tokens, ringlet=ours, peers=peers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", nargs="+", default=BLOCKS, choices=BLOCKS)
    parser.add_argument("--tokens", nargs="+", type=int, default=[1024, 2048, 4096], help="of the picture")
    parser.add_argument("--methods", nargs="+", default=list(PEERS), choices=list(PEERS), help="the first is the measure")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1, help="passes a round")
    parser.add_argument("--time-up-to", type=int, default=4096, help="tokens beyond which bytes alone are counted")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    add_keep(parser)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    work = options.work.resolve()
    os.makedirs(work / "blocks", exist_ok=True)
    python = peer_python(work)
    measured = []
    for block in options.blocks:
        for tokens in options.tokens:
            measured.append(measure(block, tokens, options, python, work / "blocks"))
            result = keep(parser, options, measured)  # a run of hours may be cut short
    print(table(result))


if __name__ == "__main__":
    main()
