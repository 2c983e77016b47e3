#!/usr/bin/env python3
"""Compares steps on 1 to 4 ranks of this machine with what `ringlet train --nodes-plan` predicts.

    bench/ranks.py [PROGRAM] [RANKS]      build/release/bin/ringlet 4

Needs Open MPI. Every rank has one thread; more ranks than processors share them. Prints the table of
docs/scaling.md. Nothing else should run meanwhile: the load is printed, too.
"""
import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS, WARM_UP = 25, 5
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
               "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def run(ranks, words):
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
    return subprocess.run(launcher * (ranks > 1) + words, env=ENVIRONMENT, check=True, text=True,
                          stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout


def main():
    program = str(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                               ROOT / "build/release/bin/ringlet").resolve())
    most = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    processors = len(os.sched_getaffinity(0))
    work = pathlib.Path(tempfile.mkdtemp(prefix="ringlet-ranks-"))
    command = [program, "train", "--model", str(ROOT / "assets/starter"), "--instance-images",
               str(ROOT / "examples/quickstart/robot"), "--instance-prompt", "a robot", "--method",
               "lora(rank=4)", "--seed", "5", "--sample-steps", "1", "--quiet"]

    def plan(ranks):
        counts = ",".join(map(str, range(1, most + 1)))
        out = run(ranks, command + ["--nodes-plan", counts, "--json", "--out", str(work / "plan")])
        return json.loads(out)["nodes_plan"]

    def measured(ranks):
        out = work / str(ranks)
        run(ranks, command + ["--steps", str(STEPS), "--out", str(out)])
        with open(out / "metrics.csv", newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
        return statistics.median(b - a for a, b in zip(seconds[WARM_UP:], seconds[WARM_UP + 1:]))

    step = plan(1)["step_seconds"]
    network = plan(2)
    print(f"load {os.getloadavg()[0]:.1f} of {processors} processors; network "
          f"{network['network_gigabits']:.2f} Gbit/s, {network['network_microseconds']:.0f} us; "
          f"{network['gradient_bytes'] / 1e6:.2f} MB of gradients\n")
    print("| ranks | exchange, ms | step predicted, ms | measured, ms |\n|---|---|---|---|")
    for row in network["ranks"]:
        ranks, exchange = row["ranks"], row["exchange_seconds"]
        predicted = step * max(1.0, ranks / processors) + exchange
        print(f"| {ranks} | {1e3 * exchange:.2f} | {1e3 * predicted:.1f} | "
              f"{1e3 * measured(ranks):.1f} |", flush=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
