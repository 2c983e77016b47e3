#!/usr/bin/env bash
# From a fresh clone to a model that has learnt a new subject: installs, builds, trains an adapter on
# five pictures with the starter model of this repository, generates with it, merges it.
#
#   scripts/quickstart.sh [--model FOLDER] [OUTPUT_FOLDER]
#
# FOLDER is assets/starter, a U-Net, unless given; assets/starter-dit is a transformer. The output goes
# to quickstart/ unless given.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
model=$root/assets/starter
while [ $# -gt 0 ]; do
  case $1 in
    --help|-h) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --model) model=${2:?quickstart: error: --model needs a folder}; shift ;;
    -*) echo "quickstart: error: unknown option '$1'; see --help" >&2; exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
[ -f "$model/model_index.json" ] || { echo "quickstart: error: $model is not a model folder" >&2; exit 2; }
out=${out:-$root/quickstart}
ringlet=$root/build/release/bin/ringlet
subject="sks robot"

"$root/scripts/bootstrap.sh"
cmake -S "$root" --preset release
cmake --build "$root/build/release" --target ringlet_cli
"$ringlet" doctor

# A finished run is made anew; an unfinished one goes on.
run=$out/robot
[ ! -f "$run/adapter.safetensors" ] || rm -r "$run"
resume=(); [ ! -d "$run/checkpoints" ] || resume=(--resume)
[ ${#resume[@]} -gt 0 ] || rm -rf "$run"

"$ringlet" train --model "$model" --instance-images "$root/examples/quickstart/robot" \
  --method "trm(rank=2)+tr(rank=6)" --targets attention+ff \
  --steps 450 --batch-size 4 --learning-rate 1e-3 --learning-rate-schedule cosine --warmup-steps 20 \
  --checkpoint-every 150 --seed 1 --sample-steps 25 --sample-guidance 4 --sample-images 2 \
  --sample-prompt "$subject" --sample-prompt "$subject on red background" --sample-prompt "$subject on yellow background" \
  --sample-prompt "$subject with crown" --sample-prompt "$subject and red heart" \
  --out "$run" "${resume[@]}"

adapter=$run/adapter.safetensors
"$ringlet" generate --model "$model" --adapter "$adapter" --prompt "$subject on green background" \
  --guidance 4 --steps 25 --images 4 --seed 7 --grid --out "$out/with-adapter.png"
rm -rf "$out/merged"
"$ringlet" merge --model "$model" --adapter "$adapter" --out "$out/merged"
"$ringlet" generate --model "$out/merged" --prompt "$subject on green background" \
  --guidance 4 --steps 25 --images 4 --seed 7 --grid --out "$out/merged.png"

cat <<TEXT

Done. The model has learnt "$subject" through an adapter of $(($(stat -c %s "$adapter") / 1024)) KB:

  before and after   $run/report.html  (also $run/samples/)
  with the adapter   $out/with-adapter.png
  merged             $out/merged.png   (the same pictures, from $out/merged)

Your own: put 4 to 6 photos into a folder and give --model a Stable Diffusion or FLUX.1 checkpoint:

  $ringlet train --model MODEL --instance-images photos --instance-prompt "a photo of sks dog" --out runs/dog
TEXT
