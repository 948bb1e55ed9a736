#!/usr/bin/env bash
# Full fine-tuning on instruction data: tokenizes it, with loss on the answers, and trains with mpirun, going on where
# an earlier start stopped. Llama 3 8B by default, from random weights; every setting below can be given in the
# environment, and those of train.sh but CONFIG too; further options of `llama3d train` follow the script's name:
#
#   WEIGHTS=Meta-Llama-3-8B DATA=alpaca.json RANKS=8 TP_SIZE=2 jobs/finetune_alpaca.sh --recompute cheap
#   MODEL=llama3-tiny DEVICE=cpu jobs/finetune_alpaca.sh
set -euo pipefail
jobs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# --- the run ---------------------------------------------------------------------------------------------------
: "${WEIGHTS:=}"                                # checkpoint or Hugging Face folder to start from; empty: random weights
if [[ -z $WEIGHTS ]]; then : "${MODEL:=llama3-8b}"; fi  # preset, config.json or folder; with WEIGHTS: that of the weights
: "${DATA:=$jobs/data/instructions.json}"       # Alpaca or ShareGPT records
: "${VALID_FRACTION:=0}"                        # share of the data to validate on
: "${LOSS_ON:=assistant}"                       # tokens that are targets: assistant, all
: "${PACKING:=documents}"                       # documents: whole conversations, each by itself; stream: cut anywhere
if [[ ${MODEL:=} == llama3-tiny ]]; then        # what a CPU does in minutes
  : "${TOKENIZER:=bytes}" "${CUTOFF:=512}" "${GLOBAL_BATCH_SIZE:=8}" "${LEARNING_RATE:=3e-3}"
fi
if [[ -e $WEIGHTS/tokenizer.json || -e $WEIGHTS/tokenizer.model ]]; then : "${TOKENIZER:=$WEIGHTS}"; fi
: "${TOKENIZER:=}"                              # tokenizer.model, tokenizer.json, a folder with one, or bytes
: "${CUTOFF:=4096}"                             # most tokens of a conversation, and those of a sequence
: "${GLOBAL_BATCH_SIZE:=128}"                   # sequences of a step, over all ranks: those of the reference table
: "${MICRO_BATCH_SIZE:=1}"
: "${LEARNING_RATE:=5e-5}"                      # the highest; falls to zero along a cosine
: "${STEPS:=480}"
: "${WARMUP_STEPS:=$((STEPS < 20 ? STEPS : 20))}"
: "${CHECKPOINT_INTERVAL:=100}"
: "${OUTPUT_DIR:=runs/$(basename "${MODEL:-$WEIGHTS}" .json)-$(basename "$DATA" .json)}"
: "${DEVICE:=auto}"                             # cpu, cuda, auto
: "${PRECISION:=}"                              # fp32, bf16; empty: bf16 on GPUs
: "${LLAMA3D:=$(command -v llama3d || echo "$jobs/../build/release/bin/llama3d")}"

if [[ -z $TOKENIZER ]]; then
  echo "finetune_alpaca.sh: no TOKENIZER (and WEIGHTS holds none); name Llama 3's tokenizer.model, a tokenizer.json, or bytes" >&2
  exit 2
fi
if [[ -z $PRECISION ]]; then
  PRECISION=fp32
  if [[ $DEVICE == cuda || ($DEVICE == auto && -e /dev/nvidia0) ]]; then PRECISION=bf16; fi
fi

mkdir -p "$OUTPUT_DIR"
tokens=$OUTPUT_DIR/tokens.h5
"$LLAMA3D" tokenize --tokenizer "$TOKENIZER" --input "$DATA" --output "$tokens" --cutoff "$CUTOFF" --loss-on "$LOSS_ON"

options=(--packing "$PACKING" --valid-fraction "$VALID_FRACTION" --precision "$PRECISION" --lr-schedule cosine
  --learning-rate "$LEARNING_RATE" --min-learning-rate 0 --warmup-steps "$WARMUP_STEPS")
export LLAMA3D MODEL OUTPUT_DIR STEPS MICRO_BATCH_SIZE GLOBAL_BATCH_SIZE CHECKPOINT_INTERVAL DEVICE
unset CONFIG
LOAD=$WEIGHTS DATA=$tokens SEQ_LENGTH=$CUTOFF exec "$jobs/train.sh" "${options[@]}" "$@"
