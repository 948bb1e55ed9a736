#!/usr/bin/env bash
# Installs the build, builds the example against the installed package alone, and trains with it on four ranks.
set -euo pipefail
build=$1 source=$2 mpiexec=$3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/prefix" >/dev/null
cp -r "$source/jobs/example" "$work/example"
cmake -S "$work/example" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$work/build"

"$work/prefix/bin/llama3d" tokenize --input "$source/jobs/data/pride_and_prejudice.txt" --output "$work/tokens.h5"
"$mpiexec" --oversubscribe --bind-to none -np 4 "$work/build/example" "$work/tokens.h5" "$work/run"
# To a file: grep -q leaves at its first match, and a program that still prints then dies of SIGPIPE.
"$work/prefix/bin/llama3d" inspect "$work/run/checkpoints/step_00000010" >"$work/inspected"
grep -q model.embed_tokens.weight "$work/inspected"
