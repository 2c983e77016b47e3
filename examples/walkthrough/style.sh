#!/usr/bin/env bash
# Teaches the starter model to draw with white lines on black: the pictures to learn from are edges of
# its own pictures.
#   examples/walkthrough/style.sh OUT        STEPS=400 shortens or lengthens the training
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${1:?usage: style.sh OUT}
ringlet=${RINGLET:-$root/build/release/bin/ringlet}
steps=${STEPS:-400}

mkdir -p "$out"
names=("dog face" "cat face" "house" "car" "tree" "fish" "bird" "apple")
printf '%s\n' "${names[@]}" >"$out/prompts.txt"
"$ringlet" generate --model "$root/assets/starter" --prompts "$out/prompts.txt" --steps 20 --guidance 4 --seed 1 --out "$out/plain"
"$ringlet" control make --kind canny --canny-low 60 --canny-high 120 --images "$out/plain" --out "$out/lines"
number=0
for picture in "$out"/lines/*.png; do
  echo "${names[number]} chalk style" >"${picture%.png}.txt"
  number=$((number + 1))
done
"$ringlet" train --model "$root/assets/starter" --instance-images "$out/lines" --method "trm(rank=2)+lora(rank=4)" \
  --targets attention+ff --steps "$steps" --batch-size 4 --learning-rate 2e-3 --seed 1 --sample-steps 20 --sample-guidance 4 --sample-images 1 \
  --sample-prompt "rocket chalk style" --sample-prompt "penguin chalk style" --sample-prompt "penguin" --out "$out/run"
for strength in 0 0.5 1; do
  "$ringlet" generate --model "$root/assets/starter" --adapter "$out/run/adapter.safetensors:$strength" \
    --prompt "penguin chalk style" --steps 20 --guidance 4 --seed 3 --out "$out/penguin-$strength.png"
done
