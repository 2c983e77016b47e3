#!/usr/bin/env bash
# From a fresh clone to pictures: installs, builds, makes a tiny model and generates from it.
#
#   scripts/quickstart.sh [OUTPUT_FOLDER]      default: quickstart/
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in
  --help|-h) sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  -*) echo "quickstart: error: unknown option '$1'; give an output folder or nothing" >&2; exit 2 ;;
esac
out=${1:-$root/quickstart}
ringlet=$root/build/release/bin/ringlet

"$root/scripts/bootstrap.sh"
cmake -S "$root" --preset release
cmake --build "$root/build/release" --target ringlet_cli make_tiny_checkpoint

"$ringlet" doctor
"$root/build/release/bin/ringlet_make_tiny_checkpoint" "$out/tiny-model"
"$ringlet" inspect "$out/tiny-model"
"$ringlet" generate --model "$out/tiny-model" --prompt "a photo of a cat" --images 4 --steps 20 \
  --seed 1 --grid --out "$out/cat.png"

cat <<TEXT

Done. The grid is $out/cat.png, the single pictures are beside it.
The tiny model has random weights, so these pictures are coloured noise: they show that everything
works on this machine. For real pictures give --model a Stable Diffusion 1, 2 or XL checkpoint:

  $ringlet generate --model MODEL --prompt "a photo of a cat" --seed 1 --out cat.png
TEXT
