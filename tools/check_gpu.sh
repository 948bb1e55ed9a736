#!/usr/bin/env bash
# What check.sh cannot see where there is no GPU: every test that takes a device, on the GPU, then the kernels' tests
# under compute-sanitizer's memcheck and racecheck. Works on a build that is there (BUILD, default build/ci).
#
#   tools/check_gpu.sh [tests] [memcheck] [racecheck]     # all three when none is named
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

: "${BUILD:=build/ci}"
export LLAMA3D_TEST_DEVICE=cuda LLAMA3D_TEST_RANKS=1
bin=$BUILD/bin

# Cases that ask for impossible memory or sizes on purpose report errors of the runtime.
on_purpose=contracts,device
kernels=data_movement,matmul,norm,rope,attention,swiglu,embedding,loss,optimizer,equivalence
# Minutes under the tools, and no path that shorter ones do not take.
long='!attention/documents_of_a_training_sequence*'

tests() {
  "$bin/test_compute"
  for program in golden recompute grid model_state; do
    say "test_$program"
    mpirun --quiet -np 1 "$bin/test_$program"
  done
}

sanitize() {
  local tool=$1
  compute-sanitizer --tool "$tool" --error-exitcode 9 "$bin/test_compute" --run_test="$kernels" --run_test="$long"
  compute-sanitizer --tool "$tool" --error-exitcode 9 $([[ $tool == memcheck ]] && echo --report-api-errors no) \
    "$bin/test_compute" --run_test="$on_purpose"
}

prepare_mpi 1
for what in "${@:-tests}" $([[ $# -gt 0 ]] || echo memcheck racecheck); do
  say "$what"
  case $what in
    tests) tests ;;
    memcheck | racecheck) sanitize "$what" ;;
    *) echo "check_gpu.sh: $what is none of tests, memcheck, racecheck" >&2; exit 2 ;;
  esac
done
say "passed"
