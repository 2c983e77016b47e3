#!/usr/bin/env bash
# Sets everything up and runs the tests.
#
#   scripts/test.sh                 bootstrap, build, style checks, all tests
#   scripts/test.sh --full          the same after a sanitizer build of the unit, law and fault tests
#                                   and a minute of fuzzing: what CI runs
#   scripts/test.sh -L unit         further arguments go to ctest (labels: unit, law, golden, fault, real, e2e)
#   scripts/fetch-real.sh          gets the files that the tests of label real read; they are skipped without
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
full=no
case ${1:-} in
  --full) full=yes; shift ;;
  --help|-h) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
jobs=$(nproc)

scripts/bootstrap.sh
scripts/check_includes.py
if command -v clang-format >/dev/null; then
  git ls-files '*.h' '*.cpp' | xargs clang-format --dry-run -Werror
  echo "format: clang-format has nothing to change"
fi

if [ "$full" = yes ]; then
  scripts/fuzz.sh 60
  cmake --preset asan
  cmake --build --preset asan --target ringlet_unit_tests ringlet_law_tests ringlet_fault_tests
  for label in unit law fault; do
    # One thread, as under ctest: some fault tests fork, and a child has no worker threads.
    OMP_NUM_THREADS=1 "build/asan/bin/ringlet_${label}_tests" --gtest_brief=1
  done
  # Adapter files mutated for a minute.
  OMP_NUM_THREADS=1 RINGLET_MUTATIONS=1000000000 RINGLET_MUTATION_SECONDS=60 RINGLET_MUTATION_SEED=2 \
    build/asan/bin/ringlet_fault_tests --gtest_brief=1 --gtest_filter='AdapterMutations*'
fi

cmake --preset release
cmake --build --preset release
ctest --preset release -j "$jobs" "$@"
