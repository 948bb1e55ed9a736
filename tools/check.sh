#!/usr/bin/env bash
# Everything a change must pass: packages, warnings as errors, formatting, layers, tests. What CI runs.
#
# Environment: INSTALL=0 leaves packages alone and fetches nothing; JOBS (default 2) tests at a time; PRESET (default ci);
# REQUIRE_CUDA=1 fails where nvcc or NCCL is missing, instead of leaving out what needs them.
set -euo pipefail
(($# == 0)) || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

: "${INSTALL:=1}" "${JOBS:=2}" "${PRESET:=ci}" "${REQUIRE_CUDA:=0}"
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

is_on() { grep -q "^$1:BOOL=ON$" "$build/CMakeCache.txt"; }

# NCCL from PyPI, the oldest that the build takes: a machine that has nvcc alone then compiles and links everything.
fetch_nccl() {
  local into=$build/nccl
  mkdir -p "$into"
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$into" nvidia-nccl-cu13==2.28.3
  "$python" -m zipfile -e "$into"/nvidia_nccl_cu13-*.whl "$into"
  ln -sf libnccl.so.2 "$into/nvidia/nccl/lib/libnccl.so"
  configure "$PRESET" -DLLAMA3D_NCCL=ON -DNCCL_ROOT="$top/$into/nvidia/nccl"
}

complete_cuda() {
  if is_on LLAMA3D_CUDA && ! is_on LLAMA3D_NCCL && [[ $INSTALL != 0 ]]; then
    say "NCCL"
    fetch_nccl
  fi
  for part in LLAMA3D_CUDA LLAMA3D_NCCL; do
    is_on "$part" && continue
    echo "not compiled: what $part=ON adds; its compiler or library is not here"
    [[ $REQUIRE_CUDA == 0 ]] || return 1
  done
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
configure "$PRESET" -DLLAMA3D_TEST_PYTHON="$python"
complete_cuda
say "build"
cmake --build "$build"
say "headers alone"
"$python" tools/check_includes.py --compile "$build/compile_commands.json" --jobs "$JOBS"
say "tests"
ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$JOBS"
say "passed"
