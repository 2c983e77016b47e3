#!/usr/bin/env python3
"""Checks the direction of includes and what library code may not do.

    scripts/check_includes.py [ROOT]

Each folder may include headers of itself and of the layers that its line in ringlet/CMakeLists.txt
names (docs/architecture.md shows the same table as a picture); apps/ may include all of them. Library
code under ringlet/ may not print, exit, abort or assert: it throws ringlet::Error. Nor does it speak
command line: a literal names an option as a field between back quotes (core/error.h), never with
dashes. Only METHOD_TEXT_USERS include the text of methods. Exits 1 with one line per offence.
"""
import pathlib
import re
import sys

LAYER = re.compile(r"^ringlet_layer\((\w+)([^)]*)\)", re.M)

# Methods are values; only the edges read and print them as text: command lines, files' metadata,
# settings and records of runs, and the names of methods in messages and reports.
METHOD_TEXT = "ringlet/adapt/method_text.h"
METHOD_TEXT_USERS = (
    "apps/",
    "ringlet/adapt/set/adapter_file.cpp",     # ringlet.method of a file
    "ringlet/adapt/set/budget.cpp",           # messages
    "ringlet/adapt/method_text.cpp",
    "ringlet/adapt/set/save_adapter.cpp",     # ringlet.method of a file
    "ringlet/adapt/transform_residual.cpp",   # spec(), for messages and reports
    "ringlet/formats/adapter_reader.cpp",     # messages
    "ringlet/pipeline/extract.cpp",           # the table of a comparison
    "ringlet/service/adapters.cpp",           # the log of what is loaded
    "ringlet/service/benchmark.cpp",          # requests
    "ringlet/service/extract.cpp",            # requests, and the log of a budget
    "ringlet/service/extraction_report.cpp",  # JSON for people
    "ringlet/train/adapter_training.cpp",     # plans and settings of runs
)

INCLUDE = re.compile(r'^\s*#\s*include\s+"ringlet/([a-z_]+)/')
QUOTED = re.compile(r'^\s*#\s*include\s+"(?!ringlet/)([^"]+)"')
# at::parallel_for uses one thread in code that is compiled without OpenMP (nn/parallel.h).
FORBIDDEN = re.compile(r"\bat::parallel_(for|reduce)\b|\bstd::(cout|cerr|clog|exit|abort|terminate|quick_exit)\b"
                       r"|(?<![\w:])(printf|fprintf|puts|exit|abort|assert)\s*\(")

OPTION = re.compile(r"--[A-Za-z]")
LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"')
# Text about another program's options, and a file whose lines are another language.
OTHERS = re.compile(r"scripts/bootstrap\.sh --cuda")
OTHER_LANGUAGES = {"ringlet/draw/html.cpp"}  # custom properties of CSS


def speaks_command_line(path, code):
    if str(path) in OTHER_LANGUAGES:
        return False
    return any(OPTION.search(OTHERS.sub("", text)) for text in LITERAL.findall(code))


def folder_of(path):
    return path.parts[1] if path.parts[0] == "ringlet" else path.parts[0]


def layers(root):
    """Which layers each folder may include."""
    table = {name: set(below.split())
             for name, below in LAYER.findall((root / "ringlet" / "CMakeLists.txt").read_text())}
    table["apps"] = set(table)
    return table


def offences(root, path, allowed):
    here = folder_of(path)
    if here not in allowed:
        yield f"{path}:1: folder \"{here}\" has no line ringlet_layer in ringlet/CMakeLists.txt"
        return
    for number, line in enumerate((root / path).read_text().splitlines(), 1):
        code = line.split("//")[0]
        target = INCLUDE.match(code)
        if target and target[1] != here and target[1] not in allowed[here]:
            yield f"{path}:{number}: {here} may not include {target[1]}"
        if METHOD_TEXT in code and "#" in code and not path.as_posix().startswith(METHOD_TEXT_USERS):
            yield f"{path}:{number}: methods are values here; METHOD_TEXT_USERS may use their text"
        if path.parts[0] == "ringlet":
            if QUOTED.match(code):
                yield f"{path}:{number}: write the include from the root: \"ringlet/...\""
            if FORBIDDEN.search(code):
                yield f"{path}:{number}: library code throws Error; it never prints, exits or asserts"
            if speaks_command_line(path, code):
                yield f"{path}:{number}: name the option as a field between back quotes (core/error.h)"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    files = sorted(path.relative_to(root) for top in ("ringlet", "apps")
                   for path in (root / top).rglob("*") if path.suffix in (".h", ".cpp")
                   if path.stem != "precompiled")
    allowed = layers(root)
    problems = [problem for path in files for problem in offences(root, path, allowed)]
    print("\n".join(problems) if problems else f"includes: {len(files)} files follow the table")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
