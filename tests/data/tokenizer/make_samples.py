#!/usr/bin/env python3
"""Makes the files beside this script: a small tokenizer in the formats of Llama 3's, and what it makes of texts.

tiktoken computes the tokens of tokenizer.model, tokenizers those of the two tokenizer.json. Needs both; the files in the
repository were made with the versions in golden.json.
"""

import base64
import json
import pathlib
import random
import sys
import unicodedata

import tiktoken
import tokenizers

HERE = pathlib.Path(__file__).resolve().parent
BOOK = HERE.parents[2] / "jobs/data/pride_and_prejudice.txt"
EXPRESSION = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
              r"|\s+(?!\S)|\s+")
RANKS = 1200
# A token that no merges lead to: only a look at whole pieces finds it.
UNREACHABLE = b" zqxjk"
SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)),
    "<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(5, 251)),
]  # fmt: skip


def byte_spelling() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(0x100 + i) for i, b in enumerate(others)}


SPELLING = byte_spelling()


def spelled(token: bytes) -> str:
    return "".join(SPELLING[b] for b in token)


def train() -> list[bytes]:
    """Tokens by rank: all bytes, then merges, then the unreachable one."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(EXPRESSION), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=RANKS, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    model.train([str(BOOK)], trainer)
    back = {letter: b for b, letter in SPELLING.items()}
    vocabulary = sorted(model.get_vocab().items(), key=lambda item: item[1])
    learned = [bytes(back[c] for c in token) for token, _ in vocabulary]
    return [bytes([b]) for b in range(256)] + [token for token in learned if len(token) > 1] + [UNREACHABLE]


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    found = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ranks and right in ranks:
                found.append((rank, ranks[left], ranks[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def tokenizer_json(ranks: dict[bytes, int], ignore_merges: bool, pairs: bool) -> dict:
    """As Hugging Face publishes it: merges as pairs and looking at whole pieces first, or merges as strings."""
    merges = [(spelled(left), spelled(right)) for left, right in merges_of(ranks)]
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": len(ranks) + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for i, name in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": EXPRESSION}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            **({"ignore_merges": True} if ignore_merges else {}),
            "vocab": {spelled(token): rank for token, rank in ranks.items()},
            "merges": [list(merge) for merge in merges] if pairs else [" ".join(merge) for merge in merges],
        },
    }  # fmt: skip


def texts() -> list[str]:
    draw = random.Random(3)
    book = BOOK.read_text()
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    by_category: dict[str, list[int]] = {}
    for c in points:
        by_category.setdefault(unicodedata.category(chr(c)), []).append(c)
    odd = [" ", "  ", "\n", "\r\n", "\r", "\t", "\u00a0", "\u3000", "\u2028", "\x85", "'s", "'\u017f", "'LL", "'rE",
           "'v", "'", "12", "3456", "\u0660", "\u00bd", "a", "Z", "\u00e9", "\u4e2d", "e\u0301", "\u212a", "!", "...",
           "\U0001f600\u200d\ufe0f", "<|eot_id|>", " zqxjk", " the", "<|begin_of_text|>", "<|", "\ufffd"]  # fmt: skip
    made = ["", "a", " ", "\n", " zqxjk zqxjkl", "It's HE'LL 'D they'VE'S", " " * 300 + "x", "\n" * 90 + " \n  a",
            "x" * 700, "7" * 100, "!" * 90 + "\r\n\r\n!", "<|eot_id|><|eot_id|>x<|end_header_id|>"]  # fmt: skip
    for _ in range(60):
        begin = draw.randrange(len(book) - 500)
        made.append(book[begin : begin + draw.randrange(300)])
    for _ in range(400):
        made.append("".join(draw.choice(odd) for _ in range(draw.randrange(1, 25))))
    for category, members in sorted(by_category.items()):
        for _ in range(4):
            made.append("".join(draw.choice([chr(draw.choice(members)), draw.choice(odd)]) for _ in range(16)))
    for plane in range(17):
        inside = [c for c in points if c >> 16 == plane]
        made.append("".join(chr(draw.choice(inside)) for _ in range(30)))
    return made


def main() -> None:
    tokens = train()
    ranks = {token: rank for rank, token in enumerate(tokens)}
    (HERE / "tokenizer.model").write_text(
        "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)))
    files = {"pairs": tokenizer_json(ranks, True, True), "strings": tokenizer_json(ranks, False, False)}
    for name, content in files.items():
        (HERE / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")))
    encoding = tiktoken.Encoding("small", pat_str=EXPRESSION, mergeable_ranks=ranks,
                                 special_tokens={name: len(ranks) + i for i, name in enumerate(SPECIAL)})
    pairs = tokenizers.Tokenizer.from_file(str(HERE / "pairs.json"))
    strings = tokenizers.Tokenizer.from_file(str(HERE / "strings.json"))
    cases = []
    for text in texts():
        pairs.encode_special_tokens = strings.encode_special_tokens = True
        plain = encoding.encode_ordinary(text)
        if pairs.encode(text).ids != plain:
            sys.exit(f"tiktoken and tokenizers disagree on {text!r}")
        case = {"text": text, "ids": plain}
        if (merged := strings.encode(text).ids) != plain:
            case["merged"] = merged
        pairs.encode_special_tokens = False
        if (special := encoding.encode(text, allowed_special="all")) != plain:
            if pairs.encode(text).ids != special:
                sys.exit(f"tiktoken and tokenizers disagree on the special tokens of {text!r}")
            case["special"] = special
        cases.append(case)
    made_by = f"tiktoken {tiktoken.__version__}, tokenizers {tokenizers.__version__}"
    (HERE / "golden.json").write_text(json.dumps({"made_by": made_by, "cases": cases}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
