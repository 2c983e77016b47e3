#!/usr/bin/env python3
"""Checks that no file has more than 500 lines and no function more than 60.

    scripts/check_sizes.py [ROOT]

What may be longer stands in LONGER, with the reason. An exception that is not needed any more is an
offence, too. Exits 1 with one line per offence.
"""
import pathlib
import re
import sys

FILE_LINES = 500
FUNCTION_LINES = 60
FOLDERS = ("ringlet", "apps", "tests", "bench", "examples", "fuzz")

# Tables of test cases read better in one piece.
LONGER = {
    "tests/fault/damaged_adapter_cases.cpp low_rank_cases",
    "tests/fault/damaged_adapter_cases.cpp lycoris_cases",
    "tests/fault/damaged_peft_cases.cpp peft_cases",
    "tests/fault/damaged_peft_cases.cpp own_cases",
    "tests/fault/wrong_adapters_test.cpp cases",
}

NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', re.S)
DIRECTIVE = re.compile(r"^[ \t]*#.*$", re.M)
SCOPE = re.compile(r"\b(namespace|struct|class|union|enum)\b[^()=;]*$")
FUNCTION = re.compile(r"\)\s*(const|noexcept|override|final|mutable|->[^{}]*|:[^{}]*)*\s*$")
NAME = re.compile(r"(\w+)\s*\(")


def functions(text):
    """(name, first line, lines) of each function body that stands in a namespace or a class."""
    code = NOT_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    code = DIRECTIVE.sub("", code)
    scopes, head, first, line = [], "", 1, 1
    for letter in code:
        if letter == "\n":
            line += 1
        if letter == "{":
            outer = all(kind == "scope" for kind, _, _ in scopes)
            kind = "body"
            if SCOPE.search(head.strip()):
                kind = "scope"
            elif outer and FUNCTION.search(head.strip()):
                kind = "function"
            scopes.append((kind, first if head.strip() else line, head))
            head = ""
        elif letter == "}":
            kind, start, what = scopes.pop() if scopes else ("body", line, "")
            if kind == "function":
                name = NAME.search(what)
                yield name[1] if name else "operator", start, line - start + 1
            head = ""
        elif letter == ";":
            head = ""
        else:
            if not head.strip() and not letter.isspace():
                first = line
            head += letter


def too_long(root):
    """(key in LONGER, message) of all that is longer than the rule says."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".h", ".cpp"):
                continue
            text, name = path.read_text(), str(path.relative_to(root))
            if text.count("\n") > FILE_LINES:
                yield name, f"{name}:1: {text.count(chr(10))} lines, and {FILE_LINES} are allowed"
            for function, line, length in functions(text):
                if length > FUNCTION_LINES:
                    yield (f"{name} {function}",
                           f"{name}:{line}: {function} has {length} lines, and {FUNCTION_LINES} are allowed")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    found = dict(too_long(root))
    problems = [message for key, message in found.items() if key not in LONGER]
    problems += [f"{key}: short enough now; take it out of scripts/check_sizes.py"
                 for key in sorted(LONGER - found.keys())]
    print("\n".join(problems) if problems else
          f"sizes: files up to {FILE_LINES} lines, functions up to {FUNCTION_LINES}, {len(LONGER)} exceptions")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
