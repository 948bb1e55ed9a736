#!/usr/bin/env python3
"""Checks that the modules stay apart: a module includes only modules below it, and only the module that owns a
library includes its headers. With --compile, also that every header compiles alone.

Exit status 1 and a line for each violation.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import pathlib
import re
import shlex
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

# Folder of each module, and the modules right below it.
FOLDERS = {
    "base": "src/base", "compute": "src/compute", "host": "src/compute/host", "comm": "src/comm", "health": "src/comm/health",
    "mpi": "mpi", "io": "io", "cuda": "cuda", "parallel": "src/parallel", "model": "src/model", "pipeline": "src/pipeline",
    "optim": "src/optim", "plan": "src/plan", "tokenizer": "src/data/tokenizer", "data": "src/data", "checkpoint": "src/checkpoint",
    "convert": "src/convert", "generate": "src/generate", "options": "src/options", "train": "src/train", "bench": "src/bench", "cli": "src/cli",
}
BELOW = {
    "base": [], "compute": ["base"], "host": ["compute"], "comm": ["compute"], "health": ["comm"], "mpi": ["comm"], "io": ["base"],
    "cuda": ["comm"], "parallel": ["health"], "model": ["parallel"], "pipeline": ["model"], "optim": ["model"],
    "plan": ["pipeline", "optim"], "tokenizer": ["base"], "data": ["tokenizer", "io"], "checkpoint": ["optim", "io"],
    "convert": ["checkpoint", "tokenizer"], "generate": ["plan", "checkpoint", "data"], "options": ["plan", "data"],
    "train": ["options", "checkpoint"],
    "bench": ["train"], "cli": ["bench", "train", "convert", "generate", "mpi", "host", "cuda"],
}
# cli reaches these two from the one file that makes a device.
MACHINES, FACTORY = ("host", "cuda"), re.compile(r"(device|machine|backend)\w*\.(cpp|hpp)$")

# Headers of libraries, and the modules that may include them.
LIBRARIES = [
    (re.compile(r"^mpi\.h$"), {"mpi"}),
    (re.compile(r"^hdf5\w*\.h$|^H5\w+\.h$"), {"io"}),
    (re.compile(r"^(cuda|cublas|cudnn|nccl|nvml|nvtx|cooperative_groups)\w*(\.h|/.*)$"), {"cuda"}),
    (re.compile(r"^(cblas|openblas\w*)\.h$"), {"host"}),
    (re.compile(r"^CLI/"), {"cli"}),
]
# From parallel up, what a machine can do is asked at run time.
NO_CONDITIONALS = {"comm", "parallel", "model", "pipeline", "optim", "plan", "checkpoint", "convert", "generate", "train"}

SOURCES = {".cpp", ".hpp", ".h", ".cu", ".cuh"}
HEADERS = {".hpp", ".h", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CONDITIONAL = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif)\b")


def modules_below(module: str) -> set[str]:
    """All modules under `module`, itself included."""
    return {module}.union(*(modules_below(lower) for lower in BELOW[module]))


def module_of(path: pathlib.PurePath) -> str | None:
    """The module of a path in the repository: that of the longest folder which holds it."""
    if path.parent == pathlib.PurePath("src"):
        return "cli"  # llama3d.hpp, the door for programs that link cli
    holding = [module for module, folder in FOLDERS.items() if path.is_relative_to(folder)]
    return max(holding, key=lambda module: len(FOLDERS[module]), default=None)


def included_module(name: str, file: pathlib.PurePath, root: pathlib.Path) -> str | None:
    """The module of the header that `name` stands for in `file`, or None when it is not ours."""
    for folder in (file.parent, pathlib.PurePath("src"), pathlib.PurePath(".")):
        if (root / folder / name).exists():
            return module_of(folder / name)
    top = name.split("/")[0]
    return top if top in FOLDERS else None


def check_include(name: str, quoted: bool, module: str, file: pathlib.PurePath, root: pathlib.Path) -> str | None:
    """What is wrong with an include, or None."""
    other = included_module(name, file, root) if quoted else None
    if other is not None:
        if other not in modules_below(module):
            return f"{module} lies not above {other}"
        if other in MACHINES and module not in MACHINES and not FACTORY.search(file.name):
            return f"only the file that makes the device knows {other} by name"
        return None
    for header, owners in LIBRARIES:
        if header.search(name) and module not in owners:
            return f"only {', '.join(sorted(owners))} may include it"
    return None


def check_file(file: pathlib.PurePath, root: pathlib.Path) -> list[str]:
    module = module_of(file)
    violations = []
    for number, line in enumerate((root / file).read_text(encoding="utf-8").splitlines(), start=1):
        include = INCLUDE.match(line)
        problem = check_include(include[2], include[1] == '"', module, file, root) if include else None
        if problem:
            violations.append(f"{file}:{number}: includes {include[2]}: {problem}")
        if module in NO_CONDITIONALS and CONDITIONAL.match(line):
            violations.append(f"{file}:{number}: {line.strip()}: no conditional compilation in {module}")
    return violations


def files_of_rooms(root: pathlib.Path, suffixes: set[str]) -> list[pathlib.PurePath]:
    tops = [root / top for top in ("src", "mpi", "io", "cuda")]
    found = {path for top in tops for path in top.rglob("*") if path.suffix in suffixes}
    return [path.relative_to(root) for path in sorted(found)]


def check_layers(root: pathlib.Path) -> list[str]:
    files = files_of_rooms(root, SOURCES)
    if not files:
        return [f"{root}: no source file in src, mpi, io or cuda"]
    return [violation for file in files for violation in check_file(file, root)]


# --- headers alone -------------------------------------------------------------------------------------------------


def compile_flags(database: pathlib.Path) -> tuple[str, list[str]]:
    """The compiler, and every include path, definition and language flag that any C++ file of the build has."""
    compiler, flags = "c++", {}
    for entry in json.loads(database.read_text()):
        words = shlex.split(entry["command"]) if "command" in entry else entry["arguments"]
        if not entry["file"].endswith(".cpp"):
            continue
        compiler = next(word for word in words if not word.endswith("ccache"))
        for word, following in zip(words, words[1:] + [""]):
            if word in ("-isystem", "-I"):
                flags[word, following] = None
            elif word.startswith(("-I", "-D", "-std=", "-f", "-pthread")):
                flags[(word,)] = None
    return compiler, [word for flag in flags for word in flag]


def compiles_alone(header: pathlib.PurePath, root: pathlib.Path, compiler: str, flags: list[str]) -> str | None:
    command = [compiler, *flags, "-fsyntax-only", "-w", "-x", "c++", str(root / header)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root)
    errors = [line for line in result.stderr.splitlines() if "error:" in line]
    return None if result.returncode == 0 else f"{header}: does not compile alone: {(errors or ['?'])[0]}"


def check_headers(root: pathlib.Path, database: pathlib.Path, jobs: int) -> list[str]:
    """Headers of cuda/ need nvcc and are left to its own build."""
    compiler, flags = compile_flags(database)
    headers = [header for header in files_of_rooms(root, HEADERS) if module_of(header) != "cuda"]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        problems = pool.map(lambda header: compiles_alone(header, root, compiler, flags), headers)
        return [problem for problem in problems if problem]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=REPOSITORY, help="the repository")
    parser.add_argument("--compile", type=pathlib.Path, metavar="compile_commands.json",
                        help="compile every header alone, with the flags of this build, instead of reading includes")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at a time")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    violations = check_headers(root, arguments.compile, arguments.jobs) if arguments.compile else check_layers(root)
    print(*violations, sep="\n", end="\n" if violations else "")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
