#!/usr/bin/env bash
# Teaches the starter model to follow edges, and measures whether it does.
#   examples/walkthrough/control.sh OUT      STEPS=1000 shortens or lengthens the training
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${1:?usage: control.sh OUT}
ringlet=${RINGLET:-$root/build/release/bin/ringlet}
steps=${STEPS:-1000}
pictures=$root/examples/walkthrough/edges

"$ringlet" train --model "$root/assets/starter" --instance-images "$pictures/train" --control canny --validation-pictures 6 \
  --method "trm(rank=2)+lora(rank=2)" --steps "$steps" --batch-size 8 --learning-rate 1e-3 --min-snr-gamma 5 --seed 1 \
  --sample-every 250 --sample-steps 20 --sample-guidance 3 --out "$out/run"
"$ringlet" control make --kind canny --images "$pictures/test" --out "$out/edges"
first=$(basename "$(ls "$pictures"/test/*.png | head -n 1)" .png)
"$ringlet" generate --model "$root/assets/starter" --adapter "$out/run/adapter.safetensors" \
  --control-image "$out/edges/$first.png" --prompt "$(cat "$pictures/test/$first.txt")" \
  --steps 20 --guidance 3 --seed 1 --images 2 --grid --out "$out/one"
"$ringlet" eval control --kind canny --reference "$pictures/test" --model "$root/assets/starter" \
  --adapter "$out/run/adapter.safetensors" --samples 2 --steps 20 --guidance 3 \
  --generated "$out/made" --result "$out/control.json" --html "$out/control.html"
