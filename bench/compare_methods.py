#!/usr/bin/env python3
"""Training steps of every method beside the same method of PEFT and LyCORIS, in one run.

    bench/compare_methods.py [--rounds N] [--side LATENTS] [--only NAME …] [--no-peers] [--json FILE]

A U-Net of Stable Diffusion 1.5's size with random weights, adapters on all 128 attention projections,
batch 1, fp32; one process per method, which take turns. Prints medians as a Markdown table; the ratios
are to ringlet's own lora(rank=4) of the same run.
"""
import argparse
import json
import pathlib
import statistics
import sys

from compare import BIN, ROOT, peer_python, run

METHODS = {
    "lora(rank=4)": ["peft-lora", "lycoris-locon"],
    "trm(rank=2)+tr(rank=6)": [],
    "trm(rank=2)+lora(rank=4)": [],
    "dora(rank=4)": ["peft-dora"],
    "oft(block=32)": ["peft-oft", "lycoris-oft"],
    "coft(block=32)": ["peft-coft"],
    "boft(block=4,factors=2)": ["peft-boft", "lycoris-boft"],
    "hra(rank=8)": ["peft-hra"],
    "ia3": ["peft-ia3", "lycoris-ia3"],
    "glora(rank=4)": ["lycoris-glora"],
    "tt(rank=8)": [],
    "loha(rank=4)": ["peft-loha", "lycoris-loha"],
    "lokr(rank=4)": ["peft-lokr", "lycoris-lokr"],
    "fourierft(n=1000)": ["peft-fourierft"],
    "foura(rank=4)": [],
    "vera(rank=256)": ["peft-vera"],
    "lora(rank=4,init=orthogonal)": [],
    "diff": [],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=64, help="latents' side: 64 for pictures of 512 pixels")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a round")
    parser.add_argument("--only", nargs="+", help="methods whose text begins so")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, help="where all measured seconds go")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    options = parser.parse_args()
    work = options.work.resolve()
    python = peer_python(work)
    unet = work / "unet"
    run(python, ROOT / "bench/peer_unet.py", "--make", unet)
    commands = {}
    for method, peers in METHODS.items():
        if options.only and method != "lora(rank=4)" and not any(method.startswith(word) for word in options.only):
            continue
        commands[method] = [BIN / "ringlet_bench_train", unet, method, options.side, options.steps]
        for peer in [] if options.no_peers else peers:
            commands[peer] = [python, ROOT / "bench/peer_train.py", unet, options.side, options.steps, peer]
    runs = {name: [] for name in commands}
    for turn in range(options.rounds):
        for name, command in commands.items():
            print(f"round {turn + 1}: {name}", file=sys.stderr, flush=True)
            runs[name].append(json.loads(run(*command)))
            if options.json:
                options.json.write_text(json.dumps(runs, indent=1))

    def seconds(name):
        return statistics.median(s for one in runs[name] for s in one["seconds"])

    def peak(name):
        return statistics.median(one["peak_mib"] for one in runs[name])

    own = "lora(rank=4)"
    print("| method | parameters | seconds per step | relative to lora | peak MiB | relative to lora |")
    print("|---|---|---|---|---|---|")
    for name in runs:
        print(f"| {name} | {runs[name][0]['parameters']:,} | {seconds(name):.2f} | {seconds(name) / seconds(own):.2f} "
              f"| {peak(name):.0f} | {peak(name) / peak(own):.2f} |")


if __name__ == "__main__":
    main()
