#!/usr/bin/env python3
"""Compares ringlet's safetensors reader with the Python package on mutated files and the corpus.

    fuzz/differential.py --check build/fuzz/bin/check_safetensors [--files 20000] [--seed 1]
                         [--markdown FILE]

Needs the package safetensors (0.8.0 is what the result in differential-result.md was made with).
Both must agree on acceptance and, where both accept, on names, dtypes, shapes, bytes and metadata.
Allowed differences are the cases in STRICTER. Exit status 1: there is another difference.
"""
import argparse
import collections
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

import safetensors

import make_corpus

# What ringlet refuses and the package accepts: name, ringlet's message, reason.
STRICTER = [
    ("duplicate key", r"appears twice",
     "the specification disallows duplicate keys; the package keeps the last one, other readers the "
     "first, so that two programs would see two different models"),
    ("tensor written as a list", r"its entry is not an object",
     "`[\"F32\",[2],[0,8]]` in place of the entry object is no part of the format; the package's "
     "deserializer takes it as a by-product"),
    ("dtype written as an object", r"dtype an object is not known",
     "`{\"F32\":null}` in place of the name is no part of the format; a by-product, too"),
    ("nesting", r"is nested more than 64 deep",
     "only unknown fields can nest, and nothing writes them 64 deep; the package stops at 128"),
    ("more than 64 dimensions", r"more than 64 dimensions",
     "LibTorch has no use for such tensors, and the bound keeps memory small"),
    ("shape over 63 bits", r"its shape is too large to be real",
     "extents are signed 64-bit numbers in LibTorch, and the size in bits must fit 64 bits even when "
     "another extent is 0"),
]
NAMES = ['"a"', '"b"', '"\\u0061"', '""', '"__metadata__"', '"../x"', '"line\\nbreak"', '"\\u0000"',
         '"\\ud83d\\ude00"', '"\\ud800"', '"\u20ac"', '"a\nb"', "'a'", "a", "1"]
DTYPES = ['"%s"' % name for name in make_corpus.BITS]
BAD_DTYPES = ['"f32"', '"F33"', '"F128"', '""', "32", "null", '["F32"]', '{"F32":null}', '{"F32":1}']
NUMBERS = ["0", "1", "2", "3", "7", "8", "64", "-1", "-0", "1.5", "2.0", "1e0", "1e20", "02", "+1",
           "true", "null", '"2"', "[1]", "4294967296", "2305843009213693952", "4611686018427387904",
           "9223372036854775807", "9223372036854775808", "18446744073709551614",
           "18446744073709551615", "18446744073709551616"]
VALUES = ["null", "true", '"text"', "[]", "{}", "[[1]]", "[0,4]", "[4]", "[0,4,8]", "1e999", "NaN",
          '{"dtype":"F32"}', '["F32",[2],[0,8]]', "[", "", "[1,]", '{"k":1}', '{"k":"v"}',
          '{"k":"v","k":"w"}', '{"k":null}', "-", "0x1", '"\\x"', '{"x":{"y":[1,-2.5e3]}}']
KEYS = ['"dtype"', '"shape"', '"data_offsets"', '"extra"', '"\\u0073hape"', '"DTYPE"']
NOISE = [" ", "\t", "\n", "\r\n", "\x00", "\ufeff", "x", ",", "{}", "/**/", "\u00a0", "\x0b"]


