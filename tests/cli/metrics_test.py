"""What a run says about its communication, rank by rank and label by label."""

import json
import pathlib
import shutil
import subprocess
import sys

import h5py
import numpy

from foreign_files_test import rewrite_manifest
from jobs import DEVICE, JobTest, different, main, tensors

TIMELINE = pathlib.Path(__file__).resolve().parents[2] / "tools/timeline.py"

STEPS, MIDDLE = 6, 4
WORLD, TP, PP = 4, 2, 2
GRID = ["--tp-size", TP, "--pp-size", PP]
# Of JobTest's model and training, in fp32.
SAMPLES, SEQUENCE, HIDDEN = 4, 32, 32


class Communication(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        words = cls.training("run", *GRID, "--checkpoint-interval", MIDDLE, "--log-interval", 2, steps=STEPS)
        made = cls.job(WORLD, *words)
        assert made.status == 0, made

    def test_every_rank_of_every_reported_step(self):
        rows = self.metrics("run", "communication")
        ranks = self.metrics("run", "ranks")
        self.assertEqual(list(numpy.unique(ranks["step"])), [1, 2, 4, 6])
        self.assertEqual({(row["step"], row["rank"]) for row in rows}, {(row["step"], row["rank"]) for row in ranks})
        keys = [(row["step"], row["rank"], row["label"]) for row in rows]
        self.assertEqual(len(set(keys)), len(keys), "a label twice")
        self.assertTrue((rows["exposed_seconds"] >= 0).all())
        # Waiting is part of being under way; sums of both round. A GPU also waits while others are in the queue.
        if DEVICE == "cpu":
            self.assertTrue((rows["seconds"] >= rows["exposed_seconds"] - 1e-9).all())
        self.assertTrue((rows["seconds"][rows["label"] == b"world.totals"] > 0).all())

    def test_bytes(self):
        rows = self.metrics("run", "communication")
        totals = rows[rows["label"] == b"world.totals"]
        self.assertEqual(len(totals), 4 * WORLD)
        self.assertEqual(set(totals["bytes"]), {2 * (WORLD - 1) * 3 * 8 // WORLD}, "a ring's share of three doubles")
        self.assertEqual(set(totals["calls"]), {1})
        # The first stage sends its share of the residual stream, the last one only receives.
        activation = rows[rows["label"] == b"pp.activation"]
        sent = SAMPLES * SEQUENCE // TP * HIDDEN * 4
        for row in activation:
            self.assertEqual(row["bytes"], sent if row["rank"] < TP else 0, row)

    def test_labels_of_a_stage(self):
        rows = self.metrics("run", "communication")
        for label, ranks in ((b"tp.embedding", {0, 1}), (b"tp.loss", {2, 3}), (b"tp.all_gather.input", {0, 1, 2, 3})):
            self.assertEqual(set(rows["rank"][rows["label"] == label]), ranks, label)

    def test_resuming_cuts_later_rows(self):
        shutil.copytree(self.folder / "run", self.folder / "resumed")
        before = self.metrics("run", "communication")
        words = [*GRID, "--log-interval", 2, "--resume", self.checkpoint("resumed", MIDDLE)]
        self.train(WORLD, "resumed", *words, steps=STEPS)
        after = self.metrics("resumed", "communication")
        old, new = after[after["step"] <= MIDDLE], after[after["step"] > MIDDLE]
        self.assertEqual(old.tobytes(), before[before["step"] <= MIDDLE].tobytes())
        self.assertEqual(set(new["step"]), {STEPS})
        names = ["rank", "label", "calls", "bytes"]
        self.assertEqual(new[names].tolist(), before[before["step"] == STEPS][names].tolist())

    def test_inspect(self):
        shown = self.command("inspect", "run/metrics.h5")
        self.assertEqual(shown.status, 0, shown)
        rows = len(self.metrics("run", "communication"))
        self.assertRegex(shown.out, rf"/communication: {rows} rows\n  first: step=1 rank=0 label=\S+ calls=\d+ bytes=")


    def test_the_grid_is_told_axis_by_axis(self):
        sizes = {"tp": TP, "cp": 1, "pp": PP, "dp": 1}
        with h5py.File(self.folder / "run/metrics.h5", "r") as file:
            self.assertEqual({axis: file["run"].attrs[axis] for axis in sizes}, sizes)
        self.assertEqual(self.manifest_attributes("run", STEPS)["grid_sizes"], sizes)

    def test_files_of_before_the_context_axis_are_gone_on_with(self):
        shutil.copytree(self.folder / "run", self.folder / "older")
        with h5py.File(self.folder / "older/metrics.h5", "r+") as file:
            del file["run"].attrs["cp"]

        def without_sizes(text):
            manifest = json.loads(text)
            del manifest["attributes"]["grid_sizes"]
            return json.dumps(manifest, separators=(",", ":"))

        rewrite_manifest(self.checkpoint("older", MIDDLE), without_sizes)
        self.assertNotIn("grid_sizes", self.manifest_attributes("older", MIDDLE))
        self.train(WORLD, "older", *GRID, "--resume", self.checkpoint("older", MIDDLE), steps=STEPS)
        with h5py.File(self.folder / "older/metrics.h5", "r") as file:
            self.assertEqual(file["run"].attrs["cp"], 1)
        ends = [tensors(self.checkpoint(output, STEPS)) for output in ("run", "older")]
        self.assertEqual(different(*ends), [])

    def manifest_attributes(self, output, step):
        with h5py.File(self.checkpoint(output, step) / "checkpoint.h5", "r") as file:
            return json.loads(file["manifest"][()])["attributes"]


class Timeline(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        words = cls.training("run", *GRID, "--profile-steps", "3:4", "--global-batch-size", SAMPLES, steps=STEPS)
        made = cls.job(WORLD, *words)
        assert made.status == 0, made

    def test_every_computation_and_communication_of_the_steps(self):
        rows = self.metrics("run", "timeline")
        self.assertEqual(set(rows["step"]), {3, 4})
        self.assertEqual(set(rows["rank"]), set(range(WORLD)))
        self.assertTrue((rows["end_seconds"] >= rows["begin_seconds"]).all())
        steps = self.metrics("run", "train")
        for step in (3, 4):
            seconds = steps["step_seconds"][steps["step"] == step][0]
            for rank in range(WORLD):
                mine = rows[(rows["step"] == step) & (rows["rank"] == rank)]
                compute = mine[mine["lane"] == b"compute"]
                names = compute["name"].tolist()
                self.assertEqual((names.count(b"forward"), names.count(b"backward"), names.count(b"update")),
                                 (SAMPLES, SAMPLES, 1))  # fmt: skip
                self.assertEqual(sorted(compute["micro_batch"]), sorted([-1] + 2 * list(range(SAMPLES))))
                # One after another, within the step; ranks begin it at moments of their own.
                self.assertTrue((compute["begin_seconds"][1:] >= compute["end_seconds"][:-1]).all())
                self.assertLess(compute["end_seconds"][-1], seconds + 0.5)
                counted = self.metrics("run", "communication")
                counted = counted[(counted["step"] == step) & (counted["rank"] == rank)]
                waits = mine[mine["lane"] == b"waits"]
                for label, calls, exposed in zip(counted["label"], counted["calls"], counted["exposed_seconds"]):
                    if not label.startswith(b"dp."):  # a group of one
                        self.assertEqual(((mine["name"] == label) & (mine["lane"] != b"waits")).sum(), calls, label)
                    waited = waits[waits["name"] == label]
                    self.assertAlmostEqual((waited["end_seconds"] - waited["begin_seconds"]).sum(), exposed, delta=1e-6)
                self.assertGreater(len(waits), 0)
                self.assertTrue((waits["begin_seconds"] >= 0).all())

    def test_trace(self):
        made = subprocess.run([sys.executable, TIMELINE, self.folder / "run", "--step", "3"], capture_output=True, text=True)
        self.assertEqual(made.returncode, 0, made)
        events = json.loads((self.folder / "run/timeline.json").read_text())["traceEvents"]
        rows = self.metrics("run", "timeline")
        rows = rows[rows["step"] == 3]
        spans = [event for event in events if event["ph"] == "X"]
        self.assertEqual(len(spans), len(rows))
        self.assertAlmostEqual(sum(span["dur"] for span in spans),
                               1e6 * float((rows["end_seconds"] - rows["begin_seconds"]).sum()), delta=1)  # fmt: skip
        missing = subprocess.run([sys.executable, TIMELINE, self.folder / "run", "--step", "1"], capture_output=True, text=True)
        self.assertEqual(missing.returncode, 3)
        self.assertRegex(missing.stderr, "step 1 has no timeline; those that have: 3, 4")

    def test_files_that_cannot_be_written(self):
        run = shutil.copytree(self.folder / "run", self.folder / "unwritten")
        for option, path, reason in (("--output", "nowhere/x.json", "No such file"), ("--png", "nowhere/x.png", "No such file"),
                                     ("--png", "x.foo", "'foo' is not supported")):  # fmt: skip
            words = [sys.executable, TIMELINE, run, option, path]
            refused = subprocess.run(words, cwd=self.folder, capture_output=True, text=True)
            self.assertEqual(refused.returncode, 3, refused)
            self.assertRegex(refused.stderr, f"^timeline.py: error: {option} {path}: .*{reason}.*\n$")

    def test_picture(self):
        run = shutil.copytree(self.folder / "run", self.folder / "drawn")

        def drawn(*words, status=0):
            picture = self.folder / "timeline.png"
            picture.unlink(missing_ok=True)
            words = [sys.executable, TIMELINE, run, *words]
            made = subprocess.run(words, cwd=self.folder, capture_output=True, text=True)
            self.assertEqual(made.returncode, status, made)
            return picture.read_bytes() if status == 0 else made.stderr

        png = ["--png", "timeline.png"]
        whole = drawn(*png)
        self.assertNotEqual(whole, drawn(*png, "--window", "0:1"))
        self.assertIn("begin at 0 or later", drawn(*png, "--window", "5:0", status=2))
        self.assertIn("begin at 0 or later", drawn(*png, "--window", "0:inf", status=2))
        self.assertIn("give --png", drawn("--window", "0:5", status=2))
        self.assertIn("begins at 1e+09 ms, and step 4 ends at", drawn(*png, "--window", "1e9:2e9", status=3))
        with h5py.File(run / "metrics.h5", "r+") as file:
            rows = file["timeline"][:]
            del file["timeline"]
            file["timeline"] = rows[rows["lane"] != b"waits"]
        self.assertNotEqual(whole, drawn(*png), "waits are drawn")

    def test_a_range_that_is_none(self):
        for words in ("4:3", "0:2", "x", "3:"):
            refused = self.job(1, *self.training("other", "--profile-steps", words))
            self.assertEqual(refused.status, 2, refused)
            self.assertIn(f"--profile-steps {words}", refused.error_lines()[0])


if __name__ == "__main__":
    main()
