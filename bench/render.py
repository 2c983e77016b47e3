#!/usr/bin/env python3
"""Writes the tables of docs/performance.md from bench/results/*.json.

    bench/render.py [--check]

A table stands between "<!-- bench NAME -->" and "<!-- end of bench -->"; the script that measured NAME says
how it is laid out (its function `table`). --check writes nothing, and ends with status 1 where the page
and a result differ, where a result is on no page, or where the page names one that is not there.
"""
import importlib
import json
import pathlib
import re
import sys

from results import RESULTS, ROOT

PAGE = ROOT / "docs/performance.md"
PLACE = re.compile(r"<!-- bench ([\w-]+) -->\n.*?<!-- end of bench -->", re.DOTALL)


def origin(result):
    machine = result["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
    return f"`{result['command']}`\\\n{where}; commit {result['commit']}, {result['date']}"


def rendered(name):
    path = RESULTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"{PAGE.relative_to(ROOT)} names the bench {name}, but there is no {path.relative_to(ROOT)}")
    result = json.loads(path.read_text())
    text = importlib.import_module(result["bench"]).table(result)
    return f"<!-- bench {name} -->\n{origin(result)}\n\n{text}\n<!-- end of bench -->"


def main():
    page = PAGE.read_text()
    named = {match.group(1) for match in PLACE.finditer(page)}
    unused = {path.stem for path in RESULTS.glob("*.json")} - named
    if unused:
        sys.exit(f"{PAGE.relative_to(ROOT)} has no place for {', '.join(sorted(unused))}: "
                 "add <!-- bench NAME --> and <!-- end of bench -->")
    new = PLACE.sub(lambda match: rendered(match.group(1)), page)
    if "--check" in sys.argv:
        return sys.exit("docs/performance.md differs from bench/results: run bench/render.py" if new != page else 0)
    PAGE.write_text(new)


if __name__ == "__main__":
    main()
