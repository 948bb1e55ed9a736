#!/usr/bin/env bash
# Everything a change must pass: packages, warnings as errors, formatting, layers, tests. What CI runs.
#
# Environment: INSTALL=0 leaves packages alone; JOBS (default 2) tests at a time; PRESET (default ci).
set -euo pipefail
(($# == 0)) || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

: "${INSTALL:=1}" "${JOBS:=2}" "${PRESET:=ci}"
build=build/$PRESET
judge=14  # of clang-format: other versions break lines otherwise

check_format() {
  local program
  for program in "clang-format-$judge" clang-format; do
    if command -v "$program" >/dev/null && "$program" --version | grep -q "version $judge\."; then
      sources | xargs -0 "$program" --dry-run -Werror
      return
    fi
  done
  echo "not checked: this needs clang-format $judge, which is not here"
}

sources() { find . -path ./build -prune -o -path ./runs -prune -o -type f \( -name '*.?pp' -o -name '*.cu' -o -name '*.cuh' \) -print0; }

if [[ $INSTALL != 0 ]]; then
  say "packages"
  tools/install_packages.sh
fi
say "layers"
"$python" tools/check_includes.py
say "format"
check_format
say "configure"
configure "$PRESET" -DPython3_EXECUTABLE="$python"
say "build"
cmake --build "$build"
say "headers alone"
"$python" tools/check_includes.py --compile "$build/compile_commands.json" --jobs "$JOBS"
say "tests"
ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$JOBS"
say "passed"
