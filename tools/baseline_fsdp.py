#!/usr/bin/env python3
"""The baseline of the reference table: transformers with PyTorch's FSDP, every parameter trained, on all GPUs of a host.

Random tokens; parameters, gradients and AdamW's moments sharded over all ranks (ZeRO-3) in bf16, one layer a unit, SDPA
attention, every layer recomputed unless --no-checkpointing. Gradients are reduced with every micro-batch's last backward
only. Needs torch and transformers:

  torchrun --nproc-per-node 8 tools/baseline_fsdp.py --model jobs/presets/llama3-8b.json
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import time

import torch
import torch.distributed as dist
import transformers
from torch.distributed.fsdp import fully_shard

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=REPOSITORY / "jobs/presets/llama3-8b.json", help="config.json")
    parser.add_argument("--micro-batch-size", type=int, default=1, help="sequences (default: 1)")
    parser.add_argument("--global-batch-size", type=int, default=128, help="sequences a step, all ranks (default: 128)")
    parser.add_argument("--seq-length", type=int, default=4096, help="tokens (default: 4096)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps (default: 3)")
    parser.add_argument("--warmup", type=int, default=1, help="steps before them (default: 1)")
    parser.add_argument("--no-checkpointing", action="store_true", help="layers are not recomputed")
    parser.add_argument("--keep-parameters", action="store_true",
                        help="parameters stay gathered from forward to backward (ZeRO-2)")
    return parser.parse_args()


def make_model(arguments: argparse.Namespace, device: torch.device) -> torch.nn.Module:
    """Sharded before it takes memory: a rank never holds the whole model."""
    config = transformers.LlamaConfig.from_json_file(arguments.model)
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).train()
    if not arguments.no_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = not arguments.keep_parameters
    for layer in model.model.layers:
        fully_shard(layer, reshard_after_forward=again)
    fully_shard(model, reshard_after_forward=again)
    model.to_empty(device=device)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=config.initializer_range)
    # Its tables are no parameters, and were made without memory.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    return model


def time_steps(arguments: argparse.Namespace, model: torch.nn.Module, device: torch.device) -> list[float]:
    ranks = dist.get_world_size()
    accumulated = arguments.global_batch_size // (arguments.micro_batch_size * ranks)
    if accumulated * arguments.micro_batch_size * ranks != arguments.global_batch_size:
        raise SystemExit(f"--global-batch-size {arguments.global_batch_size} is no multiple of micro-batch size x ranks")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    shape = (accumulated, arguments.micro_batch_size, arguments.seq_length)
    tokens = torch.randint(model.config.vocab_size, shape, device=device)
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = []
    for _ in range(arguments.warmup + arguments.steps):
        dist.barrier()
        synchronize()
        begin = time.perf_counter()
        for index, batch in enumerate(tokens):
            model.set_requires_gradient_sync(index == accumulated - 1)
            (model(input_ids=batch, labels=batch, use_cache=False).loss / accumulated).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize()
        dist.barrier()
        seconds.append(time.perf_counter() - begin)
    return seconds[arguments.warmup:]


def main() -> None:
    arguments = parse()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    seconds = statistics.median(time_steps(arguments, make_model(arguments, device), device))
    if dist.get_rank() == 0:
        tokens = arguments.global_batch_size * arguments.seq_length
        memory = torch.cuda.max_memory_reserved() / 2**30 if on_gpu else float("nan")
        print(f"transformers {transformers.__version__}, torch {torch.__version__}, FSDP on {dist.get_world_size()} ranks: "
              f"{seconds:.3f} s a step, {tokens / seconds / dist.get_world_size():,.1f} tokens/s/rank, "
              f"{memory:.2f} GiB reserved")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
