#!/usr/bin/env python3
"""Trains one model with PyTorch (transformers' Llama) and with llama3d on the CPU, by turns, and compares tokens/s.

Both run in fp32 on the same cores with the same micro-batch, sequence, global batch, tokens and AdamW. They take turns
(PyTorch, llama3d, PyTorch, llama3d, ...), so that a busy or throttling machine is busy for both. Run it on an idle
machine: a thread that waits for a core holds up its whole team. Needs torch, transformers and h5py.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, GRAD_CLIP = 3e-4, (0.9, 0.95), 1e-8, 0.1, 1.0


class CompareError(Exception):
    """One line: problem (why); what to do."""


@dataclasses.dataclass
class Turn:
    side: str
    tokens_per_second: float  # median over the steps after warm-up
    last_loss: float
    load: float  # processes that wanted a core when the turn began, averaged over a minute


# --- PyTorch -----------------------------------------------------------------------------------------------------


def make_model(path: pathlib.Path) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig.from_json_file(path)
    config._attn_implementation = "sdpa"
    return transformers.LlamaForCausalLM(config).float().train()


def make_optimizer(model: Any) -> Any:
    import torch

    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, fused=True)


def torch_step(model: Any, parameters: list[Any], optimizer: Any, batches: Any) -> float:
    """batches: (micro-batches, M, S + 1). The mean loss."""
    import torch

    total = 0.0
    for batch in batches:
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()) / len(batches)
        loss.backward()
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_(parameters, GRAD_CLIP, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(total)


def run_torch(arguments: argparse.Namespace, tokens: Any) -> tuple[list[float], float]:
    """Seconds of each step, and the last loss."""
    import torch

    torch.set_num_threads(arguments.cores)
    model = make_model(arguments.model)
    parameters = list(model.parameters())
    optimizer = make_optimizer(model)
    forward = torch.compile(model) if arguments.torch_compile else model
    seconds, loss = [], 0.0
    width = arguments.seq_length + 1
    samples = torch.from_numpy(tokens[: tokens.size // width * width].astype("int64")).view(-1, width)
    for step in range(arguments.steps):
        begin = time.perf_counter()
        chosen = (step * arguments.global_batch_size + torch.arange(arguments.global_batch_size)) % len(samples)
        batches = samples[chosen].view(-1, arguments.micro_batch_size, width)
        loss = torch_step(forward, parameters, optimizer, batches)
        seconds.append(time.perf_counter() - begin)
    return seconds, loss


# --- llama3d -----------------------------------------------------------------------------------------------------


def mpirun(arguments: argparse.Namespace) -> list[str]:
    command = ["mpirun", "-np", str(arguments.ranks), "--oversubscribe", "--bind-to", "none"]
    if os.geteuid() == 0:
        command.append("--allow-run-as-root")
    return command


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    threads = max(1, arguments.cores // arguments.ranks)
    return os.environ | {"OMP_NUM_THREADS": str(threads)}


def call(command: list[str], **options: Any) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, **options)
    except OSError as error:
        raise CompareError(f"{command[0]} can't be started ({error.strerror}); give its path or install it") from None
    if result.returncode != 0:
        reason = first_line(result.stderr) or first_line(result.stdout) or "it said nothing"
        raise CompareError(f"`{shlex.join(command)}` failed with status {result.returncode} ({reason})")


def first_line(text: str) -> str:
    """The first line with words: mpirun draws lines of dashes."""
    return next((line.strip() for line in text.splitlines() if line.strip("- ")), "")


def run_llama3d(arguments: argparse.Namespace, data: pathlib.Path) -> tuple[list[float], float]:
    """Tokens a second of each step, and the last loss."""
    import h5py

    with tempfile.TemporaryDirectory() as output:
        command = [*mpirun(arguments), str(arguments.llama3d), "train", "--model", str(arguments.model),
                   "--data", str(data), "--output-dir", output, "--steps", str(arguments.steps),
                   "--micro-batch-size", str(arguments.micro_batch_size),
                   "--global-batch-size", str(arguments.global_batch_size), "--seq-length", str(arguments.seq_length),
                   "--device", "cpu", "--precision", "fp32", *shlex.split(arguments.llama3d_options)]
        call(command, env=environment(arguments))
        with h5py.File(pathlib.Path(output) / "metrics.h5", "r") as file:
            return list(file["train"]["tokens_per_second"]), float(file["train"]["loss"][-1])


def tokenize(arguments: argparse.Namespace, folder: pathlib.Path) -> pathlib.Path:
    if arguments.data:
        return arguments.data
    output = folder / "tokens.h5"
    call([str(arguments.llama3d), "tokenize", "--tokenizer", "bytes", "--input", str(arguments.text), "--output", str(output)])
    return output


# --- comparison --------------------------------------------------------------------------------------------------


def load_average() -> float:
    return os.getloadavg()[0]


def torch_turn(arguments: argparse.Namespace, tokens: Any) -> Turn:
    load = load_average()
    seconds, loss = run_torch(arguments, tokens)
    batch_tokens = arguments.global_batch_size * arguments.seq_length
    return Turn("PyTorch", batch_tokens / statistics.median(seconds[arguments.warmup :]), loss, load)


def llama3d_turn(arguments: argparse.Namespace, data: pathlib.Path) -> Turn:
    load = load_average()
    speeds, loss = run_llama3d(arguments, data)
    return Turn("llama3d", statistics.median(speeds[arguments.warmup :]), loss, load)


def print_turn(number: int, turn: Turn) -> None:
    print(f"{number:>4}  {turn.side:<8} {turn.tokens_per_second:>10,.0f} {turn.last_loss:>10.4f} {turn.load:>6.2f}", flush=True)


def print_summary(turns: list[Turn]) -> None:
    medians = {}
    for side in dict.fromkeys(turn.side for turn in turns):
        speeds = [turn.tokens_per_second for turn in turns if turn.side == side]
        medians[side] = statistics.median(speeds)
        print(f"{side}: {medians[side]:,.0f} tokens/s (median of {len(speeds)} turns, {min(speeds):,.0f} to {max(speeds):,.0f})")
    if len(medians) == 2:
        print(f"llama3d / PyTorch: {medians['llama3d'] / medians['PyTorch']:.2f}")


def read_tokens(path: pathlib.Path) -> Any:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return file["tokens"][:]
    except (OSError, KeyError) as error:
        raise CompareError(f"--data {path} can't be read ({str(error).splitlines()[0]}); "
                           "give what `llama3d tokenize` wrote") from None


def random_tokens(arguments: argparse.Namespace) -> Any:
    """For PyTorch alone, without a token file: speed does not depend on them."""
    import json

    import numpy as np

    vocabulary = json.loads(arguments.model.read_text())["vocab_size"]
    return np.random.default_rng(0).integers(vocabulary, size=64 * (arguments.seq_length + 1) * arguments.global_batch_size)


def compare(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    alone = arguments.only == "pytorch"
    data = None if alone and not arguments.data else tokenize(arguments, folder)
    tokens = random_tokens(arguments) if data is None else read_tokens(data)
    print(f"{arguments.model.stem}: micro-batch {arguments.micro_batch_size}, global batch {arguments.global_batch_size}, "
          f"sequence {arguments.seq_length}, fp32, {arguments.cores} cores, {arguments.ranks} rank(s) of llama3d, "
          f"{arguments.steps} steps, the first {arguments.warmup} not counted")
    print("turn  side       tokens/s  last loss   load")
    turns: list[Turn] = []
    for _ in range(arguments.rounds):
        for side in ("pytorch", "llama3d"):
            if arguments.only in (side, "both"):
                turns.append(torch_turn(arguments, tokens) if side == "pytorch" else llama3d_turn(arguments, data))
                print_turn(len(turns), turns[-1])
    print_summary(turns)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--model", type=pathlib.Path, default=REPOSITORY / "jobs/presets/llama3-tiny.json", help="config.json of the model")
    add("--llama3d", type=pathlib.Path, default=REPOSITORY / "build/release/bin/llama3d", help="the program")
    add("--ranks", type=int, default=1, help="processes of llama3d; the cores are shared out among them")
    add("--llama3d-options", default="", help='further options of `llama3d train`, such as "--tp-size 2"')
    add("--text", type=pathlib.Path, default=REPOSITORY / "jobs/data/pride_and_prejudice.txt",
        help="text to train on, as bytes")
    add("--data", type=pathlib.Path, help="token file to train on instead of --text")
    add("--cores", type=int, default=len(os.sched_getaffinity(0)), help="processor cores of either side")
    add("--micro-batch-size", type=int, default=32, help="samples of a forward pass")
    add("--global-batch-size", type=int, help="samples of a step (None: one micro-batch a rank)")
    add("--seq-length", type=int, default=128, help="tokens of a sample")
    add("--steps", type=int, default=20, help="steps of a turn")
    add("--warmup", type=int, default=5, help="first steps of a turn that don't count")
    add("--rounds", type=int, default=2, help="turns of each side")
    add("--only", choices=("both", "pytorch", "llama3d"), default="both", help="time one side alone")
    add("--torch-compile", action="store_true", help="compile the PyTorch model (needs a C++ compiler)")
    return parser.parse_args()


def check(arguments: argparse.Namespace) -> None:
    if arguments.global_batch_size is None:
        arguments.global_batch_size = arguments.micro_batch_size * arguments.ranks
    if arguments.global_batch_size % arguments.micro_batch_size != 0:
        raise CompareError(f"--global-batch-size {arguments.global_batch_size} does not fit (no multiple of "
                           f"--micro-batch-size {arguments.micro_batch_size}); give a multiple")
    if not arguments.steps > arguments.warmup >= 0:
        raise CompareError(f"--warmup {arguments.warmup} leaves none of --steps {arguments.steps}; give more steps")
    if not arguments.model.is_file():
        raise CompareError(f"--model {arguments.model} can't be read (no such file); give a config.json, as in jobs/presets")
    cores = sorted(os.sched_getaffinity(0))
    if arguments.cores > len(cores):
        raise CompareError(f"--cores {arguments.cores} is too many (this machine gives {len(cores)}); give fewer")
    os.sched_setaffinity(0, cores[: arguments.cores])  # llama3d inherits it


def main() -> int:
    arguments = parse_arguments()
    try:
        check(arguments)
        with tempfile.TemporaryDirectory() as folder:
            compare(arguments, pathlib.Path(folder))
    except (CompareError, ModuleNotFoundError) as error:
        print(f"compare_pytorch.py: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
