#!/usr/bin/env python3
"""`ringlet extract` of a LoRA beside a script that decomposes every layer, in one run.

    bench/compare_svd.py [--rounds N] [--rank R] [--layers N] [--threads N] [--keep NAME] [--work FOLDER]

Two files of linear layers: N of each width of Stable Diffusion 1.5's attention projections (320, 640,
1280), with differences as a fine-tuning leaves them (a spectrum that falls, and noise of all ranks). The
peer does what kohya's extract_lora_from_models.py and LyCORIS's extraction do on a CPU: torch.linalg.svd
of every layer's difference in fp32, of which R ranks are kept. Both take turns with as many threads;
seconds are those of the fits. The error is that of W* - W0 over all layers.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

from compare import BIN, ROOT, peer_python, run
from results import add_keep, keep, markdown_table, median, seconds_of_runs, spread

PEER = """
import json, sys, time, torch
from safetensors.torch import load_file
base, tuned, rank, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
base, tuned = load_file(base), load_file(tuned)
seconds = missed = total = 0.0
for name in base:
    difference = tuned[name] - base[name]
    begin = time.perf_counter()
    u, s, v = torch.linalg.svd(difference)
    up, down = u[:, :rank] * s[:rank], v[:rank]
    seconds += time.perf_counter() - begin
    missed += float((difference - up @ down).double().square().sum())
    total += float(difference.double().square().sum())
print(json.dumps(dict(seconds=[seconds], error=(missed / total) ** 0.5)))
"""
MAKE = """
import sys, torch
from safetensors.torch import save_file
torch.manual_seed(0)
base, tuned = {}, {}
for width in (320, 640, 1280):
    for layer in range(int(sys.argv[2])):
        weight = torch.randn(width, width) / width ** 0.5
        falling = torch.exp(-torch.arange(64) / 12.0)
        change = (torch.randn(width, 64) * falling) @ torch.randn(64, width) / 8 + 0.1 * torch.randn(width, width)
        name = f"blocks.{width}.{layer}.weight"
        base[name], tuned[name] = weight, weight + 0.01 * change / width ** 0.5
save_file(base, sys.argv[1] + "/base.safetensors")
save_file(tuned, sys.argv[1] + "/tuned.safetensors")
"""


def table(result):
    runs = result["measured"]
    own = seconds_of_runs(runs["ringlet"])
    return markdown_table(
        ["program", "seconds (least..most)", "relative to ringlet", "relative error"],
        [[name, spread(seconds_of_runs(measured)), f"{median(seconds_of_runs(measured)) / median(own):.1f}",
          f"{measured[0]['error']:.6f}"] for name, measured in runs.items()])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--layers", type=int, default=2, help="of each width")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    add_keep(parser)
    options = parser.parse_args()
    work = options.work.resolve() / f"svd-{options.layers}"
    work.mkdir(parents=True, exist_ok=True)
    python = peer_python(options.work.resolve())
    run(python, "-c", MAKE, work, options.layers)
    base, tuned = work / "base.safetensors", work / "tuned.safetensors"
    runs = {"ringlet": [], "SVD of every layer": []}
    for _ in range(options.rounds):
        done = subprocess.run([BIN / "ringlet", "extract", "--base", base, "--tuned", tuned, "--method",
                               f"lora(rank={options.rank})", "--out", work / "adapter.safetensors", "--json", "--threads",
                               str(options.threads)], capture_output=True, text=True, env=dict(os.environ))
        if done.returncode != 0:
            sys.exit(done.stderr)
        total = json.loads(done.stdout)["total"]
        runs["ringlet"].append(dict(seconds=[total["seconds"]], error=total["relative_error"]))
        runs["SVD of every layer"].append(json.loads(run(python, "-c", PEER, base, tuned, options.rank, options.threads)))
    print(table(keep(parser, options, runs)))


if __name__ == "__main__":
    main()
