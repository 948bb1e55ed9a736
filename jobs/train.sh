#!/usr/bin/env bash
# Trains with mpirun, on one machine or on those of a host file, and goes on where an earlier start of the same run
# stopped. Every setting below can be given in the environment; further options of `llama3d train` follow the script's
# name:
#
#   MODEL=llama3.2-1b DATA=tokens.h5 RANKS=8 TP_SIZE=4 jobs/train.sh --learning-rate 2e-4
set -euo pipefail

# --- the run ---------------------------------------------------------------------------------------------------
: "${CONFIG:=}"                         # TOML file; the defaults below are then its own, what is set still wins
if [[ -z $CONFIG ]]; then
  : "${LOAD:=}"                         # checkpoint or Hugging Face folder whose weights to start from; empty: random
  if [[ -z $LOAD ]]; then : "${MODEL:=llama3-tiny}"; fi  # preset, config.json or folder; with LOAD: that of the weights
  : "${DATA:=runs/book.h5}"             # from `llama3d tokenize`
  : "${VALID_DATA:=}"                   # token file, or empty
  : "${OUTPUT_DIR:=runs/$(basename "${MODEL:-$LOAD}" .json)}"
  : "${STEPS:=1000}"
  : "${MICRO_BATCH_SIZE:=4}"            # samples of one forward pass
  : "${GLOBAL_BATCH_SIZE:=32}"          # samples of one step, over all ranks
  : "${SEQ_LENGTH:=128}"                # tokens of a sample
  : "${CHECKPOINT_INTERVAL:=100}"       # steps
  : "${COMM_TIMEOUT:=}"                 # seconds until ranks that wait in vain end the job; empty: the default
  # The grid: data parallelism is RANKS / (TP_SIZE * PP_SIZE).
  : "${TP_SIZE:=1}"                     # must divide the key-value heads; keep it inside a node
  : "${PP_SIZE:=1}"
  : "${PIPELINE_SCHEDULE:=1f1b}"        # gpipe, 1f1b, interleaved, zero-bubble
  : "${DEVICE:=auto}"                   # cpu, cuda, auto
fi
: "${RANKS:=1}"                         # processes, one a GPU

# --- the site --------------------------------------------------------------------------------------------------
: "${LLAMA3D:=}"                      # the program; empty: that on PATH, or of this folder's build
: "${HOSTFILE:=}"                     # lines "name slots=8"; empty: this machine
: "${RANKS_PER_NODE:=8}"              # with HOSTFILE
: "${THREADS:=1}"                     # processor cores of a rank
: "${MPIRUN_OPTIONS:=}"               # such as "--report-bindings"

# The network. Empty is for NCCL and Open MPI to choose, or for a site's own files, such as /etc/nccl.conf; what the
# environment has set stays.
: "${NCCL_SOCKET_IFNAME:=}"           # interfaces NCCL starts over, and sends over without InfiniBand: set it when it
                                      # takes one that does not lead to the other nodes; "=eth0", "ib", "^docker,lo"
: "${NCCL_IB_HCA:=}"                  # its InfiniBand or RoCE adapters: set it when some of a node's are for storage
                                      # or without a cable; "=mlx5_0,mlx5_1"
: "${NCCL_DEBUG:=}"                   # WARN when it fails, INFO to see which network it takes
: "${OMPI_MCA_btl_tcp_if_include:=}"  # interfaces of MPI, which only joins the ranks and carries small agreements:
                                      # set it when ranks of several nodes hang at the start; "eth0", "10.0.0.0/16"
: "${OMPI_MCA_oob_tcp_if_include:=}"  # the same for mpirun's daemons: set it when they do not find each other

for name in NCCL_SOCKET_IFNAME NCCL_IB_HCA NCCL_DEBUG OMPI_MCA_btl_tcp_if_include OMPI_MCA_oob_tcp_if_include; do
  if [[ -n ${!name} ]]; then export "${name?}"; fi
done
export OMP_NUM_THREADS=$THREADS
if [[ -z $LLAMA3D ]]; then
  LLAMA3D=$(command -v llama3d || echo "$(dirname "${BASH_SOURCE[0]}")/../build/release/bin/llama3d")
fi

launch=(mpirun --quiet -np "$RANKS")
if [[ -n $HOSTFILE ]]; then
  launch+=(--hostfile "$HOSTFILE" --map-by "ppr:$RANKS_PER_NODE:node:PE=$THREADS" --bind-to core)
  # Ranks of other nodes get a login's environment, Open MPI's own variables and what is named here: options of the
  # program, NCCL's settings and where libraries are.
  while read -r name; do launch+=(-x "$name"); done < <(
    compgen -e | grep -E '^(OMP_NUM_THREADS|LD_LIBRARY_PATH|LLAMA3D_.*|NCCL_.*)$')
else
  launch+=(--oversubscribe --bind-to none)
fi
read -ra site_options <<<"$MPIRUN_OPTIONS"
launch+=("${site_options[@]}")

options=(--resume auto)
option() { if [[ -n $2 ]]; then options+=("$1" "$2"); fi; }
option --config "$CONFIG"
option --model "${MODEL:-}"
option --load "${LOAD:-}"
option --data "${DATA:-}"
option --valid-data "${VALID_DATA:-}"
option --output-dir "${OUTPUT_DIR:-}"
option --steps "${STEPS:-}"
option --micro-batch-size "${MICRO_BATCH_SIZE:-}"
option --global-batch-size "${GLOBAL_BATCH_SIZE:-}"
option --seq-length "${SEQ_LENGTH:-}"
option --checkpoint-interval "${CHECKPOINT_INTERVAL:-}"
option --comm-timeout "${COMM_TIMEOUT:-}"
option --tp-size "${TP_SIZE:-}"
option --pp-size "${PP_SIZE:-}"
option --pipeline-schedule "${PIPELINE_SCHEDULE:-}"
option --device "${DEVICE:-}"

# Open MPI refuses root, who in a container is all there is.
if [[ $(id -u) -eq 0 ]]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec "${launch[@]}" "$LLAMA3D" train "${options[@]}" "$@"
