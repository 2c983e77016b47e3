#!/usr/bin/env bash
# Checks ringlet on this machine's GPU and writes one report: build, tests, times beside diffusers + PEFT.
#
#   scripts/gpu-check.sh                  ten minutes at most after downloads and build; writes gpu-report.md
#   scripts/gpu-check.sh --out FILE       another file
#   scripts/gpu-check.sh --no-peer        without diffusers and PEFT, whose packages are then not fetched
#   scripts/gpu-check.sh --simulated      the same on the simulated device of the tests, with a small network
#   RINGLET_PRESET=dev scripts/gpu-check.sh    another CMake preset than release
#   RINGLET_BUILD=build/dev scripts/gpu-check.sh    another build folder than build/gpu-check, to build less
#
# The tests are those of the label device: the ones that run on a simulated device everywhere else. What
# fails is in the report with its output; the exit status is 1 then.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
out=gpu-report.md simulated=no peer=yes preset=${RINGLET_PRESET:-release}
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a file}; shift ;;
    --no-peer) peer=no ;;
    --simulated) simulated=yes peer=no ;;
    --help|-h) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "gpu-check: unknown option '$1'; see --help" >&2; exit 2 ;;
  esac
  shift
done
# Its own folder: another build keeps its tests on the simulated device.
build=${RINGLET_BUILD:-build/gpu-check} failed=0 started=$SECONDS
log=$(mktemp)
trap 'rm -f "$log"' EXIT

say() { printf 'gpu-check: %s\n' "$*" >&2; }
write() { printf '%s\n' "$@" >>"$out"; }

# section TITLE SECONDS COMMAND...: runs it for so long at most; its output goes into the report.
section() {
  local title=$1 limit=$2 begin=$SECONDS status
  shift 2
  say "$title"
  timeout "$limit" "$@" >"$log" 2>&1
  status=$?
  [ $status -eq 0 ] || failed=1
  write "" "## $title" ""
  [ $status -eq 0 ] || write "**Failed with status $status** (124 = not done after $limit s)." ""
  if grep -q '^| ' "$log"; then
    grep '^|' "$log" >>"$out"
  else
    write '```'
    tail -n 60 "$log" >>"$out"
    write '```'
  fi
  write "" "$((SECONDS - begin)) s"
}

build_all() {
  local needs=(--cuda) real=ON
  [ "$simulated" = no ] || { needs=() real=OFF; }
  case $preset in release|debug) ;; *) needs+=(--clang) ;; esac
  scripts/bootstrap.sh "${needs[@]}" &&
    cmake --preset "$preset" -B "$build" -DRINGLET_REAL_DEVICE=$real &&
    cmake --build "$build" --target ringlet_cli ringlet_device_tests ringlet_law_tests \
      ringlet_unit_tests ringlet_e2e_tests ringlet_bench_train &&
    { [ "$peer" = no ] || python3 -c 'import sys; sys.path.insert(0, "bench"); import compare; compare.peer_python(compare.ROOT / "build/bench")'; }
}

# preloaded COMMAND...: on the simulated device, if that is what is asked for.
preloaded() {
  if [ "$simulated" = yes ]; then
    LD_PRELOAD=$root/$build/lib/libringlet_simulated_cuda.so "$@"
  else
    "$@"
  fi
}

tests() { ctest --no-tests=error --test-dir "$build" -L '^device$' --output-on-failure -j 2; }

machine() {
  nvidia-smi 2>/dev/null || echo "nvidia-smi is not there"
  git log -1 --format='commit %h, %cs' 2>/dev/null
  preloaded "$build/bin/ringlet" doctor
}

# What a training step takes: SD 1.5's size beside PEFT, or a small network without it.
bench() {
  local options=(--device cuda --precision "$1" --rounds 2 --steps 10)
  [ "$simulated" = no ] || options=(--device cuda --precision "$1" --rounds 1 --steps 2 --side 16)
  [ "$peer" = yes ] || options+=(--no-peer --unet assets/starter/unet)
  RINGLET_BENCH_BIN=$root/$build/bin preloaded python3 bench/compare_train.py "${options[@]}"
}

export -f build_all preloaded tests machine bench
export root build simulated peer preset

: >"$out"
write "# ringlet on a GPU" "" "$([ "$simulated" = no ] || echo 'The device is simulated: times say nothing. ')\
Written by \`scripts/gpu-check.sh\`."
section "Build" 1800 bash -c build_all
if [ $failed -eq 0 ]; then
  started=$SECONDS
  section "Machine" 60 bash -c machine
  section "Tests on the device" 240 bash -c tests
  section "Training step, bf16" 150 bash -c 'bench bf16'
  section "Training step, fp32" 150 bash -c 'bench fp32'
fi
write "" "$((SECONDS - started)) s without the build. $([ $failed -eq 0 ] && echo 'Nothing failed.' || echo 'Something failed: see above.')"
say "the report is $out"
exit $failed
