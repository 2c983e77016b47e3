#!/usr/bin/env bash
# Makes the small transformer of assets/starter-dit: Stable Diffusion 3's architecture around the
# starter model's autoencoder and text encoder, trained by rectified flow on the starter's pictures.
# Takes hours of one core; it goes on where it was stopped.
#
#   examples/starter-dit/train.sh WORK_FOLDER [STEPS]
#
# The result is WORK_FOLDER/train/model in fp16, a folder that ringlet and diffusers read. In
# assets/starter-dit a link stands for the second text encoder, which equals the first.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
ringlet=${RINGLET:-$root/build/release/bin/ringlet}
work=${1:?usage: train.sh WORK_FOLDER [STEPS]}
steps=${2:-9000}
mkdir -p "$work"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

for package in fonts-noto-color-emoji unicode-cldr-core unicode-data; do
  dpkg-query -W "$package" >/dev/null || { echo "install $package first (apt-get install $package)" >&2; exit 1; }
done
[ -x "$ringlet" ] || { echo "build first: cmake --preset release && cmake --build --preset release" >&2; exit 1; }
[ -d "$work/venv" ] || {
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q -r "$root/examples/starter/requirements.txt" -r "$here/requirements.txt"
}

# 1. The starter's pictures, and a transformer with random weights.
[ -d "$work/data/init" ] || "$work/venv/bin/python" "$root/examples/starter/render.py" "$work/data" --concepts 430
[ -d "$work/base" ] || "$work/venv/bin/python" "$here/init_folder.py" "$root/assets/starter" "$work/base"

# 2. The transformer alone learns; text and pictures are encoded once.
[ -f "$work/train/model/model_index.json" ] ||
  "$ringlet" train --model "$work/base" --method full --instance-images "$work/data/pictures" --seed 1 \
    --steps "$steps" --batch-size 16 --learning-rate 1e-3 --learning-rate-schedule cosine --warmup-steps 200 \
    --betas 0.9,0.99 --weight-decay 0.01 --ema 0.995 --caption-dropout 0.1 \
    --checkpoint-every 500 --sample-every 2000 --sample-images 2 --sample-steps 25 --sample-guidance 4 \
    --sample-prompt "dog" --sample-prompt "red apple" --sample-prompt "house" --sample-prompt "car" \
    --sample-prompt "pizza" --sample-prompt "red circle" --sample-prompt "cat on blue background" \
    --sample-prompt "rocket" --save-precision fp16 --out "$work/train" --resume
echo "$work/train/model"
