#!/usr/bin/env bash
# From a fresh clone to a trained model on this machine's CPU: installs packages, builds, tokenizes a book, trains
# llama3-tiny on it with tensor, pipeline and data parallelism of 2 each, and writes a report.
#
# Every value below can be given in the environment: STEPS=50 tools/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

: "${TP:=2}" "${PP:=2}" "${DP:=2}"
: "${MODEL:=llama3-tiny}"
: "${SCHEDULE:=1f1b}"
: "${STEPS:=200}"
: "${MICRO_BATCH_SIZE:=4}"            # samples of one forward pass
: "${GLOBAL_BATCH_SIZE:=32}"          # samples of one step, over all ranks
: "${SEQ_LENGTH:=128}"                # tokens of a sample
: "${LEARNING_RATE:=3e-3}" "${WARMUP_STEPS:=20}"
: "${TEXT:=jobs/data/pride_and_prejudice.txt}"
: "${VALID_BYTES:=40000}"             # the end of the text, kept for validation
: "${OUTPUT_DIR:=runs/quickstart}"
: "${INSTALL:=1}"                     # 0: the packages are there

ranks=$((TP * PP * DP))
build=build/release
data=$OUTPUT_DIR/data

if [[ -e $OUTPUT_DIR/metrics.h5 ]]; then
  echo "quickstart.sh: $OUTPUT_DIR holds a run already (metrics.h5); remove the folder or set OUTPUT_DIR" >&2
  exit 2
fi

# Runs a command, its output in a log that is shown only when it fails.
logged() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; echo "quickstart.sh: '$*' failed; all of its output is in $log" >&2; exit 1; }
}

build_program() {
  mkdir -p "$OUTPUT_DIR"
  logged "$OUTPUT_DIR/configure.log" configure release
  logged "$OUTPUT_DIR/build.log" cmake --build "$build" --target llama3d
}

tokenize_text() {
  local part
  mkdir -p "$data"
  head -c "-$VALID_BYTES" "$TEXT" >"$data/train.txt"
  tail -c "$VALID_BYTES" "$TEXT" >"$data/valid.txt"
  for part in train valid; do
    "$build/bin/llama3d" tokenize --tokenizer bytes --input "$data/$part.txt" --output "$data/$part.h5"
  done
}

train() {
  prepare_mpi "$ranks"
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} mpirun -np "$ranks" --oversubscribe --bind-to none \
    "$build/bin/llama3d" train --model "$MODEL" --data "$data/train.h5" --valid-data "$data/valid.h5" \
    --output-dir "$OUTPUT_DIR" --device cpu --tp-size "$TP" --pp-size "$PP" --pipeline-schedule "$SCHEDULE" \
    --steps "$STEPS" --micro-batch-size "$MICRO_BATCH_SIZE" --global-batch-size "$GLOBAL_BATCH_SIZE" \
    --seq-length "$SEQ_LENGTH" --learning-rate "$LEARNING_RATE" --warmup-steps "$WARMUP_STEPS"
}

if [[ $INSTALL != 0 ]]; then
  say "installing what is missing"
  tools/install_packages.sh
fi
say "building llama3d in $build, minutes the first time; what it says goes to $OUTPUT_DIR/build.log"
build_program
say "tokenizing $TEXT"
tokenize_text
say "training $MODEL: TP$TP x PP$PP x DP$DP, $STEPS steps on $ranks processes, into $OUTPUT_DIR"
train
say "reporting"
"$python" tools/report.py "$OUTPUT_DIR" --tokens "$data/valid.h5"
