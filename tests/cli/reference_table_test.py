"""jobs/reference_table.sh on CPUs: every grid that the ranks can form becomes a row of the report."""

import json
import pathlib
import re
import sys

import h5py

from jobs import PROGRAM, JobTest, Started, main

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "jobs" / "reference_table.sh"
CONFIGURATION = 2
# By the run's folder: tp, pp, dp, schedule and micro-batch.
GRIDS = {
    "tp1-pp1-dp2": (1, 1, 2, "1f1b", 1),
    "tp1-pp1-dp2-micro2": (1, 1, 2, "1f1b", 2),
    "tp2-pp1-dp1": (2, 1, 1, "1f1b", 1),
    "tp1-pp2-dp1": (1, 2, 1, "1f1b", 1),
    "tp1-pp2-dp1-zero-bubble": (1, 2, 1, "zero-bubble", 1),
}


class ReferenceTableTest(JobTest):
    def table(self, output, grids, *words):
        settings = {
            "RANKS": 2, "GRIDS": grids, "MODEL": "model.json", "DATA": "tokens.h5", "SEQ_LENGTH": 32,
            "GLOBAL_BATCH_SIZE": 4, "STEPS": 3, "SKIP_STEPS": 2, "RECOMPUTE": "full", "DEVICE": "cpu",
            "STATES": "--precision bf16 --master-weights none", "OUTPUT_DIR": output, "LLAMA3D": PROGRAM,
            "PYTHON": sys.executable,
        }  # fmt: skip
        return Started([SCRIPT, *words], self.folder, settings).wait()

    def configuration(self, folder):
        with h5py.File(self.folder / folder / "metrics.h5", "r") as file:
            return json.loads(file["run"].attrs["configuration"])

    def test_a_row_for_every_grid(self):
        """Two ranks form no TP 4, and micro-batches of 3 do not divide a step's samples: the others go on."""
        made = self.table("all", "1x1 1x1@2 2x1 4x1 1x1@3 1x2 1x2:zero-bubble", "--threads", "1")
        self.assertEqual(made.status, 0, made)
        self.assertIn("not a multiple of micro-batch size 3", made.err)
        rows = re.findall(r"^(\S+) +TP (\d) x PP (\d) x DP (\d)(?:, (\S+))? +(\d+) .* ([\d.]+) +[\d,]+ +\S+$", made.out, re.M)
        found = {name: (int(tp), int(pp), int(dp), schedule or "1f1b", int(micro_batch))
                 for name, tp, pp, dp, schedule, micro_batch, _ in rows}  # fmt: skip
        self.assertEqual(found, GRIDS, made)
        losses = []
        for name, *_, seconds in rows:
            configuration = self.configuration(f"all/{name}")
            self.assertEqual(configuration["recompute"], "full")
            self.assertEqual((configuration["precision"], configuration["master-weights"]), ("bf16", "none"))
            self.assertEqual(self.checkpoint_steps(f"all/{name}"), [])
            steps = self.metrics(f"all/{name}", "train")
            self.assertEqual(list(steps["step"]), [1, 2, 3])
            self.assertEqual(seconds, f"{steps['step_seconds'][-1]:.4g}", "the last step alone")
            losses.append(steps["loss"][-1])
        self.assertLess(max(losses) / min(losses) - 1, 0.005, "bf16, whatever the grid")
        self.assertTrue((self.folder / "all/report/report.html").exists())

    def test_none_runs(self):
        made = self.table("none", "4x1 1x1@3")
        self.assertEqual(made.status, CONFIGURATION, made)
        self.assertIn('none of GRIDS="4x1 1x1@3" ran on RANKS=2', made.err)

    def test_a_mistake_in_the_options_of_all(self):
        made = self.table("wrong", "1x1", "--no-such-option")
        self.assertEqual(made.status, CONFIGURATION, made)
        self.assertIn("--no-such-option", made.err)


if __name__ == "__main__":
    main()
