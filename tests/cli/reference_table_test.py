"""jobs/reference_table.sh on CPUs: every grid that the ranks can form becomes a row of the report."""

import pathlib
import re
import subprocess
import sys

from jobs import PROGRAM, JobTest, environment, main

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "jobs" / "reference_table.sh"
CONFIGURATION = 2


class ReferenceTableTest(JobTest):
    def table(self, output, grids, *words):
        settings = environment(
            RANKS=2, GRIDS=grids, MODEL="model.json", DATA="tokens.h5", SEQ_LENGTH=32, GLOBAL_BATCH_SIZE=4, STEPS=3,
            SKIP_STEPS=1, DEVICE="cpu", OUTPUT_DIR=output, LLAMA3D=PROGRAM, PYTHON=sys.executable,
        )  # fmt: skip
        return subprocess.run([SCRIPT, *words], cwd=self.folder, env=settings, capture_output=True, text=True)

    def test_a_row_for_every_grid(self):
        """Two ranks form no TP 4, and micro-batches of 3 do not divide a step's samples: the others go on."""
        made = self.table("all", "1x1 1x1@2 2x1 4x1 1x1@3 1x2 1x2:zero-bubble", "--threads", "1")
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        names = ["tp1-pp1-dp2", "tp1-pp1-dp2-micro2", "tp2-pp1-dp1", "tp1-pp2-dp1", "tp1-pp2-dp1-zero-bubble"]
        rows = re.findall(r"^(\S+) +TP\d x PP\d x DP\d", made.stdout, re.M)
        self.assertEqual(sorted(rows), sorted(names), made.stdout)
        self.assertIn("not a multiple of micro-batch size 3", made.stderr)
        losses = []
        for name in names:
            self.assertEqual(self.checkpoint_steps(f"all/{name}"), [])
            rows = self.metrics(f"all/{name}", "train")
            self.assertEqual(list(rows["step"]), [1, 2, 3])
            losses.append(rows["loss"][-1])
        self.assertLess(max(losses) / min(losses) - 1, 0.005, "bf16, whatever the grid")
        self.assertTrue((self.folder / "all/report/report.html").exists())

    def test_none_runs(self):
        made = self.table("none", "4x1 1x1@3")
        self.assertEqual(made.returncode, CONFIGURATION, made.stdout + made.stderr)
        self.assertIn('none of GRIDS="4x1 1x1@3" ran on RANKS=2', made.stderr)

    def test_a_mistake_in_the_options_of_all(self):
        made = self.table("wrong", "1x1", "--no-such-option")
        self.assertEqual(made.returncode, CONFIGURATION, made.stdout + made.stderr)
        self.assertIn("--no-such-option", made.stderr)


if __name__ == "__main__":
    main()
