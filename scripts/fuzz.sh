#!/usr/bin/env bash
# Fuzzes the safetensors reader with AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   scripts/fuzz.sh [SECONDS]     default 60
#   JOBS=2 scripts/fuzz.sh 300    two processes side by side, that long each
#
# Starts from fuzz/corpus; new inputs and findings go to build/fuzz/. The exit status is 0 when
# nothing was found.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
seconds=${1:-60}
jobs=${JOBS:-1}

say() { printf 'fuzz: %s\n' "$*"; }
fail() { printf 'fuzz: error: %s\n' "$*" >&2; exit 1; }

case $seconds in
  --help|-h) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  ''|*[!0-9]*) fail "'$seconds' is not a number of seconds" ;;
esac
case $jobs in [1-9]|[1-9][0-9]) ;; *) fail "JOBS='$jobs' is not a number from 1 to 99" ;; esac

cd "$root"
scripts/bootstrap.sh --clang
log=build/fuzz-build.log
mkdir -p build
if ! { cmake --preset fuzz && cmake --build --preset fuzz; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  fail "the build has failed; the whole log is in $log"
fi

work=$(mktemp -d "$root/build/fuzz/run.XXXXXX")
findings=$root/build/fuzz/findings
mkdir -p "$work/new" "$findings"
# An input that takes a second is a finding, and so is one that needs 512 MB.
options=(-max_total_time="$seconds" -max_len=8192 -timeout=1 -rss_limit_mb=512
         -malloc_limit_mb=64 -print_final_stats=1 -artifact_prefix="$findings/")

pids=()
for job in $(seq "$jobs"); do
  build/fuzz/bin/fuzz_safetensors "${options[@]}" "$work/new" fuzz/corpus/safetensors \
    >"$work/job$job.log" 2>&1 &
  pids+=($!)
done
failed=0
for job in $(seq "$jobs"); do
  wait "${pids[job - 1]}" || { failed=1; grep -v '^#' "$work/job$job.log" | tail -n 40 >&2; }
done

executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work"/job*.log | awk '{n += $1} END {print n + 0}')
say "fuzz_safetensors: $executions executions in $seconds s on $jobs job(s), $(find "$work/new" -type f | wc -l) new inputs"
if [ "$failed" -ne 0 ]; then
  fail "a finding: see build/fuzz/findings/; run build/fuzz/bin/fuzz_safetensors FILE to see it again"
fi
rm -rf "$work"
say "nothing found"