class Document:
    """A file as text pieces, so that a mutant need not be valid JSON."""

    def __init__(self, rng):
        self.rng = rng
        self.before, self.after = "", ""
        self.length_change = 0
        self.entries = []  # (key, list of (key, value)) or (key, text)
        self.data = b""
        if rng.random() < 0.3:
            self.entries.append(('"__metadata__"', [('"format"', '"pt"'), ('"k"', '"\u20ac"')]))
        for index in range(rng.randrange(5)):
            shape = [rng.randrange(5) for _ in range(rng.randrange(4))]
            self.entries.append(('"t%d"' % index, [('"dtype"', rng.choice(DTYPES)), ('"shape"', shape),
                                                   ('"data_offsets"', [0, 0])]))
        rng.shuffle(self.entries)
        self.lay_out()

    def tensors(self):
        return [fields for _, fields in self.entries
                if isinstance(fields, list) and any(key == '"data_offsets"' for key, _ in fields)]

    def lay_out(self):
        """Gives every tensor the bytes that its dtype and shape ask for, where they ask for some."""
        end = 0
        for fields in self.tensors():
            found = dict(fields)
            bits = make_corpus.BITS.get(str(found.get('"dtype"')).strip('"'), 0)
            shape = found.get('"shape"')
            for extent in shape if isinstance(shape, list) else []:
                bits *= int(extent) if str(extent).isdecimal() and int(extent) < 100 else 0
            size = min((bits + 7) // 8, 4096)
            for place, (key, _) in enumerate(fields):
                if key == '"data_offsets"':
                    fields[place] = (key, [end, end + size])
                    end += size
        self.data = bytes(self.rng.randrange(256) for _ in range(end))

    def write(self):
        def value_text(value):
            return "[%s]" % ",".join(map(str, value)) if isinstance(value, list) else value
        parts = []
        for key, fields in self.entries:
            if isinstance(fields, list):
                fields = "{%s}" % ",".join("%s:%s" % (k, value_text(v)) for k, v in fields)
            parts.append("%s:%s" % (key, fields))
        header = (self.before + "{%s}" % ",".join(parts) + self.after).encode()
        if self.rng.random() < 0.02:
            header = self.damage(header)
        length = (len(header) + self.length_change) % 2**64
        return struct.pack("<Q", length) + header + self.data

    def damage(self, header):
        """Bytes that are no text."""
        place = self.rng.randrange(len(header) + 1)
        bad = self.rng.choice([b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
                               b"\xe2\x82", b"\x00", b"\x1f", bytes([self.rng.randrange(256)])])
        return header[:place] + bad + header[place:]


def change_list(rng, values):
    values = list(values)
    place = rng.randrange(len(values) + 1)
    if place == len(values):
        values.append(rng.choice(NUMBERS))
    elif rng.random() < 0.15:
        del values[place]
    else:
        values[place] = rng.choice(NUMBERS) if rng.random() < 0.5 else rng.randrange(70)
    return values


def change_field(rng, fields):
    if not fields or rng.random() < 0.15:
        deep = "[" * rng.choice([60, 70, 120, 140])
        value = rng.choice(VALUES + [deep + deep.replace("[", "]")])
        fields.insert(rng.randrange(len(fields) + 1), (rng.choice(KEYS), value))
        return
    place = rng.randrange(len(fields))
    key, value = fields[place]
    action = rng.randrange(8)
    if action == 0:
        del fields[place]
    elif action == 1:
        fields.append(fields[place])
    elif action == 2:
        fields[place] = (key, rng.choice(VALUES))
    elif key == '"dtype"':
        fields[place] = (key, rng.choice(DTYPES + BAD_DTYPES))
    elif isinstance(value, list) and rng.random() < 0.03:
        fields[place] = (key, value + [1] * rng.choice([60, 70, 1000]))
    elif isinstance(value, list):
        fields[place] = (key, change_list(rng, value))
    else:
        fields[place] = (rng.choice(NAMES), rng.choice(NAMES + VALUES))


def mutate(rng, document):
    action = rng.randrange(10)
    entries = document.entries
    if action == 0:
        document.data = document.data[:rng.randrange(64)] if rng.random() < 0.5 else \
            document.data + bytes(rng.randrange(40))
    elif action == 1:
        document.length_change = rng.choice([-9, -8, -2, -1, 1, 2, 8, 10**8, 2**63, -2**20])
    elif action == 2:
        if rng.random() < 0.3:
            document.before += rng.choice(NOISE)
        else:
            document.after += rng.choice(NOISE)
    elif action == 3 and entries:
        place = rng.randrange(len(entries))
        entries[place] = (rng.choice(NAMES), entries[place][1])
    elif action == 4 and entries:
        place = rng.randrange(len(entries))
        key, fields = entries[place]
        if rng.random() < 0.3:
            del entries[place]
        elif rng.random() < 0.5:
            entries.append((key, list(fields) if isinstance(fields, list) else fields))
        else:
            entries[place] = (key, rng.choice(VALUES))
    elif action == 5:
        value = rng.choice(NAMES) if rng.random() < 0.7 else rng.choice(VALUES)
        entries.append(('"__metadata__"', [(rng.choice(NAMES), value)]))
    else:
        lists = [fields for _, fields in entries if isinstance(fields, list)]
        if lists:
            change_field(rng, rng.choice(lists))


def make_file(rng):
    document = Document(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3])):
        mutate(rng, document)
    if rng.random() < 0.5:
        document.lay_out()
    return document.write()


def digest(parts):
    value = 0xCBF29CE484222325
    for part in parts:
        for byte in b"%d:%s" % (len(part), part):
            value = ((value ^ byte) * 0x100000001B3) % 2**64
    return "%016x" % value


