#!/usr/bin/env bash
# Teaches the starter model a robot from five pictures, and measures how well it has learnt it.
#   examples/walkthrough/subject.sh OUT      STEPS=450 shortens or lengthens the training
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${1:?usage: subject.sh OUT}
ringlet=${RINGLET:-$root/build/release/bin/ringlet}
steps=${STEPS:-450}

"$ringlet" train --model "$root/assets/starter" --instance-images "$root/examples/quickstart/robot" \
  --method "trm(rank=2)+tr(rank=6)" --targets attention+ff --steps "$steps" --batch-size 4 --learning-rate 1e-3 \
  --learning-rate-schedule cosine --warmup-steps 20 --seed 1 --sample-steps 20 --sample-guidance 4 --out "$out/run"
"$ringlet" eval subject --model "$root/assets/starter" --adapter "$out/run/adapter.safetensors" \
  --prompts "$root/examples/walkthrough/prompts.txt" --subject "sks robot" --token sks --samples 2 --steps 20 --guidance 4 \
  --dino "$root/assets/starter-features" --clip "$root/assets/starter-features" \
  --generated "$out/made" --reference "$root/examples/quickstart/robot" --result "$out/subject.json" --html "$out/subject.html"
