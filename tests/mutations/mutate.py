#!/usr/bin/env python3
"""Plants the mistakes of list/*.toml one at a time and shows that the test named beside each one fails.

  mutate.py check                      every text to be replaced occurs exactly once; tests/README.md has this table
  mutate.py run [ID...]                build and run here (area cuda left out)
  mutate.py build --out FILE [ID...]   programs of area cuda, packed for a machine with a GPU
  mutate.py run-packed FILE [ID...]    run them there
  mutate.py table                      the list as a Markdown table

A mistake counts as caught only when its test passes without it and fails with it. Work is done on a copy of the tree in
--work (default build/mutations), which keeps its build for the next time. Status 1: one was not caught, or not planted.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]


@dataclass(frozen=True)
class Mutation:
    id: str
    area: str
    file: str
    mistake: str
    old: str
    new: str
    program: str  # a Boost.Test program, or the CTest entry of a script
    case: str  # of the program; "" for a CTest entry
    ranks: int = 0  # 0: without mpirun
    hangs: bool = False  # may be seen as a run without an end
    seconds: int = 120

    @property
    def test(self):
        ranks = f" on {self.ranks} rank{'s' if self.ranks > 1 else ''}" if self.ranks else ""
        return f"{self.program}{ranks}{f': {self.case}' if self.case else ''}"

    def planted_in(self, text):
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.id}: its text occurs {found} times in {self.file}; it must occur once")
        return text.replace(self.old, self.new)


def read_list():
    mutations = []
    for path in sorted((HERE / "list").glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutation"]:
            mutations.append(Mutation(area=path.stem, **entry))
    ids = [m.id for m in mutations]
    for id in set(ids):
        if ids.count(id) > 1:
            raise ValueError(f"two mutations are called {id}")
    return mutations


def check(mutations):
    wrong = []
    for m in mutations:
        try:
            m.planted_in((TOP / m.file).read_text())
        except (ValueError, OSError) as error:
            wrong.append(str(error))
    if table_of(read_list()) not in (TOP / "tests/README.md").read_text():
        wrong.append("tests/README.md: its table is another than `mutate.py table` prints; put that in its place")
    print("\n".join(wrong) or f"{len(mutations)} mutations can be planted")
    return 1 if wrong else 0


class Tree:
    """A copy of the tracked and new files, built in a folder of its own."""

    def __init__(self, work, options):
        self.source, self.build = work / "tree", work / "build"
        self.options, self.configured = options, False

    def update(self):
        listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=TOP, check=True, capture_output=True)
        names = {name for name in listed.stdout.decode().split("\0") if name and (TOP / name).is_file()}
        for name in names:
            self.take(name)
        for path in list(self.source.rglob("*")):
            if path.is_file() and str(path.relative_to(self.source)) not in names:
                path.unlink()

    def take(self, name):
        """Files that are the same keep their time, and what was built of them."""
        to, content = self.source / name, (TOP / name).read_bytes()
        if not to.exists() or to.read_bytes() != content:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, to)

    @contextmanager
    def planted(self, m):
        """The mutation's file has its mistake. It is restored from the copy: the user's may have changed since."""
        path = self.source / m.file
        text = path.read_text()
        path.write_text(m.planted_in(text))
        try:
            yield
        finally:
            path.write_text(text)

    def make(self, targets):
        """None, or the end of what the failed build said."""
        if not self.configured:
            run(["cmake", "-S", self.source, "--preset", "ci", "-B", self.build, f"-DCMAKE_RUNTIME_OUTPUT_DIRECTORY={self.build}/bin",
                 *self.options], check=True, stdout=subprocess.DEVNULL)
            self.configured = True
        done = run(["cmake", "--build", self.build, "--target", *sorted(targets)], capture_output=True, text=True, errors="replace")
        return None if done.returncode == 0 else (done.stdout + done.stderr)[-3000:]


def run(command, **options):
    return subprocess.run([str(part) for part in command], **options)


def target_of(m):
    return "llama3d" if m.program.startswith("cli_") else m.program


def command_of(m, folder, build):
    """`folder` has the programs."""
    if not m.case:
        return ["ctest", "--test-dir", build, "-R", f"^{m.program}$", "--no-tests=error", "--output-on-failure"]
    ranks = ["mpirun", "--quiet", "--oversubscribe", "--bind-to", "none", "-np", m.ranks] if m.ranks else []
    return [*ranks, folder / m.program, f"--run_test={m.case}", "--log_level=error", "--color_output=no"]


def outcome(m, folder, build=None):
    """"passed", "failed", "hung" or what went wrong, and the line that says so."""
    environment = dict(os.environ, LLAMA3D_TEST_RANKS=str(m.ranks or 1), OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    if m.area == "cuda":
        environment["LLAMA3D_TEST_DEVICE"] = "cuda"
    process = subprocess.Popen([str(part) for part in command_of(m, folder, build)], env=environment, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    try:
        text, _ = process.communicate(timeout=m.seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return "hung", f"no end within {m.seconds} s"
    if process.returncode == 0:
        return "passed", ""
    if "no test cases matching filter" in text:
        return "broken", f"no case {m.case}"
    said = [line for line in text.splitlines() if "error: in" in line or line.startswith(("FAIL:", "ERROR:"))]
    return "failed", (said or text.strip().splitlines() or [f"status {process.returncode}"])[0][:300]


def judge(m, folder, build=None):
    """Runs the planted mistake's test; returns whether it was caught."""
    begin = time.monotonic()
    result, line = outcome(m, folder, build)
    caught = result == "failed" or (result == "hung" and m.hangs)
    verdict = "caught" if caught else "SURVIVED" if result == "passed" else "NOT CAUGHT"
    print(f"{verdict:10} {m.id} ({time.monotonic() - begin:.0f} s): {m.mistake}\n           {m.test}\n           {line}", flush=True)
    return caught


