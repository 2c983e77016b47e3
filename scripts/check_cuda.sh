#!/usr/bin/env bash
# Compiles ringlet's CUDA kernels with nvcc for two generations of devices, warnings being errors. It
# needs neither a GPU nor LibTorch's CUDA libraries, and says so where nvcc is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null); then
  echo "cuda: nvcc is not here, its kernels were not compiled"
  exit 0
fi
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
count=0
while IFS= read -r source; do
  "$nvcc" -std=c++20 -O3 -Werror all-warnings -Xcompiler -fPIC,-Wall,-Wextra,-Werror \
    -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 \
    -I . -c "$source" -o "$objects/$(basename "$source").o"
  count=$((count + 1))
done < <(git ls-files --cached --others --exclude-standard '*.cu')
echo "cuda: $("$nvcc" --version | grep -o 'release [0-9.]*') compiled $count source(s) for sm_80 and sm_90"
