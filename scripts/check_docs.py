#!/usr/bin/env python3
"""Checks the words of the repository: its Markdown files, and the texts that the program shows.

    scripts/check_docs.py [ROOT]

- Prose, list items and headings have at most 100 columns. Tables, code and lines that consist of one
  word (an address, an image) may be longer.
- Relative links lead to files that exist, and their anchors to headings.
- No sentence of prose has more than 30 words. A code span counts as one word, and what stands in
  brackets is not counted.
- Words that the field does not use are refused (BANNED, with what to write instead).
- The tables of docs/performance.md are those of bench/results (bench/render.py).
- Both rules on words also hold for the string literals of ringlet/ and apps/: messages, help, pages.

Exits 1 with one line per offence.
"""
import pathlib
import re
import subprocess
import sys

COLUMNS = 100
WORDS = 30

BANNED = {
    r"mend(s|ed|ing)?": "fix",
    r"go(es)? on(?! to)|went on|going on": "resume, continue",
    r"pass(ed|es)? over": "skip, ignore",
    r"one's own|of its own kind": "custom, your own, separate",
    r"bears": "has, is for",
    r"whose": "split the sentence",
    r"anew": "again",
    r"what is left out": "what is skipped",
    r"put to use": "used",
    r"a word of": "an option of",
    r"for granted": "needed",
    r"turned round": "rotated",
    r"(?<!there )is no (?!longer|more)\w+": "is not a",
    r"are no (?:text|part|model|v model)s?": "are not",
    r"not known here": "unsupported",
    r"types? (?:that are|of a type that is) not read": "unsupported types",
    r"belongs? to nothing": "is not in the model",
    r"do(?:es)? not compare(?=[.,;:)])": "is not comparable",
    r"made otherwise": "made with other settings",
    r"breaks off": "ends",
    r"cannot be made": "cannot be created",
    r"wants": "needs",
    r"(?:is|are) said to": "name who says it",
    r"(?:is|are) to be": "should be, will be",
    r"take (?:it|them|the other) (?:out|away)": "remove",
    r"go(?:es)? along": "is kept, correlates",
    r"learns? as (?:it is|they are)": "is trained in full",
    r"without a word": "silently",
    r"flatters": "favours",
    r"of so many": "of N",
    r"asks? for what": "name it",
    r"what it said": "its output",
    r"which one is meant": "keep one and remove the other",
}
BANNED_RE = re.compile(r"\b(" + "|".join(f"(?:{word})" for word in BANNED) + r")\b", re.I)

FENCE = re.compile(r"^\s*(```|~~~)")
ITEM = re.compile(r"^(\s*)([-*+]|\d+[.)])\s+")
HEADING = re.compile(r"^#{1,6}\s+")
LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
CODE = re.compile(r"(`+)(.+?)\1", re.S)
SENTENCE_END = re.compile(r"(?<=[.!?])[)\"*_]*\s+(?=[\"(*_\[]*[A-Z0-9Σ‖…])")
ABBREVIATION = re.compile(r"\b(et al|eq|e\.g|i\.e|cf|vs)\.")


def blocks(text):
    """(first line, kind, lines) of each block: heading, prose, item, table or code."""
    kind, first, lines, fenced, in_list = None, 0, [], False, False
    for number, line in enumerate(text.split("\n"), 1):
        blank = not line.strip()
        if FENCE.match(line) or fenced:
            now = "code"
            fenced = fenced != bool(FENCE.match(line))
        elif blank:
            now = "code" if kind == "code" and not in_list else None
        elif line.lstrip().startswith("|"):
            now = "table"
        elif HEADING.match(line):
            now, in_list = "heading", False
        elif ITEM.match(line):
            now, in_list = "item", True
        elif kind in ("prose", "item"):
            now = kind
        elif line.startswith("      " if in_list else "    "):
            now = "code"
        else:
            now, in_list = "prose", in_list and line.startswith(" ")
        if now != kind or now == "heading" or (now == "item" and ITEM.match(line)):
            if lines and kind:
                yield first, kind, lines
            kind, first, lines = now, number, []
        lines.append(line)
    if lines and kind:
        yield first, kind, lines


def anchors(path):
    """The anchors that GitHub gives a file's headings."""
    found = {}
    for _, kind, lines in blocks(path.read_text(encoding="utf-8")):
        if kind != "heading":
            continue
        title = LINK.sub(lambda link: link[2], HEADING.sub("", lines[0])).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        found[name if name not in found else f"{name}-{found[name]}"] = 1
        found[name] = found.get(name, 0) + 1
    return found


