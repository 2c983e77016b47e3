#!/usr/bin/env bash
# Gets the real adapter files that tests/real reads, into tests/real/data, and checks their SHA-256.
#
#   scripts/fetch-real.sh            from the public git repositories in which their authors published them
#   scripts/fetch-real.sh FOLDER     copies them from a folder that has them already
#   scripts/fetch-real.sh --list     file, repository, commit, path and licence of each, and stops
#
# None of these files is in a package registry (PyPI, apt): where only those can be reached, as in CI,
# the tests of label "real" are skipped and say so. Files that cannot be had are named, the others are
# kept, and their tests run. The files are for testing formats; see their licences before passing
# them on. They are not part of ringlet and are never committed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$root/tests/real/data

# name | repository | commit | path | licence | sha256
files='
cloneofsimo_analog_svd_rank4.safetensors|cloneofsimo/lora|d84074b3e3496f1cfa8a3f49b8b9972ef463b483|example_loras/analog_svd_rank4.safetensors|Apache-2.0|337293d2de4c0d7c0f155ccb4c1470d9a7da4cb2ed594432a5d11f474461df59
cloneofsimo_lora_disney.safetensors|cloneofsimo/lora|d84074b3e3496f1cfa8a3f49b8b9972ef463b483|example_loras/lora_disney.safetensors|Apache-2.0|cea222b3653ff7eb4ee8b89f70b995bf81d4cbf01111605128c2c9704ae66c19
cloneofsimo_lora_disney_inpainting.safetensors|cloneofsimo/lora|d84074b3e3496f1cfa8a3f49b8b9972ef463b483|example_loras/lora_disney_inpainting.safetensors|Apache-2.0|1c3163b78c4a0eb0e3fed5c75e298c7bef93268685105cd5d678c68347a09839
lycoris_smart_falcon_4_lokr.safetensors|KohakuBlueleaf/LyCORIS|3e64b457e63733183b9557a214a91397bbe4d40d|result/smart_falcon_4_lokr.safetensors|Apache-2.0|86c94ad35cf53921f26c7888f018324753813189f5baf504aff03f31c5bbf734
lycoris_smart_falcon_8_lokr.safetensors|KohakuBlueleaf/LyCORIS|3e64b457e63733183b9557a214a91397bbe4d40d|result/smart_falcon_8_lokr.safetensors|Apache-2.0|a2a6168e313e3c3a9cebd14e9a980e52c61878d2cd1f3625f1550f0abc12a5a8
lycoris_smart_falcon_16_lokr.safetensors|KohakuBlueleaf/LyCORIS|3e64b457e63733183b9557a214a91397bbe4d40d|result/smart_falcon_16_lokr.safetensors|Apache-2.0|9acf2739577f652395eae74c9a152395d17aa4a6347bc6edd54da46376db24aa
diffusers_sd21base_whale_r4.safetensors|MaxTGH/genAIwhales|a6f1daf485c390718d48b3186481da44467415a2|Models/SD21BaseLowLR(5e-4)/pytorch_lora_weights.safetensors|CreativeML OpenRAIL-M|edf410b5709191e7bcd255fa30d0cf80aa33464b18a038022971c7a63694b876
catundchat_sd15_r4.safetensors|catundchat/stable-diffusion-v1.5-lora|f8871a36|pytorch_lora_weights.safetensors|MIT|fb286c8e569d6a07401bd5599d3d1a64126c0b240d2d1d00174602a967e59c9b
peft_gpt2_shibbir24/adapter_model.safetensors|shibbir24/Smart-Review-AI|f48d5d12|lora_adapter/adapter_model.safetensors|MIT|56ae2a27b7624b3b0f0db362e7f072e5939af1914786000af021a132df291b1d
peft_gpt2_shibbir24/adapter_config.json|shibbir24/Smart-Review-AI|f48d5d12|lora_adapter/adapter_config.json|MIT|58e2755fb703f483e85d1c527a12de7576400092b9593eb717ae76d4934b583c
sam_vitb_lora_rank2.safetensors|MathieuNlp/Sam_LoRA|788decc0|lora_weights/lora_rank2.safetensors|MIT|db9aaee5d51d0b8eb5c5933f710cff1df6832ed028660c49306a0886790cc451
'

say() { printf 'fetch-real: %s\n' "$*"; }

source_folder=
case ${1:-} in
  --help|-h) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  --list)
    while IFS='|' read -r name repository commit path licence _; do
      if [ -n "$name" ]; then
        printf '%s\n    %s @ %s: %s (%s)\n' "$name" "$repository" "$commit" "$path" "$licence"
      fi
    done <<<"$files"
    exit 0 ;;
  -*) say "error: unknown option '$1'; the options are --list and --help" >&2; exit 2 ;;
  '') ;;
  *)
    source_folder=$1
    if [ ! -d "$source_folder" ]; then
      say "error: $source_folder is no folder" >&2
      exit 2
    fi ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

from_git() {  # from_git REPOSITORY COMMIT PATH FILE
  local clone=$work/${1//\//+}
  if [ ! -d "$clone" ]; then
    GIT_TERMINAL_PROMPT=0 git clone --quiet --bare --filter=blob:none "https://github.com/$1" "$clone" ||
      return 1
  fi
  git -C "$clone" show "$2:$3" >"$4"
}

missing=0
while IFS='|' read -r name repository commit path _ sum; do
  [ -n "$name" ] || continue
  file=$target/$name
  if [ -f "$file" ] && [ "$(sha256sum <"$file" | cut -d' ' -f1)" = "$sum" ]; then
    say "$name is there"
    continue
  fi
  got=$work/file
  if [ -n "$source_folder" ]; then
    cp -- "$source_folder/$name" "$got" 2>/dev/null || rm -f "$got"
  else
    from_git "$repository" "$commit" "$path" "$got" 2>/dev/null || rm -f "$got"
  fi
  if [ ! -f "$got" ]; then
    say "$name cannot be had from ${source_folder:-$repository}"
    missing=1
  elif [ "$(sha256sum <"$got" | cut -d' ' -f1)" != "$sum" ]; then
    say "$name of ${source_folder:-$repository} is another file than the one that was tried (SHA-256)"
    missing=1
  else
    mkdir -p "$(dirname "$file")"
    mv "$got" "$file"
    say "$name"
  fi
done <<<"$files"
if [ "$missing" = 1 ]; then
  say "some files are missing; their tests will be skipped" >&2
  exit 1
fi
