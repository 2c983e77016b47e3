#!/usr/bin/env python3
"""Checks the direction of includes and what library code may not do.

    scripts/check_includes.py [ROOT]

Each folder may include headers of itself and of the folders in ALLOWED (docs/architecture.md shows
the same table as a picture). Library code under ringlet/ may not print, exit, abort or assert: it
throws ringlet::Error. Nor does it speak command line: a literal names an option as a field between
back quotes (core/error.h), never with dashes. Exits 1 with one line per offence.
"""
import pathlib
import re
import sys

ALLOWED = {
    "core": set(),
    "io": {"core"},
    "diffusion": {"core"},
    "nn": {"core", "io"},
    "models": {"core", "io", "nn"},
    "adapt": {"core", "io", "nn"},
    "formats": {"core", "io", "nn", "adapt", "diffusion"},
    "pipeline": {"core", "io", "nn", "adapt", "models", "diffusion", "formats"},
    "data": {"core", "io"},
    "train": {"core", "io", "nn", "adapt", "models", "diffusion", "data", "pipeline"},
    "eval": {"core", "io", "nn", "adapt", "models", "diffusion", "formats", "data", "pipeline"},
    "tune": {"core", "io", "nn", "adapt", "models", "data", "train", "eval", "pipeline"},
    "service": {"core", "io", "nn", "adapt", "models", "diffusion", "formats", "data", "pipeline", "train", "eval", "tune"},
    "apps": {"service", "tune", "eval", "adapt", "data", "train", "core", "io", "nn", "models", "diffusion", "formats", "pipeline"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s+"ringlet/([a-z_]+)/')
QUOTED = re.compile(r'^\s*#\s*include\s+"(?!ringlet/)([^"]+)"')
FORBIDDEN = re.compile(r"\bstd::(cout|cerr|clog|exit|abort|terminate|quick_exit)\b"
                       r"|(?<![\w:])(printf|fprintf|puts|exit|abort|assert)\s*\(")

OPTION = re.compile(r"--[A-Za-z]")
LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"')
# Text about another program's options, and a file whose lines are another language.
OTHERS = re.compile(r"scripts/bootstrap\.sh --cuda")
OTHER_LANGUAGES = {"ringlet/io/html.cpp"}  # custom properties of CSS
COMMAND_LINES = {"ringlet/eval/recipe.cpp"}  # the commands by which a comparison makes its cells


def speaks_command_line(path, code):
    if str(path) in OTHER_LANGUAGES | COMMAND_LINES:
        return False
    return any(OPTION.search(OTHERS.sub("", text)) for text in LITERAL.findall(code))


def folder_of(path):
    return path.parts[1] if path.parts[0] == "ringlet" else path.parts[0]


def offences(root, path):
    here = folder_of(path)
    if here not in ALLOWED:
        yield f"{path}:1: folder \"{here}\" is not in the table of scripts/check_includes.py"
        return
    for number, line in enumerate((root / path).read_text().splitlines(), 1):
        code = line.split("//")[0]
        target = INCLUDE.match(code)
        if target and target[1] != here and target[1] not in ALLOWED[here]:
            yield f"{path}:{number}: {here} may not include {target[1]}"
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
                   if path.name != "precompiled.h")
    problems = [problem for path in files for problem in offences(root, path)]
    print("\n".join(problems) if problems else f"includes: {len(files)} files follow the table")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
