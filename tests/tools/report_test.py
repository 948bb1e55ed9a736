#!/usr/bin/env python3
"""tools/report.py on synthetic metrics files with known medians."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
import h5py
import numpy as np

REPORT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "report.py"
TRAIN = [("step", "i8"), ("time_ns", "i8"), ("tokens", "i8"), ("loss", "f8"), ("grad_norm", "f8"),
         ("learning_rate", "f8"), ("step_seconds", "f8"), ("tokens_per_second", "f8"),
         ("tokens_per_second_per_gpu", "f8"), ("mfu", "f8"), ("peak_memory_bytes", "i8"), ("skipped", "i8")]
VALID = [("step", "i8"), ("loss", "f8"), ("perplexity", "f8")]
PHASES = ("compute", "tp", "pp", "dp", "optimizer", "data", "idle")
RANKS = [("step", "i8"), ("rank", "i8"), *((f"{p}_seconds", "f8") for p in PHASES), ("memory_bytes", "i8")]
COMMUNICATION = [("step", "i8"), ("rank", "i8"), ("label", "S48"), ("calls", "i8"), ("bytes", "i8"), ("seconds", "f8"),
                 ("exposed_seconds", "f8")]
EVENTS = [("step", "i8"), ("time_ns", "i8"), ("kind", "S16"), ("text", "S256")]
ATTRIBUTES = dict(tp=2, pp=2, dp=2, method="TP 2 x PP 2 x DP 2, 1f1b", world_size=8, micro_batch_size=4,
                  gradient_accumulation=3, global_batch_size=24, sequence=128, device="cpu", model="llama3-tiny", parameters=1000, hosts="a,b",
                  command_line="llama3d train <quick>", peak_flops=2.5e12, peak_source="measured",
                  configuration=json.dumps({"pipeline-schedule": {"value": "1f1b", "origin": "default"}}))
STEPS = 20
SKIP = 5  # the default of --skip-steps


def train_rows(mfu: float) -> np.ndarray:
    """The first SKIP steps are slow; then odd steps take 0.5 s and even ones 0.25 s, the last one 0.25 s."""
    rows = np.zeros(STEPS, TRAIN)
    rows["step"] = np.arange(1, STEPS + 1)
    rows["loss"] = np.linspace(5.5, 2.5, STEPS)
    rows["step_seconds"] = np.where(rows["step"] <= SKIP, 100.0, np.where(rows["step"] % 2, 0.5, 0.25))
    rows["tokens_per_second_per_gpu"] = 1000 / rows["step_seconds"]
    rows["mfu"] = mfu
    rows["peak_memory_bytes"] = 2**30
    return rows


def rank_rows() -> np.ndarray:
    rows = np.zeros(2 * 8, RANKS)
    rows["step"], rows["rank"] = np.repeat([10, 20], 8), np.tile(np.arange(8), 2)
    for phase in PHASES:
        rows[f"{phase}_seconds"] = 0.03
    rows["memory_bytes"] = 2**30 + 2**28 * rows["rank"]
    return rows


def communication_rows() -> np.ndarray:
    """Of step 5, which does not count, and of steps 10 and 20, the second of which takes twice the time."""
    rows = []
    for step, times in ((5, 1000), (10, 1), (20, 2)):
        for rank in range(8):
            rows.append((step, rank, b"dp.reduce_scatter.gradients", 2, 250_000 * rank, 0.5 * times, 0.125 * times))
            if rank < 4:
                rows.append((step, rank, b"pp.activation", 3, 4096, 0.25 * times, 0.25 * times))
            rows.append((step, rank, b"tp.loss", 3, 0, 0.0, 0.0))
    return np.array(rows, COMMUNICATION)


def events(*kinds: tuple[int, str, str]) -> np.ndarray:
    return np.array([(step, 10**18, kind.encode(), text.encode()) for step, kind, text in kinds], EVENTS)


def write_run(path: pathlib.Path, mfu: float = 0.375, train: np.ndarray | None = None, drop: tuple[str, ...] = (),
              happened: np.ndarray | None = None) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = {
        "train": train_rows(mfu) if train is None else train,
        "valid": np.array([(10, 3.0, np.exp(3.0)), (20, 2.6875, np.exp(2.6875))], VALID),
        "ranks": rank_rows(),
        "communication": communication_rows(),
        "events": events((10, "checkpoint", "step_00000010 <saved>")) if happened is None else happened,
    }
    with h5py.File(path, "w") as file:
        for name, rows in tables.items():
            if name not in drop:
                file.create_dataset(name, data=rows, maxshape=(None,), chunks=(64,))
        run = file.create_group("run")
        for name, value in ATTRIBUTES.items():
            if name not in drop:
                run.attrs[name] = value
    return path


def report(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(REPORT), *map(str, arguments)], capture_output=True, text=True)


class ReportTest(unittest.TestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)

    def cells(self, *arguments: object, row: int = 0) -> list[str]:
        """The printed table's cells of one run."""
        result = report("--table-only", *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return re.split(r"  +", result.stdout.splitlines()[2 + row].strip())

    def assert_refused(self, *words: str, arguments: tuple) -> None:
        result = report(*arguments)
        self.assertEqual(result.returncode, 3)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def test_table(self) -> None:
        path = write_run(self.folder / "quick" / "metrics.h5")
        # Steps 6 to 20: eight even ones of 0.25 s, seven odd ones of 0.5 s.
        self.assertEqual(self.cells(path), ["quick", "TP 2 x PP 2 x DP 2, 1f1b", "4", "3", "24", "128", "2.75 GiB",
                                            "0.25", "4,000", "37.5 %"])

    def test_first_steps_count_only_when_asked(self) -> None:
        path = write_run(self.folder / "quick" / "metrics.h5")
        self.assertEqual(self.cells("--skip-steps", 0, path)[7], "0.5")  # five of 100 s, seven of 0.5 s, eight of 0.25 s

    def test_short_run_has_a_row(self) -> None:
        path = write_run(self.folder / "short" / "metrics.h5", train=train_rows(0.4)[:3])
        self.assertEqual(self.cells(path)[7], "100")

    def test_missing_values_are_dashes(self) -> None:
        for mfu in (float("nan"), 0.0):
            missing = ("valid", "ranks", "communication", "sequence")
            path = write_run(self.folder / "bare" / "metrics.h5", mfu=mfu, drop=missing)
            cells = self.cells(path)
            self.assertEqual((cells[5], cells[6], cells[9]), ("-", "1.00 GiB", "-"))
            self.assertNotIn("communication", report("--table-only", path).stdout)

    def test_communication_by_label(self) -> None:
        path = write_run(self.folder / "quick" / "metrics.h5")
        heading, heads, _, *rows = report("--table-only", path).stdout.partition("\n\n")[2].splitlines()
        self.assertRegex(heading, r"^quick: communication \(hidden: the share of its time")
        self.assertEqual(re.split(r"  +", heads), ["label", "bytes/step/rank", "sec/step", "exposed sec/step", "hidden"])
        # Means over eight ranks, half of which have the second label; what moves nothing is left out.
        self.assertEqual([re.split(r"  +", row) for row in rows],
                         [["dp.reduce_scatter.gradients", "875,000", "0.75", "0.1875", "75.0 %"],
                          ["pp.activation", "2,048", "0.1875", "0.1875", "0.0 %"]])
        all_steps = report("--table-only", "--skip-steps", 0, path).stdout
        self.assertIn("167.2", all_steps)  # 0.5 s * (1000 + 1 + 2) / 3

    def test_page_holds_everything(self) -> None:
        write_run(self.folder / "quick" / "metrics.h5")
        result = report(self.folder / "quick")
        self.assertEqual(result.returncode, 0, result.stderr)
        output = self.folder / "quick" / "report"
        page = (output / "report.html").read_text()
        for name in ("loss", "throughput", "phases"):
            self.assertEqual((output / f"{name}.png").read_bytes()[:4], b"\x89PNG")
        self.assertEqual(page.count("data:image/png;base64,"), 3)
        self.assertNotRegex(page, r'(src|href)="(?!data:)')
        for words in ("TP 2 x PP 2 x DP 2, 1f1b", "step_00000010 &lt;saved&gt;", "llama3d train &lt;quick&gt;", "measured",
                      "dp.reduce_scatter.gradients</td><td>875,000</td>"):
            self.assertIn(words, page)

    def test_resumed_run(self) -> None:
        rows = train_rows(0.4)
        rows["step_seconds"][12:17] = 50.0  # steps 13 to 17: warm again after the resume
        rows = np.concatenate([rows[:14], rows[12:]])  # steps 13 and 14 were done twice
        path = write_run(self.folder / "resumed" / "metrics.h5", train=rows, happened=events((12, "resume", "from 12")))
        # Left are 6 to 12 and 18 to 20: six even steps, four odd ones.
        self.assertEqual(self.cells(path)[7], "0.25")
        self.assertIn("resumed after step 12", report("--table-only", path).stdout)
        without_event = write_run(self.folder / "other" / "metrics.h5", train=rows)
        self.assertEqual(self.cells(without_event)[7], "0.5")

    def test_several_runs_overlaid(self) -> None:
        paths = [write_run(self.folder / place / "run" / "metrics.h5") for place in ("a", "b")]
        self.assertEqual(self.cells(*paths, row=1)[0], "run (2)")
        self.assertEqual(self.cells("--names", "old", "new", "--", *paths, row=1)[0], "new")
        result = report("--output-dir", self.folder / "both", *paths)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue((self.folder / "both" / "report.html").exists())

    def test_loss_against_unigram_entropy(self) -> None:
        path = write_run(self.folder / "quick" / "metrics.h5")
        for vocabulary, relation in ((16, "is below"), (8, "is NOT below")):  # ln 16 = 2.77 > 2.6875 > ln 8 = 2.08
            tokens = self.folder / "tokens.h5"
            with h5py.File(tokens, "w") as file:
                file["tokens"] = np.arange(160, dtype="u4") % vocabulary
            output = report("--table-only", "--tokens", tokens, path).stdout
            self.assertIn(f"{relation} the unigram entropy {np.log(vocabulary):.4f}", output)

    def test_live_file(self) -> None:
        path = write_run(self.folder / "live" / "metrics.h5")
        writer = ("import h5py, sys; f = h5py.File(sys.argv[1], 'r+', locking=False); t = f['train'];"
                  "t.resize((21,)); r = t[19]; r['step'] = 21; t[20] = r; f.flush(); print('on', flush=True); input()")
        with subprocess.Popen([sys.executable, "-c", writer, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as process:
            self.assertEqual(process.stdout.readline(), "on\n")
            output = report("--table-only", path).stdout
            process.communicate("\n")
        self.assertIn("step 21,", output)

    def test_rows_never_written(self) -> None:
        whole = write_run(self.folder / "whole" / "metrics.h5")
        rows = np.append(train_rows(0.375), np.zeros(1, TRAIN))
        rows[-1]["step"], rows[-1]["step_seconds"] = -1, 1e9
        killed = write_run(self.folder / "killed" / "metrics.h5", train=rows)
        self.assertEqual(self.cells(killed)[1:], self.cells(whole)[1:])
        self.assertIn(f"step {STEPS},", report("--table-only", killed).stdout)

    def test_refusals(self) -> None:
        self.assert_refused("nowhere.h5", "no such file", arguments=(self.folder / "nowhere.h5",))
        other = self.folder / "other.h5"
        other.write_bytes(b"not HDF5 at all")
        self.assert_refused("other.h5", "can't be read", arguments=(other,))
        self.assert_refused("/train", arguments=(write_run(self.folder / "a" / "metrics.h5", drop=("train",)),))
        empty = write_run(self.folder / "b" / "metrics.h5", train=train_rows(0.4)[:0])
        self.assert_refused("no step yet", arguments=(empty,))
        good = write_run(self.folder / "c" / "metrics.h5")
        self.assert_refused("--names", arguments=("--names", "x", "y", "--", good))
        self.assert_refused("--tokens", arguments=("--tokens", other, good))
        cut = self.folder / "cut.h5"
        cut.write_bytes(good.read_bytes()[:2000])
        self.assert_refused("cut.h5", arguments=(cut,))


if __name__ == "__main__":
    unittest.main()
