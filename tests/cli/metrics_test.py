"""What a run says about its communication, rank by rank and label by label."""

import shutil

import numpy

from jobs import JobTest, main

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
        # Waiting is part of being under way; sums of both round.
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


if __name__ == "__main__":
    main()
