#!/usr/bin/env bash
# Runs a compiler ("$@") and fails where ptxas notes that it serialized wgmma instructions: the kernel is right but slow,
# and to ptxas this is no warning that it could be told to make an error.
set -uo pipefail
"$@" 2>&1 | {
  serialized=0
  while IFS= read -r line; do
    printf '%s\n' "$line" >&2
    [[ $line == *wgmma*serialized* ]] && serialized=1
  done
  exit "$serialized"
}
