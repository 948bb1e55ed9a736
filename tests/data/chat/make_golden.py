#!/usr/bin/env python3
"""Makes golden.json beside this script: conversations, and the tokens and the loss mask that transformers gives them
with the small tokenizer of ../tokenizer. Needs transformers; golden.json names the version it was made with.
"""

import json
import pathlib
import random

import transformers
from transformers_chat import chat_tokenizer, learned, render

HERE = pathlib.Path(__file__).resolve().parent
WORDS = ["It is a truth", "universally\n\n acknowledged", "caf\u00e9 \u4e2d\u6587", "12345", "I'LL 'd", "...", "x" * 40,
         "\U0001f600", "a\u00a0b"]  # fmt: skip
AROUND = ["", " ", "\n", "\t \r\n", "\u00a0", "\u3000", "\x1c", "\x85", "\u2028\u2003", "\u200b", "\u180e"]


def message(role, content):
    return {"role": role, "content": content}


def conversations():
    draw = random.Random(5)

    def text():
        inner = " ".join(draw.choice(WORDS) for _ in range(draw.randrange(4)))
        return draw.choice(AROUND) + inner + draw.choice(AROUND)

    yield [message("user", "Hello?"), message("assistant", "Hello.")]
    yield [message("user", "Hello?")]
    yield [message("system", "Be brief."), message("user", "Why?"), message("assistant", "")]
    for space in AROUND:
        yield [message("user", f"{space}a{space}"), message("assistant", f"{space}{space}\nb {space}\n")]
    for _ in range(40):
        made = [message("system", text())] if draw.random() < 0.4 else []
        for _ in range(draw.randrange(1, 5)):
            made += [message(draw.choice(["user", "user", "ipython"]), text()), message("assistant", text())]
        yield made if draw.random() < 0.8 else made[:-1]


def share(source, target, room):
    """Tokens that a question and its answer keep of `room`, by LLaMA-Factory's rule."""
    if 2 * target < room:
        most = room
    elif 2 * source < room:
        most = room - source
    else:
        most = int(room * (target / (source + target)))
    target = min(most, target)
    return min(max(room - target, 0), source), target


def cut(tokens, mask, room):
    kept, begin = [], 0
    while begin < len(tokens) and room > 0:
        answer = mask.index(1, begin) if 1 in mask[begin:] else len(tokens)
        end = mask.index(0, answer) if 0 in mask[answer:] else len(tokens)
        source, target = share(answer - begin, end - answer, room)
        kept += tokens[begin : begin + source] + tokens[answer : answer + target]
        begin, room = end, room - source - target
    return kept


def main():
    tokenizer = chat_tokenizer(tokenizer_file=str(HERE.parent / "tokenizer/pairs.json"))
    cases = [
        {
            "messages": made,
            "tokens": render(tokenizer, made),
            "prompt": render(tokenizer, made, True),
            "learn": (mask := learned(tokenizer, made)),
            "cut": {room: cut(render(tokenizer, made), mask, room) for room in (7, 30, 64)},
        }
        for made in conversations()
    ]
    golden = {"made_by": f"transformers {transformers.__version__}", "cases": cases}
    (HERE / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