def passes_without(m, folder, build=None):
    result, line = outcome(m, folder, build)
    if result != "passed":
        print(f"NO CONTROL {m.id}: without the mistake the test {result}: {line}", flush=True)
    return result == "passed"


def run_here(mutations, work, options):
    tree = Tree(work, ["-DLLAMA3D_CUDA=OFF", *options])
    tree.update()
    if problem := tree.make({target_of(m) for m in mutations}):
        raise SystemExit(f"the tree does not build:\n{problem}")
    programs, missed = tree.build / "bin", []
    controls = {}
    for m in mutations:
        if m.test not in controls:
            controls[m.test] = passes_without(m, programs, tree.build)
    for m in mutations:
        with tree.planted(m):
            if problem := tree.make({target_of(m)}):
                print(f"NOT BUILT  {m.id}: {m.mistake}\n{problem}", flush=True)
                missed.append(m.id)
            elif not judge(m, programs, tree.build) or not controls[m.test]:
                missed.append(m.id)
    return report(mutations, missed)


def build_packed(mutations, work, options, out):
    tree = Tree(work, ["-DLLAMA3D_CUDA=ON", *options])
    tree.update()
    stage = work / "packed"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    targets = {target_of(m) for m in mutations}

    def keep(name, programs):
        for program in programs:
            run(["strip", "-o", stage / f"{program}.{name}", tree.build / "bin" / program], check=True)
        print(f"built {name}", flush=True)

    if problem := tree.make(targets):
        raise SystemExit(f"the tree does not build:\n{problem}")
    keep("control", targets)
    for m in mutations:
        with tree.planted(m):
            if problem := tree.make({target_of(m)}):
                print(f"NOT BUILT  {m.id}: {m.mistake}\n{problem}", flush=True)
            else:
                keep(m.id, {target_of(m)})
    # The programs are nearly alike: one long window sees it.
    with open(out, "wb") as packed:
        tar = subprocess.Popen(["tar", "-C", stage, "-cf", "-", *sorted(os.listdir(stage))], stdout=subprocess.PIPE)
        run(["xz", "-T1", "--lzma2=preset=6,dict=256MiB"], stdin=tar.stdout, stdout=packed, check=True)
    print(f"{out}: {Path(out).stat().st_size / 2**20:.1f} MiB")
    return 0 if tar.wait() == 0 else 1


def run_packed(mutations, packed):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run(["tar", "-C", folder, "-xJf", packed], check=True)
        missed, controls = [], {}
        for m in mutations:
            program = folder / m.program
            if m.test not in controls:
                shutil.copy(folder / f"{m.program}.control", program)
                controls[m.test] = passes_without(m, folder)
            built = folder / f"{m.program}.{m.id}"
            if not built.exists():
                print(f"NOT BUILT  {m.id}")
                missed.append(m.id)
                continue
            shutil.copy(built, program)
            if not judge(m, folder) or not controls[m.test]:
                missed.append(m.id)
        return report(mutations, missed)


def report(mutations, missed):
    print(f"{len(mutations) - len(missed)} of {len(mutations)} mistakes caught" + (f"; not: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


def table_of(mutations):
    rows = [f"| {m.area} | {m.mistake} | `{m.test}` |" for m in mutations]
    return "\n".join(["| area | mistake | test that fails |", "| --- | --- | --- |", *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "run", "build", "run-packed", "table"])
    parser.add_argument("names", nargs="*", help="of run-packed the file first; then ids, areas or nothing: all")
    parser.add_argument("--work", type=Path, default=TOP / "build/mutations")
    parser.add_argument("--out", type=Path, default=TOP / "build/mutations/packed.tar.xz")
    parser.add_argument("--configure", action="append", default=[], help="a further option for cmake")
    options = parser.parse_intermixed_args()
    packed = options.names.pop(0) if options.what == "run-packed" and options.names else None
    mutations = read_list()
    known = {m.id for m in mutations} | {m.area for m in mutations}
    if unknown := set(options.names) - known:
        parser.error(f"no mutation or area {', '.join(sorted(unknown))}")
    if options.names:
        mutations = [m for m in mutations if {m.id, m.area} & set(options.names)]
    on_gpus = [m for m in mutations if m.area == "cuda"]
    elsewhere = [m for m in mutations if m.area != "cuda"]
    if options.what == "check":
        return check(mutations)
    if options.what == "table":
        print(table_of(mutations))
        return 0
    if options.what == "run":
        return run_here(elsewhere, options.work.resolve(), options.configure)
    if options.what == "build":
        return build_packed(on_gpus, options.work.resolve() / "cuda", options.configure, options.out)
    if packed is None:
        parser.error("run-packed takes the file that build wrote")
    return run_packed(on_gpus, packed)


if __name__ == "__main__":
    sys.exit(main())
