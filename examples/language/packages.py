"""Records of Debian packages from the package lists of this machine (apt-get update fetches them)."""
import pathlib
import re
import subprocess


def records():
    """One dictionary per package, by name, with continued lines joined."""
    text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    found = {}
    for block in text.split("\n\n"):
        fields = {}
        for line in block.splitlines():
            if line[:1].isspace():
                if fields:
                    fields[key] += " " + line.strip()
            elif ": " in line:
                key, value = line.split(": ", 1)
                fields[key] = value
        if "Package" in fields:
            fields["Section"] = fields.get("Section", "").split("/")[-1]
            found.setdefault(fields["Package"], fields)
    if not found:
        raise SystemExit("there are no package lists: run apt-get update first")
    return [found[name] for name in sorted(found)]


def every(items, count):
    """`count` of the items, evenly spread."""
    step = max(1, len(items) // count)
    return items[::step][:count]


def dependencies(record):
    names = []
    for part in record.get("Depends", "").split(","):
        match = re.match(r"\s*([a-z0-9][a-z0-9.+-]*)", part)
        if match and match[1] not in names:
            names.append(match[1])
    return names


def licences():
    """Licences and copyright files: legal English."""
    files = sorted(pathlib.Path("/usr/share/common-licenses").glob("*"))
    files += sorted(pathlib.Path("/usr/share/doc").glob("*/copyright"))
    seen, texts = set(), []
    for file in files:
        text = file.read_text(errors="ignore")
        if text not in seen:
            seen.add(text)
            texts.append(text)
    return texts
