"""Steps that are not finite, options that must not change a bit, and evaluation of what training saved."""

import os
import re
import shutil
import signal

import numpy

from jobs import JobTest, different, main, relative_error, tensors

NUMERICS = 6


class NotFinite(JobTest):
    DIVERGING = ["--learning-rate", "1e30", "--grad-clip", 0]

    def test_training_gives_up(self):
        result = self.job(2, *self.training("nan", *self.DIVERGING, "--max-skipped-steps", 3, steps=50))
        self.assertEqual(result.status, NUMERICS, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        self.assertRegex(result.error_lines()[0], r"3 steps in a row .*not finite.*--learning-rate")
        rows = self.metrics("nan", "train")
        self.assertEqual(list(rows["skipped"][-3:]), [1, 1, 1])
        self.assertEqual(rows["skipped"][0], 0, "the first step is finite")
        skips = self.events("nan", "skip")
        self.assertEqual(len(skips), rows["skipped"].sum())
        self.assertIn(f"step {rows['step'][-1]} skipped (3 in a row)", skips[-1])
        self.assertEqual(result.err.count("warning: loss"), len(skips))
        self.assertEqual(self.checkpoint_steps("nan"), [], "broken weights are not saved")

    def test_broken_weights_drive_no_checkpoint_out(self):
        keeps = ["--max-skipped-steps", 1000, "--keep-checkpoints", 1]
        self.train(2, "good", steps=4)
        shutil.copytree(self.folder / "good", self.folder / "broken")
        words = self.training("broken", "--resume", "auto", "--checkpoint-interval", 1, *keeps, *self.DIVERGING, steps=9)
        result = self.job(2, *words)
        self.assertEqual(result.status, NUMERICS, result)
        self.assertRegex(result.error_lines()[0], r"the last [34] steps were skipped, .*; use an earlier checkpoint")
        self.assertIn("step 7: not saved, as it was skipped", result.err)
        steps = self.checkpoint_steps("broken")
        self.assertIn(4, steps)
        self.assertNotIn(7, steps)
        # Nor does a signal, after which the state is saved beside the others.
        shutil.copytree(self.folder / "good", self.folder / "signal")
        job = self.start(2, *self.training("signal", "--resume", "auto", *keeps, *self.DIVERGING, steps=10**6))
        job.wait_for("in a row")
        os.kill(job.rank_pids()[0], signal.SIGTERM)
        result = job.wait()
        self.assertEqual(result.status, 75, result)
        self.assertIn(4, self.checkpoint_steps("signal"))

    def test_skipped_steps_change_nothing(self):
        """What is saved behind them has the weights and moments of the last good step."""
        words = ["--checkpoint-interval", 1, "--keep-checkpoints", 0, "--max-skipped-steps", 100, *self.DIVERGING]
        result = self.job(2, *self.training("skip", *words, steps=6))
        self.assertEqual(result.status, NUMERICS, result)
        rows = self.metrics("skip", "train")
        good = int(rows["step"][rows["skipped"] == 0][-1])
        self.assertLess(good, 6)
        self.assertEqual(list(rows["skipped"]), [0] * good + [1] * (6 - good))
        self.assertEqual(self.checkpoint_steps("skip"), [*range(1, good + 1), 6])
        ends = [tensors(self.checkpoint("skip", step)) for step in (good, 6)]
        self.assertEqual(different(*ends), [])


class SameBits(JobTest):
    def same_as(self, output, other):
        losses = [self.metrics(name, "train")["loss"] for name in (output, other)]
        self.assertEqual(losses[0].tobytes(), losses[1].tobytes())
        self.assertEqual(different(*(tensors(self.checkpoint(name, 4)) for name in (output, other))), [])

    def recompute(self, name, ranks, *options):
        for kind in ("none", "cheap", "full"):
            self.train(ranks, f"{name}_{kind}", "--recompute", kind, *options, steps=4)
        self.same_as(f"{name}_cheap", f"{name}_none")
        self.same_as(f"{name}_full", f"{name}_none")

    def test_recompute(self):
        self.recompute("fp32", 2, "--tp-size", 2)

    def test_recompute_bf16_pipeline(self):
        self.recompute("bf16", 2, "--pp-size", 2, "--precision", "bf16")

    def test_offloaded_optimizer(self):
        states = ["--precision", "bf16", "--optimizer-dtype", "bf16"]
        for name, more in (("resident", []), ("offloaded", ["--offload-optimizer"])):
            self.train(4, name, *states, "--pp-size", 2, *more, steps=4)
        self.same_as("offloaded", "resident")
        self.train(4, "fp32_moments", "--precision", "bf16", "--pp-size", 2, steps=4)
        self.assertTrue(different(*(tensors(self.checkpoint(name, 4)) for name in ("fp32_moments", "resident"))))

    def test_same_run_twice(self):
        for name in ("first", "second"):
            self.train(4, name, "--tp-size", 2, steps=4)
        self.same_as("first", "second")
        self.train(4, "third", "--tp-size", 2, "--seed", 2, steps=4)
        self.assertTrue(different(*(tensors(self.checkpoint(name, 4)) for name in ("first", "third"))))

    def test_bf16_is_near_fp32_and_not_the_same(self):
        for precision in ("fp32", "bf16"):
            self.train(2, precision, "--precision", precision, steps=4)
        losses = [self.metrics(name, "train")["loss"] for name in ("fp32", "bf16")]
        self.assertTrue((losses[0] != losses[1]).all())
        # Eight bits of mantissa; rounding errors of a sum over layers and tokens partly cancel.
        numpy.testing.assert_allclose(*losses, rtol=2**-8)
        ends = [tensors(self.checkpoint(name, 4)) for name in ("fp32", "bf16")]
        weights = [{key: end[key] for key in end if key.startswith("model/")} for end in ends]
        self.assertGreater(relative_error(*weights), 0)


class Evaluation(JobTest):
    def test_validation_where_training_has_one_micro_batch(self):
        """Its pipeline has fewer buffers than an evaluation of many micro-batches could use."""
        words = ("--valid-fraction", 0.2, "--valid-interval", 2, "--valid-samples", 8, "--global-batch-size", 1)
        self.train(3, "one", *words, "--pp-size", 3, steps=2)
        self.train(1, "alone", *words, steps=2)
        losses = [self.metrics(name, "valid")["loss"] for name in ("one", "alone")]
        self.assertEqual(len(losses[0]), 1)
        numpy.testing.assert_allclose(*losses, rtol=1e-5)

    def evaluated(self, ranks, *words, **extra):
        result = self.job(ranks, "eval", "--device", "cpu", "--threads", 1, *words, **extra)
        self.assertEqual(result.status, 0, result)
        found = re.findall(r"^loss (\S+)  perplexity (\S+)  targets (\d+)$", result.out, re.M)
        self.assertEqual(len(found), 1, f"once, not once a rank: {result}")
        return float(found[0][0]), float(found[0][1]), int(found[0][2])

    def test_loss_of_the_last_validation(self):
        """Model and sequence length come from the checkpoint. Six decimals are printed."""
        (self.folder / "valid.txt").write_text((self.folder / "text.txt").read_text()[3000:9000])
        made = self.command("tokenize", "--tokenizer", "bytes", "--input", "valid.txt", "--output", "valid.h5")
        self.assertEqual(made.status, 0, made)
        validation = ["--valid-data", "valid.h5", "--valid-interval", 4, "--valid-samples", 50]
        trained = self.train(2, "valid", *validation, "--checkpoint-interval", 4)
        rows = self.metrics("valid", "valid")
        self.assertEqual(list(rows["step"]), [4, 8])
        self.assertLess(rows["loss"][1], rows["loss"][0])
        numpy.testing.assert_allclose(rows["perplexity"], numpy.exp(rows["loss"]), rtol=1e-12)
        targets = int(re.search(r"step 8: validation loss .* \((\d+) targets\)", trained.err)[1])
        words = ["--load", self.checkpoint("valid", 8), "--data", "valid.h5", "--samples", 50]
        for ranks, grid in ((1, []), (2, []), (2, ["--tp-size", 2]), (2, ["--pp-size", 2]),
                            (3, ["--pp-size", 3]), (4, ["--pp-size", 4]),
                            (2, ["--pp-size", 2, "--pipeline-schedule", "interleaved"])):
            loss, perplexity, count = self.evaluated(ranks, *words, *grid)
            # Half a unit of the last printed decimal, and rounding of another order of sums.
            self.assertAlmostEqual(loss, rows["loss"][1], delta=0.5e-6 + 1e-6 * loss)
            self.assertAlmostEqual(perplexity, numpy.exp(loss), delta=1e-3)
            self.assertEqual(count, targets)
        # Any micro-batch will do, and what the environment has for training is left to that.
        loss, _, _ = self.evaluated(2, *words, "--micro-batch-size", 3, LLAMA3D_GLOBAL_BATCH_SIZE=7, LLAMA3D_STEPS=3)
        self.assertAlmostEqual(loss, rows["loss"][1], delta=0.5e-6 + 1e-6 * loss)
        # Negative control: other weights, other loss.
        earlier, _, _ = self.evaluated(2, "--load", self.checkpoint("valid", 4), *words[2:])
        self.assertAlmostEqual(earlier, rows["loss"][0], delta=0.5e-6 + 1e-6 * earlier)
        self.assertNotAlmostEqual(earlier, rows["loss"][1], delta=1e-3)


if __name__ == "__main__":
    main()
