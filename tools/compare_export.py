#!/usr/bin/env python3
"""Loads what `llama3d export` writes in transformers and compares.

1. A folder that transformers saved goes through import and export: transformers must get the same logits of both, bit
   for bit, and llama3d the loss that transformers gets.
2. A model that llama3d trained on four ranks is exported: transformers must load it without a tensor missing or left
   over, and get the loss that `llama3d eval` prints.

For fp32, bf16 and fp16 folders, tied and untied, with and without Llama 3.1's rotary scaling. Needs torch, transformers
and h5py.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import tempfile

import h5py
import torch
import transformers

from program import Program

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
SEQUENCE = 128
TOLERANCE = 1e-5
LLAMA_3_1_ROPE = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_position_embeddings=512)
CASES = {
    "fp32 untied": dict(dtype=torch.float32),
    "bf16 tied, scaled rotary": dict(dtype=torch.bfloat16, tie_word_embeddings=True, rope_parameters=LLAMA_3_1_ROPE),
    "fp16 untied": dict(dtype=torch.float16),
}


class Llama3d(Program):
    def loss(self, weights: str, precision: str = "fp32") -> float:
        out = self.run("eval", "--load", weights, "--data", "tokens.h5", "--samples", 8, "--seq-length", SEQUENCE,
                       "--device", "cpu", "--no-separate-documents", "--precision", precision)
        return float(re.search(r"loss (\S+)", out).group(1))


def batch(tokens: pathlib.Path) -> torch.Tensor:
    """(8, SEQUENCE + 1): the samples of llama3d's loss."""
    with h5py.File(tokens) as file:
        ids = torch.from_numpy(file["tokens"][: 8 * SEQUENCE + 1].astype("int64"))
    return ids.unfold(0, SEQUENCE + 1, SEQUENCE)


def logits_of(folder: pathlib.Path, ids: torch.Tensor) -> torch.Tensor:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                                    output_loading_info=True)
    wrong = {key: value for key, value in info.items() if value}
    if wrong:
        raise SystemExit(f"transformers loads {folder} with {wrong}")
    with torch.no_grad():
        return model(input_ids=ids[:, :-1], use_cache=False).logits


def loss_of(logits: torch.Tensor, ids: torch.Tensor) -> float:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), ids[:, 1:].flatten()).item()


def expect(condition: bool, text: str) -> None:
    print(("ok      " if condition else "WRONG   ") + text, flush=True)
    if not condition:
        raise SystemExit(1)


def check_round_trip(program: Llama3d, ids: torch.Tensor, name: str, options: dict) -> None:
    options = dict(options)
    dtype = options.pop("dtype")
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=259, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=1024, initializer_range=0.08, **options)
    source = program.folder / name
    transformers.LlamaForCausalLM(config).to(dtype).save_pretrained(source)
    program.run("import", "--input", name, "--output", f"{name}.checkpoint")
    program.run("export", "--input", f"{name}.checkpoint", "--output", f"{name}.back", "--shard-size", "500KB")
    before, after = logits_of(source, ids), logits_of(program.folder / f"{name}.back", ids)
    expect(torch.equal(before, after), f"{name}: imported and exported, the same logits in every bit")
    for weights in (name, f"{name}.checkpoint"):
        ours, theirs = program.loss(weights), loss_of(before, ids)
        difference = abs(ours - theirs) / theirs
        expect(difference < TOLERANCE, f"{weights}: loss {ours:.6f} here, {theirs:.6f} there ({difference:.1e})")


def check_trained(program: Llama3d, ids: torch.Tensor) -> None:
    program.run("train", "--model", "llama3-tiny", "--data", "tokens.h5", "--seq-length", SEQUENCE, "--steps", 20,
                "--micro-batch-size", 4, "--global-batch-size", 8, "--learning-rate", 3e-3, "--tp-size", 2, "--pp-size",
                2, "--device", "cpu", "--output-dir", "run", ranks=4)
    checkpoint = "run/checkpoints/step_00000020"
    program.run("export", "--input", checkpoint, "--output", "trained")
    theirs = loss_of(logits_of(program.folder / "trained", ids), ids)
    for weights in (checkpoint, "trained"):
        ours = program.loss(weights)
        difference = abs(ours - theirs) / theirs
        expect(difference < TOLERANCE, f"{weights}: loss {ours:.6f} here, {theirs:.6f} there ({difference:.1e})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama3d", type=pathlib.Path, default=REPOSITORY / "build/release/bin/llama3d")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        program = Llama3d(arguments.llama3d.resolve(), pathlib.Path(folder))
        program.run("tokenize", "--tokenizer", "bytes", "--input", REPOSITORY / "jobs/data/pride_and_prejudice.txt",
                    "--output", "tokens.h5")
        ids = batch(program.folder / "tokens.h5")
        for name, options in CASES.items():
            check_round_trip(program, ids, name.replace(" ", "_").replace(",", ""), options)
        check_trained(program, ids)


if __name__ == "__main__":
    main()
