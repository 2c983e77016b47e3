#!/usr/bin/env bash
# Fuzzes the readers with AddressSanitizer and UndefinedBehaviorSanitizer: half of the time that of
# safetensors files, half those of adapters.
#
#   scripts/fuzz.sh [SECONDS]     default 60, for both together
#   JOBS=2 scripts/fuzz.sh 300    two processes side by side, that long each
#
# Starts from fuzz/corpus and tests/golden/data/adapters; new inputs and findings go to build/fuzz/.
# The exit status is 0 when nothing was found.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
seconds=${1:-60}
jobs=${JOBS:-1}

say() { printf 'fuzz: %s\n' "$*"; }
fail() { printf 'fuzz: error: %s\n' "$*" >&2; exit 1; }

case $seconds in
  --help|-h) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  ''|*[!0-9]*) fail "'$seconds' is not a number of seconds" ;;
esac
case $jobs in [1-9]|[1-9][0-9]) ;; *) fail "JOBS='$jobs' is not a number from 1 to 99" ;; esac

cd "$root"
scripts/bootstrap.sh --fuzz
log=build/fuzz-build.log
mkdir -p build
if ! { cmake --preset fuzz && cmake --build --preset fuzz; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  fail "the build has failed; the whole log is in $log"
fi

findings=$root/build/fuzz/findings
mkdir -p "$findings"

# fuzz TARGET SECONDS CORPUS OPTION…: runs one target; an empty CORPUS is none.
fuzz() {
  local target=$1 time=$2 corpus=$3 work pids=() failed=0 job executions
  shift 3
  work=$(mktemp -d "$root/build/fuzz/run.XXXXXX")
  mkdir -p "$work/new"
  for job in $(seq "$jobs"); do
    "build/fuzz/bin/$target" -max_total_time="$time" -print_final_stats=1 \
      -artifact_prefix="$findings/" "$@" "$work/new" ${corpus:+"$corpus"} \
      >"$work/job$job.log" 2>&1 &
    pids+=($!)
  done
  for job in $(seq "$jobs"); do
    wait "${pids[job - 1]}" || { failed=1; grep -v '^#' "$work/job$job.log" | tail -n 40 >&2; }
  done
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work"/job*.log |
               awk '{n += $1} END {print n + 0}')
  say "$target: $executions executions in $time s on $jobs job(s), $(find "$work/new" -type f | wc -l) new inputs"
  [ "$failed" -eq 0 ] ||
    fail "a finding: see build/fuzz/findings/; run build/fuzz/bin/$target FILE to see it again"
  rm -rf "$work"
}

half=$(( (seconds + 1) / 2 ))
# An input that takes a second is a finding, and so is one that needs 512 MB.
fuzz fuzz_safetensors "$half" fuzz/corpus/safetensors \
  -max_len=8192 -timeout=1 -rss_limit_mb=512 -malloc_limit_mb=64
# LibTorch alone takes some hundred MB; no input is longer than 16 KB, and no layer than 15 KB.
OMP_NUM_THREADS=1 fuzz fuzz_adapter_reader "$half" "" \
  -max_len=16384 -len_control=0 -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64
say "nothing found"
