#!/usr/bin/env bash
# Makes the starter model of assets/starter from nothing: pictures, autoencoder, text encoder, U-Net.
# Takes hours of one core; every stage goes on where it was stopped.
#
#   examples/starter/train.sh WORK_FOLDER [U-NET_STEPS [SECOND_STEPS [FINAL_STEPS]]]
#
# The result is WORK_FOLDER/unet-final/model in fp16, a folder that ringlet and diffusers read.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
bin=$root/build/release/bin
work=${1:?usage: train.sh WORK_FOLDER [U-NET_STEPS [SECOND_STEPS [FINAL_STEPS]]]}
steps=${2:-3250}
second_steps=${3:-2400}
final_steps=${4:-9000}
mkdir -p "$work"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # small tensors: one thread is nearly as fast as two

for package in fonts-noto-color-emoji unicode-cldr-core unicode-data; do
  dpkg-query -W "$package" >/dev/null || { echo "install $package first (apt-get install $package)" >&2; exit 1; }
done
[ -x "$bin/ringlet_starter_stages" ] || { echo "build first: cmake --preset release && cmake --build --preset release" >&2; exit 1; }

# 1. Pictures: all concepts for the autoencoder, 430 of them for what follows.
if [ ! -d "$work/data/init" ]; then
  [ -d "$work/venv" ] || { python3 -m venv "$work/venv"; "$work/venv/bin/pip" install -q -r "$here/requirements.txt"; }
  "$work/venv/bin/python" "$here/render.py" "$work/data-all"
  "$work/venv/bin/python" "$here/render.py" "$work/data" --concepts 430
fi

# 2. Autoencoder, from random weights.
[ -f "$work/autoencoder/model/model_index.json" ] ||
  "$bin/ringlet_starter_stages" autoencoder "$work/data/init" "$work/data-all/pictures" "$work/autoencoder" 5000

# 3. Text encoder: captions learn to find their pictures' latents.
if [ ! -f "$work/text/model/model_index.json" ]; then
  rm -rf "$work/base"
  cp -r "$work/data/init" "$work/base"
  cp "$work"/autoencoder/model/vae/* "$work/base/vae/"
  "$bin/ringlet_starter_stages" text "$work/base" "$work/data/pictures" "$work/text" 1000
fi
cp "$work/text/model/text_encoder/model.safetensors" "$work/base/text_encoder/"

# 4. U-Net from random weights, together with the text encoder; then twice more with a rate that falls to zero.
train_unet() {  # train_unet OUT SEED STEPS MODEL_OPTION MODEL ...
  local out=$1 seed=$2 steps=$3
  shift 3
  [ ! -f "$out/model/model_index.json" ] || return 0
  "$bin/ringlet" train "$@" --method full --train-text-encoder --instance-images "$work/data/pictures" --seed "$seed" \
    --steps "$steps" --batch-size 16 --learning-rate 6e-4 --betas 0.9,0.99 --weight-decay 0.01 \
    --min-snr-gamma 5 --caption-dropout 0.1 --checkpoint-every 250 \
    --sample-every 1000 --sample-images 2 --sample-steps 25 --sample-guidance 4 \
    --sample-prompt "dog" --sample-prompt "red apple" --sample-prompt "house" --sample-prompt "car" \
    --sample-prompt "pizza" --sample-prompt "red circle" --sample-prompt "cat on blue background" --sample-prompt "rocket" \
    --save-precision fp16 --out "$out" --resume
}
train_unet "$work/unet" 1 "$steps" --init "$work/base" --warmup-steps 200 --ema 0.999
train_unet "$work/unet-second" 2 "$second_steps" --model "$work/unet/model" --warmup-steps 100 --ema 0.995 \
  --learning-rate-schedule cosine
train_unet "$work/unet-final" 3 "$final_steps" --model "$work/unet-second/model" --warmup-steps 100 --ema 0.995 \
  --learning-rate-schedule cosine
echo "$work/unet-final/model"

# 5. The network that measures its pictures: assets/starter-features.
[ -f "$work/features/features/config.json" ] ||
  "$bin/ringlet_starter_stages" features "$work/unet-final/model" "$work/data/pictures" "$work/features" 5000
echo "$work/features/features"
