#!/usr/bin/env bash
# What check.sh cannot see where there is no GPU: every test that takes a device, on the GPU, then the kernels' tests
# under compute-sanitizer's memcheck and racecheck. Works on a build that is there (BUILD, default build/ci).
#
#   tools/check_gpu.sh [tests] [memcheck] [racecheck] [ranks]     # the first three when none is named
#
# ranks: the tests of several ranks, each on a GPU of its own as far as there are some. Ranks that share one take turns,
# which takes minutes (RANKS, default "2 4 8"), and NCCL 2.30 or later on LD_LIBRARY_PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

: "${BUILD:=build/ci}" "${RANKS:=2 4 8}"
export LLAMA3D_TEST_DEVICE=cuda LLAMA3D_TEST_RANKS=1
bin=$BUILD/bin

# Cases that ask for impossible memory or sizes on purpose report errors of the runtime.
on_purpose=contracts,device
kernels=data_movement,matmul,norm,rope,attention,attention_cached,swiglu,embedding,loss,optimizer,equivalence
# Minutes under the tools, and no path that shorter ones do not take.
long='!attention/documents_of_a_training_sequence*'

tests() {
  "$bin/test_compute"
  for program in golden recompute grid model_state generator; do
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

ranks() {
  local n program
  export NCCL_MAX_CTAS=${NCCL_MAX_CTAS:-2} LLAMA3D_TEST_TIMEOUT=600
  for n in $RANKS; do
    for program in communicator traffic grid recompute golden generator; do
      [[ $program == traffic && $n != [48] ]] && continue
      [[ ($program == golden || $program == recompute) && $n != 4 ]] && continue
      [[ $program == generator && $n != 2 ]] && continue
      say "test_$program on $n ranks"
      LLAMA3D_TEST_RANKS=$n mpirun --quiet --oversubscribe --bind-to none -np "$n" "$bin/test_$program"
    done
  done
}

prepare_mpi 1
for what in "${@:-tests}" $([[ $# -gt 0 ]] || echo memcheck racecheck); do
  say "$what"
  case $what in
    tests) tests ;;
    memcheck | racecheck) sanitize "$what" ;;
    ranks) ranks ;;
    *) echo "check_gpu.sh: $what is none of tests, memcheck, racecheck, ranks" >&2; exit 2 ;;
  esac
done
say "passed"
