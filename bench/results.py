"""What the scripts of this folder keep of a run: bench/results/NAME.json, which render.py turns into
docs/performance.md."""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"


def proc_value(file, key):
    with open(file) as lines:
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(key))


def machine():
    return dict(processor=proc_value("/proc/cpuinfo", "model name"), cores=os.cpu_count(),
                memory_gib=round(int(proc_value("/proc/meminfo", "MemTotal").split()[0]) / 2**20))


def commit():
    """The commit, with a "+" where sources differ from it."""
    def git(*words):
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()
    changed = git("status", "--porcelain", "--", "ringlet", "apps", "bench/*.cpp", "bench/*.h")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def add_keep(parser):
    parser.add_argument("--keep", metavar="NAME", help="keep what was measured as bench/results/NAME.json, a table of "
                        "docs/performance.md (bench/render.py)")


def command_line(parser, options):
    """The command without what says where files are, and without what has its default."""
    words = [f"bench/{pathlib.Path(parser.prog).name}"]
    for action in parser._actions:
        value = getattr(options, action.dest, None)
        if not action.option_strings or action.dest in ("help", "keep") or value in (None, action.default):
            continue
        if isinstance(value, pathlib.Path) and value.is_absolute():
            continue
        words.append(action.option_strings[0])
        if not isinstance(action, argparse._StoreTrueAction):
            words += [f'"{one}"' if "(" in str(one) else str(one) for one in (value if isinstance(value, list) else [value])]
    return " ".join(words)


def keep(parser, options, measured):
    """Writes what was measured, where --keep asks for it."""
    result = dict(bench=pathlib.Path(parser.prog).stem, command=command_line(parser, options),
                  date=datetime.date.today().isoformat(), commit=commit(), machine=machine(), measured=measured)
    if options.keep:
        RESULTS.mkdir(exist_ok=True)
        write(RESULTS / f"{options.keep}.json", result)
    return result


def write(path, result):
    """A row of numbers stands on one line."""
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def median(values):
    return statistics.median(values)


def seconds_of_runs(runs):
    return [seconds for one in runs for seconds in one["seconds"]]


def spread(values, digits=3):
    """"median (least..most)"."""
    text = f"{median(values):.{digits}g}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}g}..{max(values):.{digits}g})"


def markdown_table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