def read_with_package(path):
    """(digest, None) or (None, message); the package's two entrances must agree."""
    try:
        tensors = safetensors.deserialize(path.read_bytes())
    except BaseException as error:  # a panic of the package is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return None, "%s: %s" % (type(error).__name__, error)
    with safetensors.safe_open(str(path), framework="np") as file:
        metadata = file.metadata() or {}
    parts = []
    for name, tensor in sorted((name.encode(), tensor) for name, tensor in tensors):
        shape = "".join("%d," % extent for extent in tensor["shape"])
        parts += [name, tensor["dtype"].encode(), shape.encode(), bytes(tensor["data"])]
    for key, value in sorted((key.encode(), value.encode()) for key, value in metadata.items()):
        parts += [key, value]
    return digest(parts), None


def known_case(message):
    return next((name for name, pattern, _ in STRICTER if re.search(pattern, message)), None)


def has_duplicate_key(path):
    """Whether a key appears twice; ringlet may report a fault of the first of the two instead."""
    found = []

    def pairs(items):
        found.append(len(dict(items)) < len(items))
        return dict(items)

    image = path.read_bytes()
    json.loads(image[8:8 + struct.unpack("<Q", image[:8])[0]], object_pairs_hook=pairs)
    return any(found)


def compare(paths, lines):
    """Counts of agreement, counts of known differences, and the unknown differences."""
    counts, known, unknown = collections.Counter(), collections.Counter(), []
    for path, line in zip(paths, lines, strict=True):
        verdict, text = line.split(" ", 1)
        theirs, message = read_with_package(path)
        if verdict == "ok" and theirs is not None:
            counts["both accept"] += 1
            if text != theirs:
                unknown.append((path, "the content differs"))
        elif verdict == "error" and theirs is None:
            counts["both refuse"] += 1
        elif verdict == "error":
            counts["only the package accepts"] += 1
            case = known_case(text) or ("duplicate key" if has_duplicate_key(path) else None)
            if case is not None:
                known[case] += 1
            else:
                unknown.append((path, "ringlet alone refuses: " + text))
        else:
            counts["only ringlet accepts"] += 1
            unknown.append((path, "the package alone refuses: " + message))
    return counts, known, unknown


def report(arguments, counts, known, unknown):
    lines = [
        "## Differential test of the safetensors reader", "",
        "%d mutated files (seed %d) and the fuzz corpus, read by ringlet and by the Python package"
        " safetensors %s:" % (arguments.files, arguments.seed, safetensors.__version__), "",
        "    fuzz/differential.py --check build/fuzz/bin/check_safetensors --files %d --seed %d"
        % (arguments.files, arguments.seed), "",
        "| Outcome | Files |", "|---|---:|"]
    for name in ("both accept", "both refuse", "only the package accepts", "only ringlet accepts"):
        lines.append("| %s | %d |" % (name, counts[name]))
    lines += ["| of these, not explained below | %d |" % len(unknown), "",
              "Where both accept, names, dtypes, shapes, bytes and metadata are equal."
              if not any(text == "the content differs" for _, text in unknown)
              else "There are files that both accept and read differently.", "",
              "What ringlet refuses on purpose though the package accepts it:", "",
              "| Case | Files | Reason |", "|---|---:|---|"]
    lines += ["| %s | %d | %s |" % (name, known[name], reason) for name, _, reason in STRICTER]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", required=True, help="the program check_safetensors")
    parser.add_argument("--files", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", help="write the report to this file, too")
    arguments = parser.parse_args()

    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for index in range(arguments.files):
            paths.append(pathlib.Path(folder) / ("%06d" % index))
            paths[-1].write_bytes(make_file(rng))
        for name, content in [*make_corpus.good_files(), *make_corpus.bad_files()]:
            paths.append(pathlib.Path(folder) / name)
            paths[-1].write_bytes(content)
        done = subprocess.run([arguments.check], input="".join("%s\n" % path for path in paths),
                              capture_output=True, text=True, check=True)
        counts, known, unknown = compare(paths, done.stdout.split("\n")[:-1])
        for path, text in unknown[:20]:
            print("UNEXPLAINED %s: %s\n  %r" % (path.name, text, path.read_bytes()[:300]))
    text = report(arguments, counts, known, unknown)
    print(text)
    if arguments.markdown:
        pathlib.Path(arguments.markdown).write_text(text)
    sys.exit(1 if unknown else 0)


if __name__ == "__main__":
    main()
