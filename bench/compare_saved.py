#!/usr/bin/env python3
"""What a training step keeps for its backward pass, beside diffusers + PEFT.

    bench/compare_saved.py [--sides N …] [--methods METHOD …] [--keep NAME] [--work FOLDER]

A U-Net of Stable Diffusion 1.5's size with random weights, adapters on all 128 attention projections,
batch 1, fp32 on the CPU. Both sides are counted by hooks on what autograd saves in a forward pass
(torch.autograd.graph.saved_tensors_hooks, and the same hooks of LibTorch in C++), each storage once;
weights, parameters and inputs, which are there before the pass, are left out. Bytes do not depend on
what else the machine does, so one run is enough. Prints Markdown.
"""
import argparse
import json
import pathlib

from compare import BIN, ROOT, peer_python, run
from results import add_keep, keep, markdown_table

METHODS = ["lora(rank=4)", "trm(rank=2)+lora(rank=4)", "trm(rank=2)+tr(rank=6)"]
KEEPERS = {  # of LibTorch's names of what is in the graph
    "Geglu": "GEGLU", "ScaledDotProduct": "attention", "NativeGroupNorm": "group norm", "NativeLayerNorm": "layer norm",
    "NormSilu": "group norm with SiLU", "Linear": "inputs of adapters", "LowRankAdd": "inputs of adapters",
    "FusedRing": "inputs of adapters"}


def mib(count):
    return f"{count / 2**20:,.1f}"


def keeper_of(node):
    return next((name for begin, name in KEEPERS.items() if node.startswith(begin)), "adapters and the rest")


def table(result):
    rows, keepers = [], {}
    for one in result["measured"]:
        peer = one["peer"]["saved_bytes"]
        for method, ours in one["ringlet"].items():
            rows.append([f"{one['side']}x{one['side']}", f"`{method}`", mib(ours["saved_bytes"]), mib(peer),
                         f"{ours['saved_bytes'] / peer:.2f}"])
        for node, bytes_ in one["ringlet"][METHODS[0]]["keepers"].items():
            row = keepers.setdefault(keeper_of(node), {})
            row[one["side"]] = row.get(one["side"], 0) + bytes_
    sides = [one["side"] for one in result["measured"]]
    order = sorted(keepers, key=lambda name: -keepers[name].get(sides[-1], 0))
    by_keeper = [[name, *(mib(keepers[name].get(side, 0)) for side in sides)] for name in order]
    return (markdown_table(["latents", "method", "ringlet: MiB", "diffusers + PEFT LoRA r=4: MiB", "ratio"], rows)
            + f"\n\nWho keeps it, with `{METHODS[0]}` (what two keep counts for the first):\n\n"
            + markdown_table(["kept by", *(f"{side}x{side}: MiB" for side in sides)], by_keeper))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[32, 64], help="latents' sides: 64 for 512 pixels")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    add_keep(parser)
    options = parser.parse_args()
    work = options.work.resolve()
    python, unet = peer_python(work), work / "unet"
    run(python, ROOT / "bench/peer_unet.py", "--make", unet)
    measured = []
    for side in options.sides:
        peer = json.loads(run(python, ROOT / "bench/peer_saved.py", unet, side))
        ours = {method: json.loads(run(BIN / "ringlet_bench_saved", unet, method, side)) for method in options.methods}
        for one in ours.values():
            one["keepers"] = {name: keeper["bytes"] for name, keeper in one["keepers"].items()}
        measured.append(dict(side=side, peer=dict(saved_bytes=peer["saved_bytes"]), ringlet=ours))
    print(table(keep(parser, options, measured)))


if __name__ == "__main__":
    main()
