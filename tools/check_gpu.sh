#!/usr/bin/env bash
# What check.sh cannot see where there is no GPU: every test that takes a device, on the GPU, then the kernels' tests
# under compute-sanitizer's memcheck and racecheck. Works on a build that is there (BUILD, default build/ci).
#
#   tools/check_gpu.sh [tests] [memcheck] [racecheck] [binding] [ranks] [hangs] [cold]   # the first three when none is named
#
# binding: two ranks that see one GPU.
# ranks: the tests of several ranks (RANKS, default "2 4 8"), each on a GPU of its own as far as there are some, then with
# their memory registered with NCCL. Ranks that share one take turns, which takes minutes, and NCCL 2.30 or later on
# LD_LIBRARY_PATH.
# hangs: ranks, 2 to 8 of them, that are stopped and killed in a step; as many GPUs, or such an NCCL.
# cold: pipelines of 2 ranks, on two GPUs or such an NCCL, that have 1 and 2 micro-batches (COLD_MODEL, default
# llama3-tiny).
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

memcheck() {
  local -a tool=(compute-sanitizer --tool memcheck --error-exitcode 9)
  "${tool[@]}" "$bin/test_compute" --run_test="$kernels" --run_test="$long"
  "${tool[@]}" --report-api-errors no "$bin/test_compute" --run_test="$on_purpose"
}

# racecheck of CUDA 13.0 (2025.3) does not see what orders Hopper's kernels, mbarriers between warps: every slot that one
# warp fills for others is reported, in cuBLASLt's kernels (nvjet) and in ours that take tensor maps alike (each pair
# was looked up in the machine code). It breaks when told to leave kernels out, so their reports are dropped here. That of
# CUDA 13.5 (2026.4; PyPI has it as nvidia-cuda-sanitizer-api) sees it: of attention/documents_of_every_kind it reports
# nothing, the older one 50 races. Put that first on the PATH where it is there; it is slower.
racecheck() {
  local log
  log=$(mktemp)
  compute-sanitizer --tool racecheck --print-limit 100000 "$bin/test_compute" --run_test="$kernels,$on_purpose" \
    --run_test="$long" | tee "$log"
  grep -q "RACECHECK SUMMARY" "$log" || { echo "check_gpu.sh: racecheck came to no end" >&2; return 1; }
  if grep -A1 "Race reported" "$log" | grep " access at " | grep -Ev "access at nvjet|CUtensorMap"; then
    echo "check_gpu.sh: races in the kernels above" >&2
    return 1
  fi
  rm "$log"
}

ranks() {
  local n program
  export NCCL_MAX_CTAS=${NCCL_MAX_CTAS:-2} LLAMA3D_TEST_TIMEOUT=600
  for n in $RANKS; do
    for program in communicator traffic grid recompute golden generator; do
      [[ $program == traffic && $n != [48] ]] && continue
      [[ $program == golden && $n != [48] ]] && continue
      [[ $program == recompute && $n != 4 ]] && continue
      [[ $program == generator && $n != 2 ]] && continue
      say "test_$program on $n ranks"
      LLAMA3D_TEST_RANKS=$n mpirun --quiet --oversubscribe --bind-to none -np "$n" "$bin/test_$program" \
        --log_level=test_suite
    done
    (($(nvidia-smi -L | wc -l) >= n)) || continue
    for program in communicator recompute; do
      [[ $program == recompute && $n != 4 ]] && continue
      say "test_$program on $n ranks, memory registered"
      LLAMA3D_TEST_REGISTER=1 LLAMA3D_TEST_RANKS=$n mpirun --quiet --bind-to none -np "$n" "$bin/test_$program"
    done
  done
}

# Pipelines whose first step comes to a GPU where no kernel is loaded and no GEMM timed, as in every new process: what
# is loaded waits for what is under way. Later steps start receives ahead.
cold() {
  local folder schedule batch
  folder=$(mktemp -d)
  "$bin/llama3d" tokenize --tokenizer bytes --input jobs/data/pride_and_prejudice.txt --output "$folder/text.h5"
  for schedule in gpipe 1f1b zero-bubble interleaved; do
    for batch in 1 2; do
      [[ $schedule == interleaved && $batch == 1 ]] && continue
      say "a cold $schedule, $batch"
      LLAMA3D_CACHE_DIR=$folder/$schedule$batch NCCL_MAX_CTAS=${NCCL_MAX_CTAS:-2} mpirun --quiet --oversubscribe \
        --bind-to none -np 2 "$bin/llama3d" train --data "$folder/text.h5" --output-dir "$folder/run" \
        --model "${COLD_MODEL:-llama3-tiny}" --device cuda --allow-gpu-sharing --precision bf16 --seq-length 512 --steps 3 \
        --log-interval 1 --pp-size 2 --pipeline-schedule "$schedule" --pipeline-receive-ahead --global-batch-size "$batch" \
        --comm-timeout 60 --no-final-checkpoint
      rm -r "$folder/run"
    done
  done
  rm -r "$folder"
}

# Refused unless sharing is allowed; left to choose, they compute on CPUs.
binding() {
  local status=0 text folder
  folder=$(mktemp -d)
  local -a bench=(mpirun --quiet --oversubscribe --bind-to none -np 2 "$bin/llama3d" bench step --model llama3-tiny
    --seq-length 64 --steps 1 --threads 1 --output "$folder/bench.h5")
  text=$(CUDA_VISIBLE_DEVICES=0 "${bench[@]}" --device cuda 2>&1) || status=$?
  [[ $status == 2 && $text == *"ranks 0 and 1 have the same GPU"*"--allow-gpu-sharing"* ]] ||
    { echo "check_gpu.sh: a shared GPU ended with $status: $text" >&2; return 1; }
  text=$(CUDA_VISIBLE_DEVICES=0 "${bench[@]}" --device auto)
  [[ $text != *NVIDIA* ]] || { echo "check_gpu.sh: auto shared a GPU: $text" >&2; return 1; }
  rm -r "$folder"
}

hangs() {
  local name
  for name in Hangs.test_stopped_rank_of_two Hangs.test_stopped_first_rank Hangs.test_stopped_rank_of_a_grid \
    Hangs.test_killed_rank Hangs.test_rank_that_is_gone_unseen; do
    NCCL_MAX_CTAS=${NCCL_MAX_CTAS:-2} "$python" tests/cli/watchdog_test.py "$bin/llama3d" mpirun -v "$name"
  done
}

prepare_mpi 1
for what in "${@:-tests}" $([[ $# -gt 0 ]] || echo memcheck racecheck); do
  say "$what"
  case $what in
    tests | memcheck | racecheck | binding | ranks | hangs | cold) "$what" ;;
    *) echo "check_gpu.sh: $what is none of tests, memcheck, racecheck, binding, ranks, hangs, cold" >&2; exit 2 ;;
  esac
done
say "passed"
