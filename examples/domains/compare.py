"""Adapts a small network to other data by several methods, and says what comes out.

The scripts of examples/{language,vision,recommender,speech,multimodal} make their data and call run(). Only
Python's standard library is needed here.

--methods FILE compares others than the table's own: a TOML file of [[method]] tables with name, method, learning-rate
and, where one has more options of `ringlet tune`, tune = { option = "value" or ["values"] }.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARIES = pathlib.Path(os.environ.get("RINGLET_BIN", ROOT / "build" / "release" / "bin"))
SEEDS = (1, 2, 3)

# Learning rates are those that did best with a seed that no table uses (4) on examples/language's classification, of
# 1e-3, 3e-3, 1e-2, 3e-2 for adapters and of 1e-4, 3e-4, 1e-3 for all weights.
# The ring starts as the paper's; ringlet's own start is level with it at this rank and rate (docs/paper.md).
METHODS = (
    ("TLoRA trm(2)+tr(2)", "trm(rank=2)+tr(rank=2,init=paper)", 1e-2, ()),
    ("TLoRA* trm(2)+lora(2)", "trm(rank=2)+lora(rank=2)", 1e-2, ()),
    ("LoRA r=4", "lora(rank=4)", 1e-2, ()),
    ("full", "full", 1e-3, ()),
)


def read_methods(file):
    """The methods of a TOML file: name, method, learning rate, further words for `ringlet tune`."""
    try:
        tables = tomllib.loads(pathlib.Path(file).read_text())["method"]
        return tuple((table["name"], table["method"], table["learning-rate"],
                      tuple(word for option, values in table.get("tune", {}).items()
                            for value in (values if isinstance(values, list) else [values])
                            for word in (f"--{option}", str(value)))) for table in tables)
    except (OSError, KeyError, tomllib.TOMLDecodeError) as problem:
        raise argparse.ArgumentTypeError(f"{file}: {problem}; [[method]] tables with name, method and learning-rate are "
                                         "expected") from problem


def arguments(what, name):
    """The command line of a script. `what` is the script's own description."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "domains" / name)
    parser.add_argument("--methods", metavar="FILE", type=read_methods, default=METHODS,
                        help="TOML file of the methods to compare, in place of the table's")
    parser.add_argument("--seeds", metavar="SEED", type=int, nargs="+", default=SEEDS, help="training seeds [1 2 3]")
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
    words = ["tune", "--json", "--threads", "1", "--out", str(out), "--resume", *map(str, words)]
    if not said.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [program("ringlet"), *words]
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if result.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
        said.write_text(json.dumps({"words": words, **json.loads(result.stdout)}))
    done = json.loads(said.read_text())
    if done.get("words") != words:
        sys.exit(f"{out} holds another run than ringlet {' '.join(words)}: remove it, or choose another --out")
    return done


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


def run(chosen, title, out, model, steps, *words, methods=None, others=()):
    """Every method with every seed of the command line; prints a table and writes it to OUT/table.md.

    `others` are rows of other programs: a label, and a function of the seed that gives parameters, seconds, scores."""
    begin = time.time()
    methods, seeds = methods or chosen.methods, chosen.seeds
    cells = [(method, seed) for method in methods for seed in seeds]

    def cell(item):
        (label, method, rate, more), seed = item
        folder = out / f"{re.sub('[^A-Za-z0-9.=+()-]+', '_', label.replace('*', 'star'))}-seed{seed}"
        return tune(folder, "--model", model, "--method", method, "--learning-rate", rate, "--seed", seed, "--steps", steps,
                    "--learning-rate-schedule", "linear", *words, *more)

    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        theirs = {(label, seed): pool.submit(act, seed) for label, act in others for seed in seeds}
        said = dict(zip([(method[0], seed) for method, seed in cells], pool.map(cell, cells)))
    names = list(said[methods[0][0], seeds[0]]["scores"][-1]["scores"])
    lines = [f"| method | parameters | {' | '.join(names)} | seconds |", "|---|---|" + "---|" * (len(names) + 1)]
    before = said[methods[0][0], seeds[0]]["scores"][0]["scores"]
    lines.append(f"| before | 0 | {' | '.join(f'{before[name]:.3f}' for name in names)} | |")
    table = [(label, [(row["plan"]["parameters"], row["seconds"], row["scores"][-1]["scores"])
                      for row in (said[label, seed] for seed in seeds)]) for label, *_ in methods]
    table += [(label, [(row["parameters"], row["seconds"], row["scores"])
                       for row in (theirs[label, seed].result() for seed in seeds)]) for label, _ in others]
    for label, rows in table:
        after = [mean_and_spread([scores[name] for _, _, scores in rows]) for name in names]
        lines.append(f"| {label} | {rows[0][0]:,} | {' | '.join(after)} | "
                     f"{statistics.mean(seconds for _, seconds, _ in rows):.0f} |")
    table = "\n".join(lines) + "\n"
    (out / "table.md").write_text(table)
    print(f"\n{title} ({len(seeds)} seeds, mean ± half the range; {time.time() - begin:.0f} s in all)\n{table}", flush=True)
