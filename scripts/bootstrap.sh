#!/usr/bin/env bash
# Installs what building ringlet needs: system packages, and LibTorch into .deps/. Safe to run again.
#
#   scripts/bootstrap.sh            build and test tools, CPU LibTorch
#   scripts/bootstrap.sh --cuda     the same with the CUDA libraries, for --device cuda
#   scripts/bootstrap.sh --clang    the same with Clang: presets dev, asan, tsan and fuzz, scripts/tidy.sh
#   TORCH_DIR=/path/to/torch scripts/bootstrap.sh     use an installed torch (its folder with include/ and lib/)
#   PYTHON=python3.12 scripts/bootstrap.sh            the Python whose pip fetches the wheel
set -euo pipefail

torch_version=2.15.0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/.deps
target=$deps/torch-$torch_version
python=${PYTHON:-python3}
cuda=no

packages=(
  g++ cmake ninja-build ccache python3 python3-pip python3-venv
  libcli11-dev nlohmann-json3-dev libtomlplusplus-dev libssl-dev zlib1g-dev libicu-dev
  libsentencepiece-dev
  libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev
  libgtest-dev
  openmpi-bin libopenmpi-dev
)

say() { printf 'bootstrap: %s\n' "$*"; }
fail() { printf 'bootstrap: error: %s\n' "$*" >&2; exit 1; }

for argument in "$@"; do
  case $argument in
    --cuda) cuda=yes ;;
    --clang) packages+=(clang clang-tidy libclang-rt-dev lld) ;;
    --help|-h) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown option '$argument'; the options are --cuda, --clang and --help" ;;
  esac
done

require_space() {  # require_space FOLDER MEGABYTES
  local free
  free=$(df -Pm "$1" | awk 'NR==2 {print $4}')
  [ "$free" -ge "$2" ] || fail "$1 has $free MB free and $2 MB are needed; free some space and run this again"
}

install_packages() {
  local missing=() package
  command -v dpkg-query >/dev/null ||
    fail "this script installs Debian/Ubuntu packages; on another system install the equivalents of: ${packages[*]}"
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -q '^installed$' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || { say "system packages: all present"; return; }

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo)
    else
      fail "packages are missing and this user cannot install them. Run this once, then run $0 again:
    sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
    fi
  fi
  say "installing ${missing[*]}"
  require_space / 1500
  local log=$deps/apt.log
  if ! { "${as_root[@]}" apt-get update &&
         "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
             apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    fail "apt-get could not install ${missing[*]}; is the network up? The whole log is in $log"
  fi
}

check_python() {
  command -v "$python" >/dev/null || fail "$python is not installed; set PYTHON= to a Python 3.10 to 3.14"
  "$python" - <<'PY' || fail "$("$python" --version 2>&1) has no torch $torch_version wheel; set PYTHON= to a 64-bit Python 3.10 to 3.14, or TORCH_DIR= to an installed torch"
import sys
sys.exit(not ((3, 10) <= sys.version_info[:2] <= (3, 14) and sys.maxsize > 2**32))
PY
  "$python" -m pip --version >/dev/null 2>&1 || fail "$python has no pip; install python3-pip, or set PYTHON= to a Python that has it"
}

# The wheel holds headers and libraries. libtorch_cpu asks only for the CUDA runtime and CUPTI
# libraries at load time, so the rest of the CUDA set is left out unless --cuda asks for it.
install_torch() {
  local stamp=$target/.complete
  if [ -n "${TORCH_DIR:-}" ]; then
    [ -f "$TORCH_DIR/include/ATen/ATen.h" ] && [ -f "$TORCH_DIR/lib/libtorch_cpu.so" ] ||
      fail "TORCH_DIR=$TORCH_DIR holds no include/ATen/ATen.h and lib/libtorch_cpu.so; give the torch folder of an installed wheel or libtorch archive"
    say "LibTorch: $TORCH_DIR"
    return
  fi
  if [ -f "$stamp" ] && { [ "$cuda" = no ] || grep -q cuda "$stamp"; }; then
    say "LibTorch $torch_version: present ($(cat "$stamp"))"
    return
  fi
  check_python
  local wanted=(--no-deps nvidia-cuda-runtime nvidia-cuda-cupti) kind=cpu needed=2500
  [ "$cuda" = no ] || { wanted=(); kind=cuda; needed=12000; }
  require_space "$deps" "$needed"
  say "fetching LibTorch $torch_version ($kind)"
  local partial=$target.partial log=$deps/pip.log
  rm -rf "$partial"
  if ! TMPDIR=$deps "$python" -m pip install --quiet --no-compile --no-cache-dir --disable-pip-version-check \
      --only-binary=:all: --target "$partial" "torch==$torch_version" "${wanted[@]}" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -rf "$partial"
    fail "pip could not fetch torch $torch_version; is the network up and is there a wheel for this machine? The whole log is in $log. An installed torch can be given with TORCH_DIR="
  fi
  echo "$kind" >"$partial/.complete"
  rm -rf "$target"
  mv "$partial" "$target"
}

mkdir -p "$deps"
install_packages
install_torch
say "done"
