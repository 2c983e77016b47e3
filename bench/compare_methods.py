#!/usr/bin/env python3
"""Training steps of every method beside the same method of PEFT and LyCORIS, in one run.

    bench/compare_methods.py [--rounds N] [--side LATENTS] [--only NAME …] [--no-peers] [--json FILE] [--keep NAME]

A U-Net of Stable Diffusion 1.5's size with random weights, adapters on all 128 attention projections,
batch 1, fp32; one process per method, which take turns. Prints medians as a Markdown table; the ratios
are to ringlet's own lora(rank=4) of the same run.
"""
import argparse
import json
import pathlib
import sys

from compare import BIN, ROOT, peer_python, run
from results import add_keep, keep, markdown_table, median, seconds_of_runs, spread

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

OWN = "lora(rank=4)"


def table(result):
    runs = result["measured"]
    seconds = {name: seconds_of_runs(measured) for name, measured in runs.items()}
    peaks = {name: median([one["peak_mib"] for one in measured]) for name, measured in runs.items()}
    rows = [[f"`{name}`" if name in METHODS else name, f"{measured[0]['parameters']:,}", spread(seconds[name]),
             f"{median(seconds[name]) / median(seconds[OWN]):.2f}", f"{peaks[name]:.0f}",
             f"{peaks[name] / peaks[OWN]:.2f}"] for name, measured in runs.items()]
    return markdown_table(["method", "parameters", "seconds per step (least..most)", "relative to lora", "peak MiB",
                           "relative to lora"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=64, help="latents' side: 64 for pictures of 512 pixels")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a round")
    parser.add_argument("--only", nargs="+", help="methods whose text begins so")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, help="where all measured seconds go")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    add_keep(parser)
    options = parser.parse_args()
    work = options.work.resolve()
    python = peer_python(work)
    unet = work / "unet"
    run(python, ROOT / "bench/peer_unet.py", "--make", unet)
    commands = {}
    for method, peers in METHODS.items():
        if options.only and method != OWN and not any(method.startswith(word) for word in options.only):
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
    print(table(keep(parser, options, runs)))


if __name__ == "__main__":
    main()
