#!/usr/bin/env python3
"""Writes src/data/tokenizer/unicode_ranges.cpp: the code points that tiktoken's regular expressions take for letters and numbers.

A table of our own, because libraries follow different versions of Unicode and the same text must give the same tokens
everywhere. Needs tiktoken; tokenizers too with --check, which compares the classes of both.
"""

import argparse
import pathlib

import tiktoken

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CLASSES = {"letter_ranges": r"\p{L}", "number_ranges": r"\p{N}", "white_space_ranges": r"\s"}
SLICE = 5000  # code points in a text: tiktoken's expressions have a limit


def texts():
    for begin in range(0, len(CODE_POINTS), SLICE):
        yield "".join(map(chr, CODE_POINTS[begin : begin + SLICE]))


def in_tiktoken(pattern: str) -> set[int]:
    """What the pattern leaves out has no tokens."""
    encoding = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks={bytes([b]): b for b in range(256)},
                                 special_tokens={})
    return {ord(c) for text in texts() for c in encoding.decode_bytes(encoding.encode_ordinary(text)).decode()}


def in_tokenizers(pattern: str) -> set[int]:
    import tokenizers

    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed", invert=True)
    return {ord(c) for text in texts() for piece, _ in split.pre_tokenize_str(text) for c in piece}


def ranges(code_points: set[int]) -> list[tuple[int, int]]:
    found: list[list[int]] = []
    for c in sorted(code_points):
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return [(first, last) for first, last in found]


def table(name: str, rows: list[tuple[int, int]]) -> str:
    lines, line = [], " "
    for first, last in rows:
        word = f" {{{first:#x}, {last:#x}}},"
        if len(line) + len(word) > 110:
            lines.append(line)
            line = " "
        line += word
    body = "\n".join([*lines, line])
    return f"const CodePointRange {name}_data[] = {{\n{body}\n}};\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; compare tiktoken and tokenizers")
    arguments = parser.parse_args()
    found = {name: in_tiktoken(pattern) for name, pattern in CLASSES.items()}
    if arguments.check:
        for name, pattern in CLASSES.items():
            print(f"{pattern}: {len(found[name])} code points, {len(found[name] ^ in_tokenizers(pattern))} differ")
        return
    tables = {name: ranges(code_points) for name, code_points in found.items()}
    text = "// Made by tools/make_unicode_ranges.py; do not edit.\n"
    text += '#include "data/tokenizer/unicode_class.hpp"\n\n// clang-format off\nnamespace llama3d {\nnamespace {\n\n'
    text += "\n".join(table(name, rows) for name, rows in tables.items())
    text += "\n}  // namespace\n\n"
    text += "".join(f"const std::span<const CodePointRange> {name} = {name}_data;\n" for name in tables)
    text += "\n}  // namespace llama3d\n"
    (REPOSITORY / "src/data/tokenizer/unicode_ranges.cpp").write_text(text)


if __name__ == "__main__":
    main()