def plain(text):
    """Prose without code, link targets and what stands in brackets."""
    text = CODE.sub("Code", text)
    text = LINK.sub(lambda link: link[2], text)
    text = re.sub(r" \([^()]*(\([^()]*\)[^()]*)*\)", "", text)
    return ABBREVIATION.sub(lambda found: found[0][:-1], text)


def sentences(text):
    return [part.strip() for part in SENTENCE_END.split(plain(" ".join(text.split()))) if part.strip()]


def banned_in(text):
    """(what is found, what to write instead) of the first banned word; None where there is none.
    Patterns may look at what stands around a word, so they are tried where it was found."""
    found = BANNED_RE.search(text)
    if not found:
        return None
    word = next(word for word in BANNED
                if re.compile(rf"(?:{word})\b", re.I).match(text, found.start()))
    return found[0], BANNED[word]


def check_links(root, path, text):
    for number, line in enumerate(text.split("\n"), 1):
        for _, _, target in LINK.findall(CODE.sub("", line)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            there = (path.parent / name).resolve() if name else path
            if not there.exists():
                yield number, f"link to {target}: there is no such file"
            elif anchor and there.suffix == ".md" and anchor not in anchors(there):
                yield number, f"link to {target}: there is no such heading"


def check_block(first, kind, lines):
    if kind == "code":
        return
    for number, line in enumerate(lines, first):
        if kind != "table" and len(line) > COLUMNS and len(line.split()) > 1:
            yield number, f"{len(line)} columns"
        if found := banned_in(CODE.sub("code", line)):
            yield number, f'"{found[0]}": write {found[1]}'
    if kind in ("prose", "item"):
        for sentence in sentences(ITEM.sub("", "\n".join(lines), count=1)):
            count = len([word for word in sentence.split() if re.search(r"\w", word)])
            if count > WORDS:
                yield first, f"a sentence of {count} words: {sentence[:70]}…"


GENERATED = {"docs/cli.md"}  # by `ringlet help --markdown`, which a test compares


def check(root, path):
    text = path.read_text(encoding="utf-8")
    yield from check_links(root, path, text)
    if path.relative_to(root).as_posix() in GENERATED:
        return
    for block in blocks(text):
        yield from check_block(*block)


LITERAL = re.compile(r"""//[^\n]*|/\*.*?\*/|'(?:[^'\\\n]|\\.)+'|"""
                     r"""R"(\w*)\((?P<raw>.*?)\)\1"|"(?P<text>(?:[^"\\\n]|\\.)*)\"""", re.S)
JOINED = re.compile(r"\s*(?:\+[^;{}]{1,70}\+\s*)?", re.S)


def messages(text):
    """(line, message) of the string literals of a C++ source: those that follow each other, or are
    joined by `+ value +`, are one message, with "Code" for the value."""
    first, message, end = 0, None, 0
    for found in LITERAL.finditer(text):
        part = found["text"]
        if part is None:
            continue
        gap = text[end:found.start()]
        if message is not None and JOINED.fullmatch(gap):
            message += ("Code" if gap.strip() else "") + part
        else:
            if message is not None:
                yield first, message
            first, message = text.count("\n", 0, found.start()) + 1, part
        end = found.end()
    if message is not None:
        yield first, message


def check_source(text):
    for first, message in messages(text):
        found = banned_in(CODE.sub("code", message))
        if found and " " in message and found[0].lower() != "whose":
            yield first, f'"{found[0]}": write {found[1]}'
        for line in message.split("\\n"):
            for sentence in re.split(r"(?<=[.!?:;])\s+", plain(line)):
                count = len([word for word in sentence.split() if re.search(r"\w", word)])
                if count > WORDS:
                    yield first, f"a sentence of {count} words: {sentence[:70]}…"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    names = subprocess.run(["git", "ls-files", "*.md", "ringlet", "apps"], cwd=root, check=True,
                           text=True, stdout=subprocess.PIPE).stdout.split("\n")
    files = [root / name for name in names if name.endswith(".md") and (root / name).exists()]
    offences = 0
    for path in files:
        for number, what in sorted(check(root, path)):
            print(f"{path.relative_to(root)}:{number}: {what}")
            offences += 1
    sources = [root / name for name in names if name.endswith((".cpp", ".h")) and (root / name).exists()]
    for path in sources:
        for number, what in check_source(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(root)}:{number}: {what}")
            offences += 1
    tables = subprocess.run([sys.executable, "bench/render.py", "--check"], cwd=root, text=True,
                            stderr=subprocess.PIPE)
    if tables.returncode != 0:
        print(tables.stderr.strip())
        offences += 1
    if offences:
        return 1
    print(f"documents: {len(files)} files and the texts of {len(sources)} sources as they should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
