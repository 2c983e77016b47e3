#!/usr/bin/env bash
# Runs Clang's checks, with a precompiled header of Clang's own (build/clang).
#
#   scripts/tidy.sh FILE...           clang-tidy on whole files, for example ringlet/adapt/*.cpp
#   scripts/tidy.sh --changed [BASE]  clang-tidy on the lines changed since BASE, in at most 12 files, those
#                                     with the most changes; default: where this branch left origin/main,
#                                     or the last merge or commit when it has not
#   scripts/tidy.sh --headers         every header under ringlet/ compiles by itself, without ringlet's
#                                     other headers before it
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
case ${1:---help} in
  --help|-h) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
fail() { printf 'tidy: error: %s\n' "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is not installed; install it: apt-get install clang clang-tidy"; }
most=12
jobs=$(nproc)

need clang++
mkdir -p build
{ cmake --preset clang && cmake --build --preset clang --target ringlet_precompiled; } >build/clang.log 2>&1 ||
  { tail -n 20 build/clang.log >&2; fail "the precompiled header cannot be made; the whole log is in build/clang.log"; }

headers() {
  local flags
  # As a source is compiled, with the folders of all dependencies, less the source and its object.
  flags=$(python3 - <<'PY'
import json, shlex
entries = [shlex.split(entry["command"]) for entry in json.load(open("build/clang/compile_commands.json"))
           if "/ringlet/" in entry["file"] and "cmake_pch" not in entry["file"]]
words = next(words for words in entries if "-include-pch" in words and any(word.startswith("-I") for word in words))
words = words[next(i for i, word in enumerate(words) if word.endswith("clang++")) + 1:words.index("-o")]
for command in entries:
    for option, folder in zip(command, command[1:]):
        if option == "-isystem" and folder not in words:
            words += [option, folder]
print(shlex.join(words))
PY
)
  git ls-files 'ringlet/*.h' | grep -v precompiled.h |
    xargs -P "$jobs" -I{} bash -c "clang++ $flags -fsyntax-only -Wno-pragma-once-outside-header -x c++-header {} || { echo 'tidy: error: {} does not compile by itself' >&2; exit 1; }"
  echo "headers: $(git ls-files 'ringlet/*.h' | grep -vc precompiled.h) compile by themselves"
}

changed() {
  local base=${1:-} differ files=() status=0
  if [ -z "$base" ]; then
    base=$(git merge-base HEAD origin/main 2>/dev/null) || base=$(git rev-parse HEAD)
    [ "$base" != "$(git rev-parse HEAD)" ] || base=$(git rev-parse HEAD^ 2>/dev/null) || { echo "tidy: nothing to compare with"; return; }
  fi
  differ=$(find /usr/share/clang /usr/bin -name 'clang-tidy-diff*.py' 2>/dev/null | head -n 1)
  [ -n "$differ" ] || fail "clang-tidy-diff.py is not there; it comes with clang-tidy"
  mapfile -t files < <(git diff --numstat "$base" -- 'ringlet/*.cpp' 'ringlet/*.h' 'apps/*.cpp' 'apps/*.h' | sort -rn | cut -f3)
  [ ${#files[@]} -gt 0 ] || { echo "tidy: no source has changed since ${base:0:9}"; return; }
  git diff -U0 "$base" -- "${files[@]:0:$most}" |
    python3 "$differ" -p1 -path build/clang -j "$jobs" -quiet -timeout 300 >build/tidy.log 2>&1 || status=$?
  if grep -E '(warning|error): ' build/tidy.log; then fail "clang-tidy has findings; the whole log is in build/tidy.log"; fi
  # No findings count only where every file was looked at to its end. A file without any adds an empty line.
  if grep -E '^(Terminated by timeout|Failed|Traceback|PLEASE submit)|Stack dump' build/tidy.log ||
      [ "$status" -ne 0 ] || [ ! -s build/tidy.log ]; then
    fail "clang-tidy did not finish (status $status); the whole log is in build/tidy.log"
  fi
  echo "tidy: nothing found in the changes since ${base:0:9} to $((${#files[@]} < most ? ${#files[@]} : most)) of ${#files[@]} files"
}

case $1 in
  --headers) headers ;;
  --changed) need clang-tidy; changed "${2:-}" ;;
  *) need clang-tidy; exec clang-tidy -p build/clang --quiet "$@" ;;
esac
