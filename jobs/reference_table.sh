#!/usr/bin/env bash
# The reference table: Llama 3 8B, full parameters, sequences of 4096, 128 of them a step, on every grid below that so
# many GPUs can form, one run after another, and tools/report.py's table of them all. Every setting can be given in the
# environment; further options of `llama3d train` follow the script's name:
#
#   RANKS=8 jobs/reference_table.sh
#   RANKS=4 GRIDS="1x2 2x2:zero-bubble" STEPS=12 jobs/reference_table.sh --recompute none
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

: "${RANKS:=8}"                  # processes, one a GPU
: "${GRIDS:=1x1 1x1@2 1x2 1x2:zero-bubble 2x2 2x2:zero-bubble 2x1 4x1 1x4 8x1 1x8}"
                                 # TPxPP[@micro-batch][:schedule]; the rest is DP
: "${MODEL:=llama3-8b}"
: "${SEQ_LENGTH:=4096}"
: "${GLOBAL_BATCH_SIZE:=128}"    # sequences
: "${MICRO_BATCH_SIZE:=1}"
: "${STEPS:=8}"
: "${SKIP_STEPS:=2}"             # at each start, which the table does not count
: "${RECOMPUTE:=cheap}"          # none, cheap, full
: "${STATES:=--precision bf16 --master-weights none --gradient-dtype bf16 --optimizer-dtype bf16}"
: "${DEVICE:=cuda}"
: "${DATA:=}"                    # token file; empty: the sample text, made here
: "${OUTPUT_DIR:=runs/reference}"
: "${LLAMA3D:=$(command -v llama3d || echo "$here/../build/release/bin/llama3d")}"
: "${PYTHON:=/usr/bin/python3}"  # with h5py and matplotlib

if [[ -z $DATA ]]; then
  DATA=$OUTPUT_DIR/text.h5
  mkdir -p "$OUTPUT_DIR"
  "$LLAMA3D" tokenize --tokenizer bytes --input "$here/data/pride_and_prejudice.txt" --output "$DATA"
fi
read -ra states <<<"$STATES"

done_runs=()
for grid in $GRIDS; do
  sizes=${grid%%[@:]*}
  schedule=1f1b
  [[ $grid == *:* ]] && schedule=${grid#*:}
  micro_batch=$MICRO_BATCH_SIZE
  [[ $grid == *@* ]] && micro_batch=${grid#*@} micro_batch=${micro_batch%:*}
  tp=${sizes%x*} pp=${sizes#*x}
  ((RANKS % (tp * pp) == 0)) || continue
  folder=$OUTPUT_DIR/tp$tp-pp$pp-dp$((RANKS / tp / pp))
  [[ $grid == *@* ]] && folder+=-micro$micro_batch
  [[ $schedule == 1f1b ]] || folder+=-$schedule
  echo "== TP $tp x PP $pp x DP $((RANKS / tp / pp)), $schedule, micro-batch $micro_batch"
  # What does not fit the GPUs is refused with the reason; the other grids go on.
  if RANKS=$RANKS MODEL=$MODEL DATA=$DATA OUTPUT_DIR=$folder STEPS=$STEPS SEQ_LENGTH=$SEQ_LENGTH DEVICE=$DEVICE \
    MICRO_BATCH_SIZE=$micro_batch GLOBAL_BATCH_SIZE=$GLOBAL_BATCH_SIZE CHECKPOINT_INTERVAL=0 LLAMA3D=$LLAMA3D \
    TP_SIZE=$tp PP_SIZE=$pp PIPELINE_SCHEDULE=$schedule "$here/train.sh" "${states[@]}" --recompute "$RECOMPUTE" \
    --learning-rate 1e-5 --min-learning-rate 1e-6 \
    --no-final-checkpoint --log-interval 1 "$@"; then
    done_runs+=("$folder")
  else
    status=$?
    # Neither a mistake in the options nor a GPU that is too small.
    ((status == 2)) || exit "$status"
  fi
done

((${#done_runs[@]} > 0)) || { echo "reference_table.sh: none of GRIDS=\"$GRIDS\" ran on RANKS=$RANKS" >&2; exit 2; }
"$PYTHON" "$here/../tools/report.py" "${done_runs[@]}" --skip-steps "$SKIP_STEPS" --output-dir "$OUTPUT_DIR/report"
