"""A resumed run is the run that never stopped: bit for bit on the same grid, up to rounding on any other."""

import os
import shutil

import numpy

from jobs import JobTest, different, main, relative_error, tensors

STEPS, MIDDLE = 8, 4
# Ranks and options of a grid.
ONE = (1, [])
TP2 = (2, ["--tp-size", 2])
PP2 = (2, ["--pp-size", 2])
DP2 = (2, [])
DP4 = (4, [])
TP2_PP2 = (4, ["--tp-size", 2, "--pp-size", 2])
PP2_DP2 = (4, ["--pp-size", 2])
INTERLEAVED = (2, ["--pp-size", 2, "--pipeline-schedule", "interleaved"])
ZERO_BUBBLE = (2, ["--pp-size", 2, "--pipeline-schedule", "zero-bubble"])
BF16_STATES = [
    "--precision", "bf16", "--master-weights", "none", "--gradient-dtype", "bf16", "--optimizer-dtype", "bf16",
]  # fmt: skip


class Resume(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.write_model("tied.json", tie_word_embeddings=True)
        cls.made = {}

    def straight(self, grid, model="model.json", *more):
        """A run of all steps with a checkpoint in the middle; one for all tests."""
        ranks, options = grid
        name = f"straight_{len(self.made)}"
        key = (ranks, *options, model, *more)
        if key not in self.made:
            self.train(ranks, name, *options, *more, "--checkpoint-interval", MIDDLE, model=model, steps=STEPS)
            self.made[key] = name
        return self.made[key]

    def copy(self, output, name):
        shutil.copytree(self.folder / output, self.folder / name)
        return name

    def expect_all_steps(self, output, steps=STEPS):
        for table in ("train", "valid"):
            rows = self.metrics(output, table)
            self.assertEqual(len(set(rows["step"])), len(rows), f"/{table} has a step twice")
        self.assertEqual(list(self.metrics(output, "train")["step"]), list(range(1, steps + 1)))

    def expect_same_rows(self, left, right):
        rows = [self.metrics(output, "train") for output in (left, right)]
        for field in ("step", "tokens", "loss", "grad_norm", "learning_rate", "skipped"):
            self.assertEqual(rows[0][field].tobytes(), rows[1][field].tobytes(), field)

    def resumed_is_straight(self, grid, model="model.json", *more):
        straight = self.straight(grid, model, *more)
        name = self.copy(straight, f"resumed_{straight}")
        ranks, options = grid
        words = [*options, *more, "--resume", self.checkpoint(name, MIDDLE)]
        result = self.train(ranks, name, *words, model=model, steps=STEPS)
        self.assertIn(f"at step {MIDDLE}", result.err)
        ends = [tensors(self.checkpoint(output, STEPS)) for output in (straight, name)]
        self.assertEqual(different(*ends), [])
        self.expect_same_rows(straight, name)
        self.expect_all_steps(name)
        self.assertEqual(len(self.events(name, "resume")), 1)
        # The step that follows the resumed one was there before: it belongs to another course.
        self.assertTrue(self.checkpoint(name, STEPS).with_name(f"step_{STEPS:08d}.previous-1").is_dir())
        # Negative control: nothing above holds between the middle and the end, or after one changed bit.
        self.assertTrue(different(tensors(self.checkpoint(name, MIDDLE)), ends[0]))
        ends[1]["model/model.norm.weight"].view(numpy.uint8)[3] ^= 1
        self.assertEqual(different(*ends), ["model/model.norm.weight"])

    def test_same_grid_one_rank(self):
        self.resumed_is_straight(ONE)

    def test_same_grid_all_dimensions(self):
        self.resumed_is_straight((8, ["--tp-size", 2, "--pp-size", 2]))

    def test_same_grid_tied_pipeline(self):
        self.resumed_is_straight(TP2_PP2, "tied.json")

    def test_same_grid_bf16(self):
        """Weights are saved from the fp32 master copy, and rounding them gives the bf16 ones back."""
        self.resumed_is_straight(DP2, "model.json", "--precision", "bf16")

    def test_same_grid_bf16_states_in_host_memory(self):
        """What is rounded stochastically continues with the same bits, and an offloaded state is saved and read back."""
        self.resumed_is_straight(TP2, "model.json", *BF16_STATES, "--offload-optimizer")

    def test_bf16_states_on_another_grid(self):
        straight = self.straight(TP2, "model.json", *BF16_STATES, "--offload-optimizer")
        name = self.copy(straight, "other_bf16_states")
        words = [*BF16_STATES, "--pp-size", 2, "--resume", self.checkpoint(name, MIDDLE)]
        self.train(2, name, *words, steps=STEPS)
        losses = [self.metrics(output, "train")["loss"] for output in (name, straight)]
        numpy.testing.assert_allclose(*losses, rtol=2**-8)

    def test_other_grids(self):
        cases = [
            (ONE, TP2, "model.json"), (TP2, PP2, "model.json"), (PP2, DP2, "model.json"), (DP2, TP2_PP2, "model.json"),
            (TP2_PP2, ONE, "tied.json"), (ONE, INTERLEAVED, "tied.json"), (PP2_DP2, DP4, "tied.json"),
            (DP4, ZERO_BUBBLE, "tied.json"),
        ]  # fmt: skip
        for number, (first, then, model) in enumerate(cases):
            with self.subTest(first=first, then=then, model=model):
                straight = self.straight(first, model)
                name = self.copy(straight, f"other_{number}")
                ranks, options = then
                words = [*options, "--resume", self.checkpoint(name, MIDDLE)]
                self.train(ranks, name, *words, model=model, steps=STEPS)
                left, right = (tensors(self.checkpoint(output, STEPS)) for output in (name, straight))
                weights = [{key: end[key] for key in end if key.startswith("model/")} for end in (left, right)]
                self.assertLess(relative_error(*weights), 1e-6)
                # Moments are sums of gradients, which cancel: rounding weighs more in them, and squares double it.
                self.assertLess(relative_error(left, right), 2e-6)
                losses = [self.metrics(output, "train")["loss"] for output in (name, straight)]
                numpy.testing.assert_allclose(*losses, rtol=1e-6)
                self.expect_all_steps(name)
                weights[0]["model/model.norm.weight"] *= numpy.float32(1 + 1e-5)
                self.assertGreater(relative_error(*weights), 1e-6, "negative control")

    def test_bf16_on_another_grid(self):
        """Rounding to bf16 differs with the order of sums, so the losses are only close: 2^-8 of them."""
        straight = self.straight(DP2, "model.json", "--precision", "bf16")
        name = self.copy(straight, "other_bf16")
        words = ["--precision", "bf16", "--tp-size", 2, "--resume", self.checkpoint(name, MIDDLE)]
        self.train(2, name, *words, steps=STEPS)
        losses = [self.metrics(output, "train")["loss"] for output in (name, straight)]
        self.assertEqual(losses[0][:MIDDLE].tobytes(), losses[1][:MIDDLE].tobytes())
        numpy.testing.assert_allclose(*losses, rtol=2**-8)

    def test_validation_rows(self):
        words = ["--valid-fraction", 0.1, "--valid-interval", 2, "--checkpoint-interval", MIDDLE]
        self.train(2, "valid", *words)
        name = self.copy("valid", "valid_resumed")
        self.train(2, name, *words, "--resume", self.checkpoint(name, MIDDLE))
        rows = [self.metrics(output, "valid") for output in ("valid", name)]
        self.assertEqual(list(rows[1]["step"]), [2, 4, 6, 8])
        self.assertEqual(rows[0].tobytes(), rows[1].tobytes())

    def test_further_steps_in_another_folder(self):
        straight = self.straight(DP2)
        self.train(2, "further", "--resume", self.checkpoint(straight, MIDDLE))
        self.assertEqual(different(*(tensors(self.checkpoint(o, STEPS)) for o in (straight, "further"))), [])
        self.assertEqual(list(self.metrics("further", "train")["step"]), list(range(MIDDLE + 1, STEPS + 1)))

    def test_changed_samples_are_told(self):
        straight = self.straight(DP2)
        for option, value, word in (("--seed", 2, "seed was 1 and is 2"), ("--seq-length", 16, "sequence was 32")):
            output = f"changed{option}"
            result = self.train(2, output, "--resume", self.checkpoint(straight, MIDDLE), option, value)
            self.assertEqual(result.err.count("warning:"), 1, result)
            self.assertIn(word, result.err)

    def test_changed_options_are_told(self):
        checkpoint = self.checkpoint(self.straight(DP2), MIDDLE)
        result = self.train(2, "other-rate", "--resume", checkpoint, "--learning-rate", 0.0007, "--grad-clip", 0)
        told = [line for line in result.err.splitlines() if line.startswith("changed since the checkpoint: ")]
        self.assertEqual(len(told), 1, result)
        self.assertRegex(told[0], r": --learning-rate was \S+ and is 0.0007, --grad-clip was 1 and is 0$")
        same = self.train(2, "same-rate", "--resume", checkpoint)
        self.assertNotIn("changed since", same.err)


class Auto(JobTest):
    """--resume auto, with checkpoints that are whole, damaged, gone."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        words = cls.training("base", "--checkpoint-interval", 2, "--keep-checkpoints", 0)
        made = cls.job(2, *words)
        assert made.status == 0, made

    def copy(self, name):
        shutil.copytree(self.folder / "base", self.folder / name)

    def resume(self, name, steps=10, status=0):
        result = self.job(2, *self.training(name, "--resume", "auto", steps=steps))
        self.assertEqual(result.status, status, result)
        return result

    def test_newest(self):
        self.copy("newest")
        self.assertIn("resuming at step 8", self.resume("newest").err)
        self.assertEqual(list(self.metrics("newest", "train")["step"]), list(range(1, 11)))

    def test_none(self):
        result = self.resume("nothing", steps=2)
        self.assertIn("no checkpoint in nothing/checkpoints, starting anew", result.err)
        self.assertEqual(list(self.metrics("nothing", "train")["step"]), [1, 2])

    def content(self, name):
        """But for the lock, which names whoever held it last."""
        files = [path for path in (self.folder / name).rglob("*") if path.is_file() and path.name != ".lock"]
        return {path: hash(path.read_bytes()) for path in files}

    def test_nothing_left_to_do(self):
        for name, steps in (("finished", 8), ("past", 5)):
            self.copy(name)
            before = self.content(name)
            result = self.resume(name, steps=steps)
            self.assertIn(f"--steps {steps}: the run in {name} is at step 8 already, nothing to do", result.err)
            self.assertEqual(self.content(name), before)

    def test_a_checkpoint_past_the_steps(self):
        """Named by hand: refused before anything of the run that is in the folder is put aside."""
        for name in ("further", "damaged"):
            self.copy(name)
        file = self.damage("damaged", "flipped", 8)
        self.train(2, "mine", "--checkpoint-interval", 2, steps=4)
        before = self.content("mine")
        for other, steps, status, words in (
            ("further", 6, 2, ("--steps 6", "is at step 8 already")),
            ("further", 8, 2, ("--steps 8", "is at step 8 already")),
            ("damaged", 12, 4, (file,)),
        ):
            result = self.job(2, *self.training("mine", "--resume", self.checkpoint(other, 8), steps=steps))
            self.assertEqual(result.status, status, result)
            self.assertEqual(len(result.error_lines()), 1, result)
            for word in words:
                self.assertIn(word, result.error_lines()[0])
            self.assertEqual(self.content("mine"), before)

    def damage(self, name, kind, step):
        checkpoint = self.checkpoint(name, step)
        file = checkpoint / "rank_00001.h5"
        content = bytearray(file.read_bytes())
        if kind == "flipped":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        elif kind == "truncated":
            file.write_bytes(content[:-1000])
        elif kind == "deleted":
            file.unlink()
        elif kind == "view":
            file = checkpoint / "checkpoint.h5"
            file.unlink()
        return file.name

    def test_damaged_are_skipped(self):
        for kind in ("flipped", "truncated", "deleted", "view"):
            with self.subTest(kind):
                self.copy(kind)
                file = self.damage(kind, kind, 8)
                result = self.resume(kind)
                warnings = [line for line in result.err.splitlines() if line.startswith("warning:")]
                self.assertEqual(len(warnings), 1, result)
                self.assertIn("step_00000008", warnings[0])
                self.assertIn(file, warnings[0])
                self.assertIn("resuming at step 6", result.err)
                # As if nothing had happened, and the damaged one is replaced once its step comes again.
                self.assertEqual(list(self.metrics(kind, "train")["step"]), list(range(1, 11)))
                again = self.resume(kind, steps=11)
                self.assertIn("resuming at step 10", again.err)
                self.assertNotIn("warning", again.err)

    def test_all_damaged(self):
        self.copy("all")
        for step, kind in ((2, "flipped"), (4, "truncated"), (6, "deleted"), (8, "view")):
            self.damage("all", kind, step)
        dry = self.job(1, *self.training("all", "--resume", "auto", "--dry-run"))
        self.assertEqual(dry.status, 0, "headers alone are read")
        result = self.resume("all", status=4)
        self.assertEqual(len(result.error_lines()), 1, result)
        self.assertIn("none of the checkpoints in all/checkpoints can be loaded", result.error_lines()[0])
        for step in (2, 4, 6, 8):
            self.assertIn(f"step_{step:08d}", result.err)
        self.assertEqual(list(self.metrics("all", "train")["step"]), list(range(1, 9)), "metrics are untouched")

    def test_damaged_metrics_are_set_aside(self):
        self.copy("metrics")
        (self.folder / "metrics" / "metrics.h5").write_bytes(b"not HDF5" * 100)
        result = self.resume("metrics")
        self.assertIn("metrics.h5.damaged-1", result.err)
        self.assertEqual(list(self.metrics("metrics", "train")["step"]), [9, 10])
        self.assertTrue((self.folder / "metrics" / "metrics.h5.damaged-1").is_file())

    def test_leftovers_of_a_killed_run_go(self):
        self.copy("leftovers")
        partial = self.folder / "leftovers" / "checkpoints" / "step_00000009.partial"
        partial.mkdir()
        (partial / "rank_00000.h5").write_bytes(b"half")
        self.assertIn("resuming at step 8", self.resume("leftovers").err)
        self.assertFalse(partial.exists())

    def test_checkpoints_that_cannot_be_listed(self):
        """They may be there: neither is the run begun anew over them, nor are its metrics."""
        self.copy("unlisted")
        checkpoints = self.folder / "unlisted/checkpoints"
        checkpoints.rename(checkpoints.with_name("elsewhere"))
        checkpoints.symlink_to("checkpoints")
        metrics = (self.folder / "unlisted/metrics.h5").read_bytes()
        before = sorted((self.folder / "unlisted").rglob("*"))
        for more in ([], ["--dry-run"]):
            result = self.job(2, *self.training("unlisted", "--resume", "auto", *more))
            self.assertEqual(result.status, 4, result)
            self.assertEqual(len(result.error_lines()), 1, result)
            self.assertIn("checkpoints in unlisted/checkpoints cannot be listed", result.error_lines()[0])
        self.assertEqual(sorted((self.folder / "unlisted").rglob("*")), before)
        self.assertEqual((self.folder / "unlisted/metrics.h5").read_bytes(), metrics)

    def test_replacement_that_was_cut_off(self):
        """Who only reads leaves the old folder's name; the run that goes on gives it back."""
        self.copy("replaced")
        checkpoint = self.checkpoint("replaced", 8)
        replaced = checkpoint.rename(f"{checkpoint}.replaced")
        result = self.command("eval", "--load", checkpoint, "--data", "tokens.h5")
        self.assertEqual(result.status, 4, result)
        self.assertIn(f"did you mean {replaced}?", result.err)
        result = self.command(*self.training("replaced", "--resume", "auto", "--dry-run"))
        self.assertEqual(result.status, 0, result)
        self.assertTrue(replaced.is_dir())
        self.assertIn("resuming at step 8", self.resume("replaced").err)
        self.assertEqual(self.checkpoint_steps("replaced"), [6, 8, 10])
        self.assertFalse(replaced.exists())

    def test_folder_that_lost_its_checkpoint(self):
        (self.folder / "lost/checkpoints/step_00000100").mkdir(parents=True)
        result = self.command("eval", "--load", "lost/checkpoints/step_00000100", "--data", "tokens.h5")
        self.assertEqual(result.status, 4, result)
        self.assertNotIn("did you mean", result.err)

    def test_kept_checkpoints(self):
        self.train(2, "kept", "--checkpoint-interval", 1, "--keep-checkpoints", 2)
        self.assertEqual(self.checkpoint_steps("kept"), [7, 8])
        # A damaged newer one does not count.
        self.damage("kept", "flipped", 8)
        result = self.job(2, *self.training("kept", "--resume", "auto", "--keep-checkpoints", 1, steps=9))
        self.assertEqual(result.status, 0, result)
        self.assertEqual(self.checkpoint_steps("kept"), [9])

    def test_without_a_checkpoint_at_the_end(self):
        result = self.train(1, "last", "--no-final-checkpoint", "--checkpoint-interval", 3)
        self.assertEqual(self.checkpoint_steps("last"), [3, 6])
        self.assertIn("step 8/8", result.err)
        self.train(1, "none", "--no-final-checkpoint", steps=2)
        self.assertEqual(self.checkpoint_steps("none"), [])

    def test_new_run_in_an_old_folder(self):
        """The old run's newer checkpoints must neither drive out the new one's nor be resumed from."""
        self.copy("old")
        result = self.train(2, "old", "--keep-checkpoints", 1, steps=3)
        self.assertIn("step_00000008.previous-1", result.err)
        self.assertEqual(self.checkpoint_steps("old"), [3])
        self.assertEqual(list(self.metrics("old", "train")["step"]), [1, 2, 3])
        self.assertIn("resuming at step 3", self.resume("old", steps=4).err)

    def test_resume_without_what_the_run_started_from(self):
        self.train(1, "origin")
        origin = self.checkpoint("origin", 8)
        words = ["--resume", "auto", "--load", origin]
        self.train(1, "tuned", *words, model="")
        shutil.rmtree(self.folder / "origin")
        again = self.train(2, "tuned", *words, model="", steps=10)
        self.assertIn("is not used: the run goes on with its own weights", again.err)
        new = self.job(1, *self.training("new", *words, model=""))
        self.assertEqual(new.status, 4, new)

    def test_resume_from_another_run(self):
        """Of the run that was in the folder nothing is taken for part of this one."""
        self.copy("other")
        self.train(2, "own", "--checkpoint-interval", 2, steps=8)
        self.train(2, "own", "--resume", self.checkpoint("other", 4), steps=6)
        self.assertEqual(self.checkpoint_steps("own"), [6])
        self.assertEqual(list(self.metrics("own", "train")["step"]), [5, 6])
        self.train(2, "other", "--resume", self.checkpoint("other", 4), steps=6)
        self.assertEqual(list(self.metrics("other", "train")["step"]), list(range(1, 7)))

    def test_a_run_from_elsewhere_that_ends_before_its_first_save(self):
        self.copy("elsewhere")
        self.train(2, "begun", "--checkpoint-interval", 2, steps=4)
        self.train(2, "begun", "--resume", self.checkpoint('elsewhere', 8), "--no-final-checkpoint", steps=9)
        resumed = self.train(2, "begun", "--resume", "auto", steps=10)
        self.assertIn("resuming at step 8", resumed.err)
        self.assertIn(f"a link to {self.checkpoint('elsewhere', 8)}", resumed.err)
        self.assertTrue(self.checkpoint('elsewhere', 8).is_dir())

    def test_folders_that_are_no_checkpoints_drive_none_out(self):
        self.copy("half")
        for step, file in ((9, None), (10, "rank_00000.h5")):
            folder = self.checkpoint("half", step)
            if file is None:
                folder.mkdir()
            else:
                shutil.copytree(self.checkpoint("half", 8), folder)
                os.truncate(folder / file, 1000)
        self.train(2, "half", "--resume", "auto", "--keep-checkpoints", 2, steps=11)
        kept = self.checkpoint_steps("half")
        self.assertIn(8, kept)
        self.assertIn(11, kept)

    def test_load_takes_weights_only(self):
        result = self.train(2, "loaded", "--load", self.checkpoint("base", 8), steps=1)
        self.assertIn("step 1/1", result.err)
        first, later = self.metrics("loaded", "train")["loss"][0], self.metrics("base", "train")["loss"]
        self.assertLess(first, later[2], "the loaded weights are trained")
        self.assertEqual(list(self.metrics("loaded", "train")["step"]), [1])


if __name__ == "__main__":
    main()
