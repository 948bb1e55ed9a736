"""Instruction data with Llama 3's own tokenizer against transformers, record for record: LLAMA3D_TEST_TOKENIZER is a
tokenizer.model, LLAMA3D_TEST_ALPACA a JSON array of Alpaca records.

Exit status 77, skipped, where the variables or transformers are not there.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

PROGRAM = pathlib.Path(sys.argv[1]).resolve()
SKIPPED = 77
EXPRESSION = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
              r"|\s+(?!\S)|\s+")  # fmt: skip
SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)),
    "<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>",
]  # fmt: skip


def conversation_of(record):
    """As LLaMA-Factory reads an Alpaca record."""
    made = [{"role": "system", "content": record["system"]}] if record.get("system") else []
    for question, answer in record.get("history") or []:
        made += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    query = "\n".join(part for part in (record["instruction"], record.get("input")) if part)
    return [*made, {"role": "user", "content": query}, {"role": "assistant", "content": record["output"]}]


def main():
    names = [os.environ.get(f"LLAMA3D_TEST_{name}") for name in ("TOKENIZER", "ALPACA")]
    if not all(names):
        print("skipped: LLAMA3D_TEST_TOKENIZER and LLAMA3D_TEST_ALPACA name no files")
        sys.exit(SKIPPED)
    sys.path.insert(0, str(pathlib.Path(__file__).parent / "chat"))
    try:
        import h5py
        from transformers.convert_slow_tokenizer import TikTokenConverter
        from transformers_chat import chat_tokenizer, learned, render
    except ImportError as error:
        print(f"skipped: {error}")
        sys.exit(SKIPPED)
    converter = TikTokenConverter(vocab_file=names[0], pattern=EXPRESSION, extra_special_tokens=SPECIAL)
    tokenizer = chat_tokenizer(tokenizer_object=converter.converted())
    conversations = [conversation_of(record) for record in json.loads(pathlib.Path(names[1]).read_text())]
    with tempfile.TemporaryDirectory() as folder:
        output = f"{folder}/tokens.h5"
        command = [PROGRAM, "tokenize", "--tokenizer", names[0], "--input", names[1], "--output", output, "--strict"]
        subprocess.run(command, check=True)
        with h5py.File(output, "r") as file:
            tokens, mask, offsets = (file[name][:].tolist() for name in ("tokens", "loss_mask", "documents"))
    assert len(offsets) == len(conversations) + 1, (len(offsets), len(conversations))
    for conversation, begin, end in zip(conversations, offsets, offsets[1:]):
        assert tokens[begin:end] == render(tokenizer, conversation), conversation
        assert mask[begin:end] == learned(tokenizer, conversation), conversation
    print(f"{len(conversations)} conversations, {len(tokens)} tokens: the same as transformers'")


if __name__ == "__main__":
    main()
