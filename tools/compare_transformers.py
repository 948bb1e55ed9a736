#!/usr/bin/env python3
"""Times the same training step in Hugging Face's transformers and in llama3d, on the same GPU, by turns.

Both take random tokens, the same micro-batch, accumulation and sequence, with parameters, gradients and AdamW's moments in
bf16, and count whole steps, optimizer and clipping included. transformers is given its fastest own way: SDPA attention,
fused AdamW, and gradient checkpointing only on request. Needs torch and transformers; options of llama3d follow `--`.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


class CompareError(Exception):
    """One line: problem; what to do."""


# --- transformers, in a process of its own, so that its memory is free afterwards -----------------------------------


def train_transformers(arguments: argparse.Namespace) -> float:
    """Median tokens/s over the steps after warm-up."""
    import torch
    import transformers

    config = transformers.LlamaConfig.from_json_file(arguments.model)
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config).train()
    if arguments.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    forward = torch.compile(model) if arguments.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    accumulated = arguments.global_batch_size // arguments.micro_batch_size
    shape = (accumulated, arguments.micro_batch_size, arguments.seq_length)
    tokens = torch.randint(config.vocab_size, shape, device="cuda")
    seconds = []
    for _ in range(arguments.warmup + arguments.steps):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for batch in tokens:
            (forward(input_ids=batch, labels=batch, use_cache=False).loss / accumulated).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return tokens.numel() / statistics.median(seconds[arguments.warmup:])


# --- turns -------------------------------------------------------------------------------------------------------


def output_of(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise CompareError(f"{command[0]} can't be started ({error.strerror}); give its path") from None
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise CompareError(f"{command[0]} failed with status {result.returncode}: {said[-1] if said else 'no message'}")
    return result.stdout


def turn_of_transformers(_: argparse.Namespace) -> float:
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--turn", *sys.argv[1:]]
    found = re.search(r"^transformers ([\d.]+)$", output_of(command), re.MULTILINE)
    if not found:
        raise CompareError("the turn of transformers printed no result")
    return float(found[1])


def turn_of_llama3d(arguments: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder:
        output = output_of([
            str(arguments.llama3d.absolute()), "bench", "step", "--model", str(arguments.model), "--device", "cuda",
            "--precision", "bf16", "--master-weights", "none", "--gradient-dtype", "bf16", "--optimizer-dtype", "bf16",
            "--micro-batch-size", str(arguments.micro_batch_size), "--global-batch-size",
            str(arguments.global_batch_size), "--seq-length", str(arguments.seq_length), "--steps",
            str(arguments.steps), "--warmup", str(arguments.warmup), "--output", f"{folder}/bench.h5",
            *arguments.options])
    found = re.search(r"^(\d+) tokens/s/rank", output, re.MULTILINE)
    if not found:
        raise CompareError("llama3d bench step printed no tokens/s")
    return float(found[1])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=REPOSITORY / "jobs/presets/llama3.2-1b.json",
                        help="config.json (default: llama3.2-1b)")
    parser.add_argument("--llama3d", type=pathlib.Path, default=REPOSITORY / "build/release/bin/llama3d")
    parser.add_argument("--micro-batch-size", type=int, default=4, help="sequences (default: 4)")
    parser.add_argument("--global-batch-size", type=int, default=16, help="sequences a step (default: 16)")
    parser.add_argument("--seq-length", type=int, default=4096, help="tokens (default: 4096)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a turn (default: 5)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (default: 2)")
    parser.add_argument("--rounds", type=int, default=1, help="turns each (default: 1)")
    parser.add_argument("--checkpointing", action="store_true", help="transformers recomputes every layer")
    parser.add_argument("--compile", action="store_true", help="transformers through torch.compile")
    parser.add_argument("--turn", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help="more options of `llama3d bench step`, behind --")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if arguments.turn:
        print(f"transformers {train_transformers(arguments):.1f}")
        return 0
    sides = {"transformers": turn_of_transformers, "llama3d": turn_of_llama3d}
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    try:
        for _ in range(arguments.rounds):
            for side, turn in sides.items():
                speeds[side].append(turn(arguments))
                print(f"{side:<14} {speeds[side][-1]:>10,.0f} tokens/s", flush=True)
    except CompareError as error:
        print(f"compare_transformers.py: {error}", file=sys.stderr)
        return 3
    medians = {side: statistics.median(values) for side, values in speeds.items()}
    print(f"llama3d / transformers: {medians['llama3d'] / medians['transformers']:.2f} (medians of "
          f"{arguments.rounds} turns each)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
