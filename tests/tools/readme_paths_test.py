#!/usr/bin/env python3
"""The READMEs keep their word: paths, links and anchors lead somewhere, the diagram is check_includes.py's, the front page is short."""

import pathlib
import re
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tools"))
import check_includes  # noqa: E402

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# What begins with one of these is a path in the repository.
TOPS = ("src/", "cuda/", "mpi/", "io/", "jobs/", "tools/", "tests/")


def texts() -> dict[pathlib.Path, str]:
    files = [*TOP.glob("*.md"), *(file for top in TOPS for file in (TOP / top).rglob("*.md"))]
    return {file: file.read_text(encoding="utf-8") for file in sorted(files)}


def paths_in(text: str) -> list[str]:
    """Words in backticks that name a file or folder, without their placeholders and options."""
    words = (word for code in CODE.findall(FENCE.sub("", text)) for word in code.split())
    return [word.rstrip("/,;:") for word in words if word.startswith(TOPS) and not re.search(r"[*<>={}$]", word)]


def anchors_of(text: str) -> set[str]:
    """GitHub's: lower case, spaces as hyphens, other marks left out."""
    plain = (re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading) for heading in HEADING.findall(FENCE.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


def broken_links(file: pathlib.Path, text: str) -> list[str]:
    broken = []
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+://", target):
            continue
        path, _, anchor = target.partition("#")
        leads_to = (file.parent / path).resolve() if path else file
        if not leads_to.exists() or (anchor and anchor not in anchors_of(leads_to.read_text(encoding="utf-8"))):
            broken.append(target)
    return broken


def edges_of_diagram(text: str) -> set[tuple[str, str]]:
    diagram = re.search(r"^```mermaid\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^\s*(\w+) --> (\w+)$", diagram[1], re.MULTILINE)) if diagram else set()


class ReadmesTest(unittest.TestCase):
    def test_paths_in_backticks_exist(self) -> None:
        missing, seen = [], 0
        for file, text in texts().items():
            for path in paths_in(text):
                seen += 1
                if not (TOP / path).exists():
                    missing.append(f"{file.relative_to(TOP)}: {path}")
        self.assertGreater(seen, 50)
        self.assertEqual([], missing)

    def test_links_and_anchors_lead_somewhere(self) -> None:
        broken = [f"{file.relative_to(TOP)}: {link}" for file, text in texts().items() for link in broken_links(file, text)]
        self.assertEqual([], broken)

    def test_the_diagram_of_modules_is_the_list_that_is_enforced(self) -> None:
        enforced = {(module, below) for module, all_below in check_includes.BELOW.items() for below in all_below}
        self.assertEqual(enforced, edges_of_diagram((TOP / "src/README.md").read_text(encoding="utf-8")))

    def test_functions_named_beside_a_file_are_in_the_sources(self) -> None:
        sources = "".join(path.read_text(encoding="utf-8") for top in ("src", "mpi", "io", "cuda")
                          for path in sorted((TOP / top).rglob("*")) if path.suffix in {".hpp", ".cpp", ".cuh", ".cu"})
        named = set(re.findall(r"`(\w+)::(\w+)`", (TOP / "src/README.md").read_text(encoding="utf-8"))) - {("std", "span")}
        self.assertGreater(len(named), 20)
        missing = [f"{owner}::{name}" for owner, name in sorted(named)
                   if not re.search(rf"\b(class|struct) {owner}\b", sources) or not re.search(rf"\b{name}\b", sources)]
        self.assertEqual([], missing)

    def test_the_front_page_is_at_most_200_lines(self) -> None:
        self.assertLessEqual(len((TOP / "README.md").read_text(encoding="utf-8").splitlines()), 200)


class ControlsTest(unittest.TestCase):
    """What the checks above are made of sees mistakes."""

    def test_a_path_is_found_and_a_placeholder_is_not(self) -> None:
        self.assertEqual(["src/nowhere.cpp"], paths_in("see `src/nowhere.cpp`, `src/*.cpp` and `run/x`\n```\n`src/in_a_block`\n```\n"))

    def test_a_broken_link_and_a_broken_anchor_are_found(self) -> None:
        text = "# One two, `three`\n[a](nowhere.md) [b](#one-two-three) [c](#four) [d](https://example.org)\n"
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "page.md"
            file.write_text(text, encoding="utf-8")
            self.assertEqual(["nowhere.md", "#four"], broken_links(file, text))

    def test_edges_are_read(self) -> None:
        self.assertEqual({("a", "b")}, edges_of_diagram("```mermaid\ngraph TD\n  a --> b\n```\n"))


if __name__ == "__main__":
    unittest.main()
