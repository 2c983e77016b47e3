#!/usr/bin/env bash
# Runs clang-tidy on source files, with the flags of the release build that Clang understands.
#
#   scripts/tidy.sh FILE...     for example scripts/tidy.sh ringlet/adapt/*.cpp
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:---help} in
  --help|-h) sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
database=$root/build/release/compile_commands.json
command -v clang-tidy >/dev/null || { echo "tidy: error: clang-tidy is not installed" >&2; exit 1; }
[ -f "$database" ] || { echo "tidy: error: build the release preset first" >&2; exit 1; }

# GCC's precompiled header and its warning names mean nothing to Clang.
mkdir -p "$root/build/tidy"
sed -E -e 's/-include [^ ]*cmake_pch\.hxx/-include ringlet\/precompiled.h/g' \
  -e 's/-Winvalid-pch//g; s/-Wno-(stringop-overflow|restrict|array-bounds)//g' \
  "$database" >"$root/build/tidy/compile_commands.json"
exec clang-tidy -p "$root/build/tidy" --quiet "$@"
