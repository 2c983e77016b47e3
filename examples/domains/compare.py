"""Adapts a small network to other data by several methods, and says what comes out.

The scripts of examples/{language,vision,recommender,speech,multimodal} make their data and call run(). Only
Python's standard library is needed here.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARIES = pathlib.Path(os.environ.get("RINGLET_BIN", ROOT / "build" / "release" / "bin"))
SEEDS = (1, 2, 3)

# Learning rates are those that did best with a seed that no table uses (4) on examples/language's classification, of
# 1e-3, 3e-3, 1e-2, 3e-2 for adapters and of 1e-4, 3e-4, 1e-3 for all weights.
# The ring starts as the paper's; ringlet's own start is level with it at this rank and rate (docs/paper.md).
METHODS = (
    ("TLoRA trm(2)+tr(2)", "trm(rank=2)+tr(rank=2,init=paper)", 1e-2),
    ("TLoRA* trm(2)+lora(2)", "trm(rank=2)+lora(rank=2)", 1e-2),
    ("LoRA r=4", "lora(rank=4)", 1e-2),
    ("full", "full", 1e-3),
)


def arguments(what, name):
    """The command line of a script: --out alone. `what` is the script's own description."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "domains" / name)
    return parser


def program(name):
    path = BINARIES / name
    if not path.exists():
        sys.exit(f"{path} is missing: build ringlet first (cmake --preset release && cmake --build --preset release)")
    return str(path)


def new_network(folder, config):
    """A folder for `ringlet tune --init`, which may need more than the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def tune(out, *words):
    """One run of `ringlet tune`, or what it said when it was done before."""
    said = out / "said.json"
    if not said.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [program("ringlet"), "tune", "--json", "--threads", "1", "--out", str(out), "--resume", *map(str, words)]
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if result.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
        said.write_text(result.stdout)
    return json.loads(said.read_text())


def base(out, folder, steps, learning_rate, *words):
    """A network that begins at random in `folder` and learns `steps` steps; returns its folder."""
    said = tune(out, "--init", folder, "--method", "full", "--seed", 1, "--steps", steps, "--learning-rate", learning_rate,
                "--learning-rate-schedule", "linear", "--warmup-steps", steps // 20, *words)
    print(f"base: {scores(said)} after {steps} steps, {said['seconds']:.0f} s", flush=True)
    return out / "model"


def scores(said):
    first, last = said["scores"][0]["scores"], said["scores"][-1]["scores"]
    return ", ".join(f"{name} {first[name]:.3f} -> {value:.3f}" for name, value in last.items())


def mean_and_spread(values):
    spread = (max(values) - min(values)) / 2 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def run(title, out, model, steps, *words, methods=METHODS, seeds=SEEDS):
    """Every method with every seed; prints a table and writes it to OUT/table.md."""
    begin = time.time()
    cells = [(method, seed) for method in methods for seed in seeds]

    def cell(item):
        (label, method, rate), seed = item
        folder = out / f"{label.replace(' ', '_').replace('*', 'star')}-seed{seed}"
        return tune(folder, "--model", model, "--method", method, "--learning-rate", rate, "--seed", seed, "--steps", steps,
                    "--learning-rate-schedule", "linear", *words)

    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        said = dict(zip([(label, seed) for (label, _, _), seed in cells], pool.map(cell, cells)))
    names = list(said[methods[0][0], seeds[0]]["scores"][-1]["scores"])
    lines = [f"| method | parameters | {' | '.join(names)} | seconds |", "|---|---|" + "---|" * (len(names) + 1)]
    before = said[methods[0][0], seeds[0]]["scores"][0]["scores"]
    lines.append(f"| before | 0 | {' | '.join(f'{before[name]:.3f}' for name in names)} | |")
    for label, _, _ in methods:
        rows = [said[label, seed] for seed in seeds]
        after = [mean_and_spread([row["scores"][-1]["scores"][name] for row in rows]) for name in names]
        lines.append(f"| {label} | {rows[0]['plan']['parameters']:,} | {' | '.join(after)} | "
                     f"{statistics.mean(row['seconds'] for row in rows):.0f} |")
    table = "\n".join(lines) + "\n"
    (out / "table.md").write_text(table)
    print(f"\n{title} ({len(seeds)} seeds, mean ± half the range; {time.time() - begin:.0f} s in all)\n{table}", flush=True)
