#!/usr/bin/env python3
"""Proves the whole chain on instruction data: a tiny model learns records by heart and answers with them, here and in
transformers.

Tokenizes the first records that are short enough, trains on four ranks (TP 2, DP 2) with loss on the answers, lets
llama3d answer every record, exports the model, loads it in transformers, and compares: every answer must be the
record's own, and both programs' the same. Needs torch, transformers and a JSON array of Alpaca records. Exit status 1
when an answer differs.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
import time

import torch
import transformers

from program import Program

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
BEGIN_OF_TEXT, END_OF_TEXT = 256, 257  # of the byte tokenizer


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="JSON array of Alpaca records")
    parser.add_argument("--llama3d", type=pathlib.Path, default=REPOSITORY / "build/release/bin/llama3d")
    parser.add_argument("--records", type=int, default=200, help="records to learn (default: 200)")
    parser.add_argument("--longest", type=int, default=400, help="most bytes of a record (default: 400)")
    parser.add_argument("--steps", type=int, default=1200, help="training steps (default: 1200)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="the highest (default: 0.003)")
    parser.add_argument("--ranks", type=int, default=4, help="ranks that train, a multiple of 2 (default: 4)")
    return parser.parse_args()


def short_records(arguments: argparse.Namespace) -> list[dict[str, str]]:
    """Different questions: no model could answer the same one in two ways."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for record in json.loads(arguments.data.read_text(encoding="utf-8")):
        texts = record["instruction"], record.get("input") or "", record["output"]
        if texts[2].strip() and sum(len(text.encode()) for text in texts) <= arguments.longest:
            found.setdefault(texts[:2], record)
        if len(found) == arguments.records:
            return list(found.values())
    raise SystemExit(f"--data {arguments.data} has {len(found)} different records of at most {arguments.longest} bytes, "
                     f"not {arguments.records}")


def answers_of_transformers(folder: pathlib.Path, prompts: list[str], most: int) -> list[str]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for prompt in prompts:
        ids = torch.tensor([[BEGIN_OF_TEXT, *prompt.encode()]])
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=most,
                                 eos_token_id=END_OF_TEXT, pad_token_id=END_OF_TEXT)
        new = [token for token in out[0, ids.shape[1]:].tolist() if token < BEGIN_OF_TEXT]
        answers.append(bytes(new).decode("utf-8", "replace"))
    return answers


def main() -> int:
    arguments = parse()
    records = short_records(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        program = Program(arguments.llama3d, folder)
        (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
        print(program.run("tokenize", "--tokenizer", "bytes", "--input", "records.json", "--output", "tokens.h5",
                          "--strict"), end="")
        begin = time.monotonic()
        program.run("train", "--model", "llama3-tiny", "--data", "tokens.h5", "--seq-length", 512, "--global-batch-size", 8,
                    "--micro-batch-size", 4, "--steps", arguments.steps, "--learning-rate", arguments.learning_rate,
                    "--min-learning-rate", 0, "--warmup-steps", 50, "--tp-size", 2, "--device", "cpu", "--output-dir", "run",
                    ranks=arguments.ranks)
        print(f"trained on {arguments.ranks} ranks in {time.monotonic() - begin:.0f} s")
        checkpoint = f"run/checkpoints/step_{arguments.steps:08d}"
        program.run("generate", "--load", checkpoint, "--tokenizer", "bytes", "--data", "records.json", "--output",
                    "answers.jsonl", "--max-new-tokens", arguments.longest + 1, "--device", "cpu")
        program.run("export", "--input", checkpoint, "--output", "exported")
        rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")]
        theirs = answers_of_transformers(folder / "exported", [row["prompt"] for row in rows], arguments.longest + 1)
    right = sum(row["predict"] == row["label"].strip() for row in rows)
    same = sum(row["predict"] == answer for row, answer in zip(rows, theirs))
    print(f"{right} of {len(rows)} answers are the records', {same} of {len(rows)} the same in transformers "
          f"{transformers.__version__}")
    return 0 if right == same == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
