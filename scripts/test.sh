#!/usr/bin/env bash
# Sets everything up and runs the tests.
#
#   scripts/test.sh                 bootstrap, build, style checks, all tests
#   scripts/test.sh --full          the same after sanitizer builds (unit, law and fault tests; threads), a
#                                   minute of fuzzing and clang's checks, and a package at the end: what CI runs
#   scripts/test.sh -L unit         further arguments go to ctest (labels: unit, law, golden, fault, threads,
#                                   real, e2e, device)
#   scripts/fetch-real.sh          gets the files that the tests of label real read; they are skipped without
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
full=no
case ${1:-} in
  --full) full=yes; shift ;;
  --help|-h) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
jobs=$(nproc)
times=()

# step NAME COMMAND...: runs it, and notes how long it took.
step() {
  local name=$1 start=$SECONDS
  shift
  "$@"
  times+=("$(printf '%6d s  %s' $((SECONDS - start)) "$name")")
}
print_times() { [ ${#times[@]} -eq 0 ] || printf '%s\n' "where the time went:" "${times[@]}"; }
trap print_times EXIT

check_style() {
  scripts/check_includes.py
  scripts/check_headers.py
  scripts/check_sizes.py
  scripts/check_docs.py
  scripts/check_cuda.sh
  if command -v clang-format >/dev/null; then
    git ls-files '*.h' '*.cpp' | xargs clang-format --dry-run -Werror
    echo "format: clang-format has nothing to change"
  fi
}

build_asan() {
  cmake --preset asan
  cmake --build --preset asan --target ringlet_unit_tests ringlet_law_tests ringlet_fault_tests
}

# A minute each, side by side: the safetensors reader, and adapter files mutated.
fuzz() {
  local reader failed=0
  scripts/fuzz.sh 60 &
  reader=$!
  OMP_NUM_THREADS=1 RINGLET_MUTATIONS=1000000000 RINGLET_MUTATION_SECONDS=60 RINGLET_MUTATION_SEED=2 \
    build/asan/bin/ringlet_fault_tests --gtest_brief=1 --gtest_filter='AdapterMutations*' || failed=1
  wait "$reader" || failed=1
  return "$failed"
}

build_tsan() {
  cmake --preset tsan
  cmake --build --preset tsan --target ringlet_threads_tests
}

build_release() {
  cmake --preset release
  cmake --build --preset release
}

if [ "$full" = yes ]; then
  step "set-up" scripts/bootstrap.sh --clang
else
  step "set-up" scripts/bootstrap.sh
fi
step "style" check_style
if [ "$full" = yes ]; then
  step "sanitizer build" build_asan
  step "unit, law and fault tests with AddressSanitizer and UBSan" \
    ctest --preset asan -j "$jobs" -L '^(unit|law|fault)$'
  step "fuzzing" fuzz
  step "ThreadSanitizer build" build_tsan
  step "tests of label threads with ThreadSanitizer" ctest --preset tsan -j "$jobs" -L '^threads$'
  step "headers by themselves" scripts/tidy.sh --headers
  step "clang-tidy on what changed" scripts/tidy.sh --changed
fi
step "release build" build_release
step "all tests" ctest --preset release -j "$jobs" "$@"
if [ "$full" = yes ]; then
  step "package" scripts/package.sh --check
fi
