#!/usr/bin/env python3
"""Training steps alone and beside other busy programs.

    bench/busy_machine.py [--busy N] [--steps N] [--rounds N] [--size starter|middle] [--json FILE]

The quickstart's training, a few steps of it: on the quiet machine, beside N programs that compute all
the time (one per processor), and beside such that come when the run has begun. Each as the program
chooses, and with what it would do otherwise: all threads, which wait for each other by spinning for as
long as GNU's OpenMP does by itself, shortly or never; one thread. Prints medians of the steps' seconds as a Markdown table; ends with status
1 where what the program chooses takes more than twice its time alone. The rounds take turns.
"""
import argparse
import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

from compare import BIN, ROOT
from memory import model_of

WAYS = {"ringlet's choice": ({}, []),
        "OMP_WAIT_POLICY=active": ({"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "0"}, []),
        "OMP_WAIT_POLICY=passive": ({"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "0"}, []),
        "--threads 1": ({}, ["--threads", "1"])}
ALLOWED = 2.0


class Busy:
    """So many programs that compute all the time, while it lives."""

    def __init__(self, count):
        self.count, self.programs = count, []

    def __enter__(self):
        self.programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(self.count)]
        time.sleep(0.5 if self.count else 0.0)

    def __exit__(self, *_):
        for program in self.programs:
            program.kill()
            program.wait()


def train(way, work, options, come_later=0):
    """Seconds of the steps after the first three, and what the log says of threads."""
    variables, words = WAYS[way]
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("OMP_", "GOMP_", "KMP_"))} | variables
    if environment.get("OMP_NUM_THREADS") == "all":
        environment["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
    out = work / "busy-run"
    shutil.rmtree(out, ignore_errors=True)
    command = [BIN / "ringlet", "train", "--model", model_of(options.size, work), "--instance-images",
               ROOT / "examples/quickstart/robot", "--method", "trm(rank=2)+tr(rank=6)", "--targets", "attention+ff",
               "--steps", options.steps, "--batch-size", "4", "--resolution", "128", "--learning-rate", "1e-3",
               "--seed", "1", "--sample-prompt", "sks robot", "--sample-images", "1", "--sample-steps", "1", "--out",
               out, *words]
    child = subprocess.Popen([str(word) for word in command], env=environment, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.csv"
    if come_later:
        while child.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < 4):
            time.sleep(0.01)
    with Busy(come_later):
        said = child.communicate()[1]
    if child.returncode != 0:
        sys.exit(said)
    ends = [float(row["seconds"]) for row in csv.DictReader(open(metrics))]
    skip = 5 if come_later else 3
    steps = [after - before for before, after in zip(ends[skip - 1:], ends[skip:])]
    return steps, [line for line in said.splitlines() if line.startswith("threads: ")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=len(os.sched_getaffinity(0)), help="[one per processor]")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", default="starter", choices=["starter", "middle"])
    parser.add_argument("--json", type=pathlib.Path, help="where all seconds go")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    seconds = {way: {"alone": [], "beside": [], "come later": []} for way in WAYS}
    for _ in range(options.rounds):
        for way, kinds in seconds.items():
            kinds["alone"] += train(way, work, options)[0]
            with Busy(options.busy):
                steps, said = train(way, work, options)
            kinds["beside"] += steps
            kinds["come later"] += train(way, work, options, come_later=options.busy)[0]
            print(f"{way}: {'; '.join(said)}", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(seconds, indent=1))
    shutil.rmtree(work / "busy-run", ignore_errors=True)

    print(f"| seconds per step | alone | beside {options.busy} busy programs | beside / alone | that come later | "
          "/ alone |\n|---|---|---|---|---|---|")
    worst = 0.0
    for way, kinds in seconds.items():
        alone, beside, later = (statistics.median(kinds[kind]) for kind in ("alone", "beside", "come later"))
        print(f"| {way} | {alone:.3f} | {beside:.3f} | {beside / alone:.2f} | {later:.3f} | {later / alone:.2f} |")
        if way == "ringlet's choice":
            worst = beside / alone
    return 1 if worst > ALLOWED else 0


if __name__ == "__main__":
    sys.exit(main())
