#!/usr/bin/env python3
"""ringlet beside diffusers on this machine, in one run.

    bench/compare.py [--rounds N] [--keep NAME] [--work FOLDER]

Measures, turn by turn (ringlet, peer, ringlet, peer, …) so that drift of a shared machine hits both:
  - one forward pass of a U-Net of Stable Diffusion 1.5's size with random weights: 64x64 latents,
    batch 2 (classifier-free guidance), fp32: seconds and peak resident memory;
  - start-up: `ringlet --help`, `ringlet doctor --json --no-probes`, a program that only loads
    libtorch_cpu, and the peer's imports;
  - opening a 2 GB fp16 checkpoint (`ringlet inspect`: the header is validated, the data mapped).
Prints medians and ratios as a Markdown table. Needs the release build and 8 GB of disk in the work
folder, where a virtual environment with bench/requirements.txt is made once.
"""
import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import time

from results import add_keep, keep, markdown_table, median, seconds_of_runs, spread

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("RINGLET_BENCH_BIN", ROOT / "build/release/bin"))


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd="/")
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout


def peer_python(work):
    """The interpreter of a virtual environment that holds the peer."""
    python = work / "venv/bin/python"
    if not (work / "venv/.complete").exists():
        print("installing the peer into", work / "venv", file=sys.stderr)
        run(sys.executable, "-m", "venv", work / "venv")
        run(python, "-m", "pip", "install", "-q", "-r", ROOT / "bench/requirements.txt")
        (work / "venv/.complete").touch()
    return python


def make_big_checkpoint(path, gigabytes=2):
    """An fp16 file of zeros (sparse on disk) with 1,000 tensors."""
    count, side = 1000, 1024
    rows = int(gigabytes * 1e9 / count / 2 / side)
    size = rows * side * 2
    header = {f"model.layer_{i}.weight": {"dtype": "F16", "shape": [rows, side],
                                          "data_offsets": [i * size, (i + 1) * size]} for i in range(count)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + count * size)


def seconds_of(*command):
    begin = time.perf_counter()
    run(*command)
    return time.perf_counter() - begin


def unet_runs(python, unet, rounds):
    runs = {"ringlet": [], "diffusers": []}
    for _ in range(rounds):
        runs["ringlet"].append(json.loads(run(BIN / "ringlet_bench_unet", unet)))
        runs["diffusers"].append(json.loads(run(python, ROOT / "bench/peer_unet.py", unet)))
    return runs


def start_times(python, rounds):
    """Seconds of programs that begin and end."""
    commands = {"bare": [BIN / "ringlet_bench_load_libtorch"],
                "ringlet --help": [BIN / "ringlet", "--help"],
                "ringlet doctor --json --no-probes": [BIN / "ringlet", "doctor", "--json", "--no-probes"]}
    times = {name: [] for name in [*commands, "import diffusers"]}
    for turn in range(5 * rounds):
        for name, command in commands.items():
            times[name].append(seconds_of(*command))
        if turn % 5 == 0:
            times["import diffusers"].append(
                seconds_of(python, "-c", "import diffusers; diffusers.StableDiffusionPipeline"))
    return times


def table(result):
    measured = result["measured"]
    ours, peers = measured["unet"]["ringlet"], measured["unet"]["diffusers"]
    times = measured["start"]

    def row(name, own, other):
        return [name, spread(own), spread(other), f"{median(own) / median(other):.2f}"]

    rows = [row("U-Net forward, seconds", seconds_of_runs(ours), seconds_of_runs(peers)),
            row("U-Net forward, peak MiB", *([one["peak_mib"] for one in runs] for runs in (ours, peers)))]
    rows += [row(f"`{name}` compared with loading libtorch_cpu, seconds", times[name], times["bare"])
             for name in ("ringlet --help", "ringlet doctor --json --no-probes")]
    rows += [row("`ringlet --help` compared with the import of diffusers, seconds", times["ringlet --help"],
                 times["import diffusers"]),
             ["`ringlet inspect` of a 2 GB fp16 checkpoint, seconds", spread(measured["inspect"]), "", ""]]
    products = median([one["matmul_gflops"] for one in ours])
    return (markdown_table(["", "ringlet", "other", "ratio"], rows)
            + f"\n\nLibTorch's matrix product ran at {products:.0f} GFLOP/s meanwhile.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    add_keep(parser)
    options = parser.parse_args()
    options.work = options.work.resolve()
    os.makedirs(options.work, exist_ok=True)
    python = peer_python(options.work)
    unet, big = options.work / "unet", options.work / "big.safetensors"
    run(python, ROOT / "bench/peer_unet.py", "--make", unet)
    make_big_checkpoint(big)

    measured = {"unet": unet_runs(python, unet, options.rounds), "start": start_times(python, options.rounds),
                "inspect": [seconds_of(BIN / "ringlet", "inspect", big) for _ in range(3)]}
    print(table(keep(parser, options, measured)))


if __name__ == "__main__":
    main()
