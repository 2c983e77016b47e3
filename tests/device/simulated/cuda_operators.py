#!/usr/bin/env python3
"""The operators of LibTorch that have a CUDA kernel, as rows of a C++ table.

    cuda_operators.py native_functions.yaml OUT

A row is {"name.overload", strict}: a strict operator checks that all its tensors are on one device,
those without dimensions included. The file is read without a YAML library, since a build needs none
otherwise: one entry per "- func:" line, with its dispatch keys indented below "dispatch:".
"""
import pathlib
import re
import sys

ENTRY = re.compile(r"^- func: ([\w.]+)\(")
DISPATCH = re.compile(r"^    ([\w, ]+): ")


def entries(text):
    """{name.overload: (dispatch keys, delegate or None, strict)}"""
    found, name = {}, None
    for line in text.splitlines():
        if entry := ENTRY.match(line):
            name = entry[1]
            found[name] = [set(), None, True]
        elif name is None or line.lstrip().startswith("#"):
            continue
        elif line.startswith("  structured_delegate:"):
            found[name][1] = line.split(":", 1)[1].split("#")[0].strip()
        elif line.startswith("  device_check:") and "NoCheck" in line.split("#")[0]:
            found[name][2] = False
        elif line.startswith("  ufunc_inner_loop:"):
            found[name][0].add("CUDA")  # generated for both kinds of device
        elif keys := DISPATCH.match(line):
            found[name][0].update(key.strip() for key in keys[1].split(","))
    return found


def main():
    known = entries(pathlib.Path(sys.argv[1]).read_text())

    def on_cuda(name):
        keys, delegate, _ = known[name]
        return "CUDA" in keys or (delegate is not None and on_cuda(delegate))

    rows = [
        '{"%s", %s},' % (name if "." in name else name + ".", "true" if known[name][2] else "false")
        for name in known
        if on_cuda(name)
    ]
    if len(rows) < 1000:
        sys.exit(f"{sys.argv[1]}: only {len(rows)} operators with a CUDA kernel: is its layout another one?")
    pathlib.Path(sys.argv[2]).write_text("\n".join(rows) + "\n")


main()
