#!/usr/bin/env python3
"""Times Llama 3's tokenizer in tiktoken and in llama3d on the same core, by turns, and compares the tokens.

tiktoken is timed on one call with the whole text in memory. llama3d is timed as the program: what 1 + --copies files
take beyond one, from reading to the written token file, so that its start does not count. Needs tiktoken and h5py.
"""

from __future__ import annotations

import argparse
import base64
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import h5py
import tiktoken

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
EXPRESSION = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
              r"|\s+(?!\S)|\s+")


def load_tiktoken(path: pathlib.Path) -> tiktoken.Encoding:
    ranks = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return tiktoken.Encoding("llama3", pat_str=EXPRESSION, mergeable_ranks=ranks, special_tokens={})


def tokenize(program: pathlib.Path, tokenizer: pathlib.Path, text: pathlib.Path, count: int, output: str) -> float:
    """Seconds."""
    command = [program, "tokenize", "--tokenizer", tokenizer, "--threads", "1", "--output", output,
               "--input", *[text] * count]
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def tokens_in(path: str) -> list[int]:
    """Of the only document, without begin and end of text."""
    with h5py.File(path, "r") as file:
        return file["tokens"][1:-1].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True, help="Llama 3's tokenizer.model")
    parser.add_argument("--text", type=pathlib.Path, required=True, help="file of UTF-8 text")
    parser.add_argument("--llama3d", type=pathlib.Path, default=REPOSITORY / "build/release/bin/llama3d")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; medians count (default: 5)")
    parser.add_argument("--copies", type=int, default=20, help="of the text in a turn of llama3d (default: 20)")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the program's reading and encoding share it
    encoding = load_tiktoken(arguments.tokenizer)
    content = arguments.text.read_bytes()
    text = content.decode("utf-8-sig")
    theirs, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        output = f"{folder}/tokens.h5"
        one = (arguments.llama3d, arguments.tokenizer, arguments.text, 1, output)
        tokenize(*one)
        same = tokens_in(output) == encoding.encode_ordinary(text)
        for _ in range(arguments.rounds):
            begin = time.perf_counter()
            encoding.encode_ordinary(text)
            theirs.append(len(content) / (time.perf_counter() - begin) / 1e6)
            start = tokenize(*one)
            more = tokenize(*one[:3], 1 + arguments.copies, output) - start
            ours.append(arguments.copies * len(content) / more / 1e6)
    for name, rates in (("tiktoken", theirs), ("llama3d", ours)):
        print(f"{name:<9} {statistics.median(rates):6.1f} MB/s  ({min(rates):.1f} to {max(rates):.1f})")
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"ratio {ratio:.2f}; the tokens of {arguments.text.name} are {'the same' if same else 'NOT the same'}")
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
