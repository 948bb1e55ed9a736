"""Llama 3's own tokenizer against tiktoken, token for token: LLAMA3D_TEST_TOKENIZER is a tokenizer.model,
LLAMA3D_TEST_TEXT a text, JSON or JSON-lines file, each line and string of which is a document.

Exit status 77, skipped, where the variables or tiktoken are not there.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

PROGRAM, TOOLS = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
SKIPPED = 77
RANDOM_TEXTS = 20000


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_in(item)


def documents_of(path):
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        return list(strings_in(json.loads(text)))
    lines = text.splitlines()
    if path.suffix in (".jsonl", ".ndjson"):
        return [string for line in lines if line.strip() for string in strings_in(json.loads(line))]
    return [text, *lines]


def random_texts(draw):
    """Characters of every length, among what the regular expression treats apart."""
    odd = [" ", "\n", "\r\n", "\t", "\u00a0", "'s", "'LL", "'\u017f", "a", "Z", "\u00e9", "1", "22", "!", "\u4e2d",
           "<|eot_id|>"]  # fmt: skip
    for _ in range(RANDOM_TEXTS):
        letters = []
        for _ in range(draw.randrange(1, 30)):
            c = draw.randrange(draw.choice([0x80, 0x800, 0x10000, 0x110000]))
            letters.append(draw.choice([*odd, chr(c) if c > 0 and not 0xD800 <= c < 0xE000 else " "]))
        yield "".join(letters)


def main():
    names = [os.environ.get(f"LLAMA3D_TEST_{name}") for name in ("TOKENIZER", "TEXT")]
    if not all(names):
        print("skipped: LLAMA3D_TEST_TOKENIZER and LLAMA3D_TEST_TEXT name no files")
        sys.exit(SKIPPED)
    sys.path.insert(0, TOOLS)
    try:
        import h5py
        from compare_tokenizer import load_tiktoken
    except ImportError as error:
        print(f"skipped: {error}")
        sys.exit(SKIPPED)
    tokenizer, text = map(pathlib.Path, names)
    encoding = load_tiktoken(tokenizer)
    documents = [d for d in documents_of(text) + list(random_texts(random.Random(1))) if d.strip(" \t\r\n\v\f")]
    with tempfile.TemporaryDirectory() as folder:
        lines = pathlib.Path(folder) / "documents.jsonl"
        lines.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
        output = f"{folder}/tokens.h5"
        command = [PROGRAM, "tokenize", "--tokenizer", tokenizer, "--input", lines, "--output", output]
        subprocess.run(command, check=True)
        with h5py.File(output, "r") as file:
            tokens, offsets = file["tokens"][:].tolist(), file["documents"][:].tolist()
    assert len(offsets) == len(documents) + 1, (len(offsets), len(documents))
    differing = [
        document
        for document, begin, end in zip(documents, offsets, offsets[1:])
        if tokens[begin + 1 : end - 1] != encoding.encode_ordinary(document)
    ]
    assert not differing, f"{len(differing)} of {len(documents)} documents differ, as {differing[0][:100]!r}"
    print(f"{len(documents)} documents, {len(tokens)} tokens: the same as tiktoken's")


if __name__ == "__main__":
    main()
