#!/usr/bin/env python3
"""Times causal attention of PyTorch's FLASH_ATTENTION and of llama3d on the same GPU, one after the other.

One sequence, bf16, grouped-query heads of Llama 3 8B (32 over 8 of 128) and Llama 3.2 1B (32 over 8 of 64). Needs torch.
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import tempfile

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
MODELS = {"llama3-8b": 128, "llama3.2-1b": 64}


def median_ms(call, repeats: int) -> float:
    times = []
    for repeat in range(repeats + 5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        if repeat >= 5:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def time_torch(head_dim: int, sequence: int, repeats: int) -> tuple[float, float]:
    """Forward and backward, ms."""

    def heads(count: int) -> torch.Tensor:
        return torch.randn(1, count, sequence, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    q, k, v = heads(32), heads(8), heads(8)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):

        def forward() -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        out = forward()
        gradient = torch.randn_like(out)
        return median_ms(forward, repeats), median_ms(
            lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True), repeats)


def time_llama3d(program: pathlib.Path, model: str, sequence: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "bench", "attention", "--model", model, "--device", "cuda", "--precision", "bf16",
                   "--micro-batch-size", "1", "--seq-length", str(sequence), "--output", f"{folder}/bench.h5"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    forward, backward = (float(re.search(rf"^{way} .*?([\d.]+) ms", text, re.M)[1])
                         for way in ("forward", "backward"))
    return forward, backward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama3d", type=pathlib.Path, default=REPOSITORY / "build/release/bin/llama3d")
    parser.add_argument("--seq-length", type=int, default=4096, help="tokens (default: 4096)")
    parser.add_argument("--repeats", type=int, default=30, help="timed calls; the median counts (default: 30)")
    arguments = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, 1 x {arguments.seq_length}; ms forward, backward")
    for model, head_dim in MODELS.items():
        theirs = time_torch(head_dim, arguments.seq_length, arguments.repeats)
        ours = time_llama3d(arguments.llama3d, model, arguments.seq_length)
        print(f"{model:<12} torch {theirs[0]:.3f} {theirs[1]:.3f}   llama3d {ours[0]:.3f} {ours[1]:.3f}   "
              f"llama3d is {theirs[0] / ours[0]:.2f} and {theirs[1] / ours[1]:.2f} times as fast")


if __name__ == "__main__":
    main()
