"""What a run says of its token files: other ones than another rank's, other ones than before, nothing to learn in them."""

import pathlib
import shutil

import h5py

from jobs import PROGRAM, JobTest, Started, main, mpirun

JOBS = pathlib.Path(__file__).resolve().parents[2] / "jobs"
SEQUENCE = 128


class Samples(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.write_model("longer.json", max_position_embeddings=SEQUENCE)
        made = cls.command("tokenize", "--input", JOBS / "data/instructions.json", "--output", "chat.h5")
        assert made.status == 0, made

    def masked(self, name, keep):
        """The same file with targets in the first `keep` documents only."""
        shutil.copy(self.folder / "chat.h5", self.folder / name)
        with h5py.File(self.folder / name, "r+") as file:
            mask = file["loss_mask"][:]
            mask[file["documents"][keep] :] = 0
            file["loss_mask"][:] = mask
        return name

    def words(self, output, data, *more, steps=4):
        return self.training(output, "--seq-length", SEQUENCE, *more, model="longer.json", data=data, steps=steps)

    def refused(self, result, status, *words):
        self.assertEqual(result.status, status, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        for word in words:
            self.assertIn(word, result.error_lines()[0])

    def test_nothing_to_learn_ends_a_run_as_a_matter_of_data(self):
        none = self.masked("none.h5", 0)
        result = self.job(1, *self.words("none", none, "--max-skipped-steps", 3))
        self.refused(result, 3, "--data none.h5: 3 steps in a row had no token to learn")
        trained = self.train(1, "some", "--seq-length", SEQUENCE, model="longer.json", data="chat.h5", steps=1)
        self.assertEqual(trained.status, 0, trained)
        evaluated = self.job(1, "eval", "--load", self.checkpoint("some", 1), "--data", none, "--device", "cpu")
        self.refused(evaluated, 3, "--data none.h5: no token of the samples is a target")

    def test_single_steps_without_targets_are_passed_over(self):
        few = self.masked("few.h5", 1)
        result = self.job(1, *self.words("few", few, "--global-batch-size", 1, "--max-skipped-steps", 100, steps=30))
        self.assertEqual(result.status, 0, result)
        self.assertIn("warning: no token of step", result.err)
        skipped = self.metrics("few", "train")["skipped"].sum()
        self.assertEqual(skipped, len(self.events("few", "skip")))
        self.assertTrue(0 < skipped < 30, skipped)

    def test_validation_without_targets_is_told(self):
        result = self.train(1, "valid", "--seq-length", SEQUENCE, "--valid-data", self.masked("v.h5", 0),
                            model="longer.json", data="chat.h5", steps=2)  # fmt: skip
        self.assertIn("no token of the validation data is a target", result.err)
        self.assertNotIn("nan", result.err)

    def test_ranks_with_different_files(self):
        for name in ("--data", "--valid-data"):
            left, right = (self.words("apart", "chat.h5", "--tp-size", 2, name, file)
                           for file in ("chat.h5", self.masked("other.h5", 5)))  # fmt: skip
            if name == "--data":
                for words in (left, right):
                    first = words.index("--data")
                    del words[first : first + 2]
            command = [*mpirun(1), PROGRAM, *left, ":", "-np", "1", PROGRAM, *right]
            self.refused(Started(command, self.folder, {}).wait(), 3, "is not the file that rank 0 has")

    def test_a_run_that_goes_on_with_other_samples_says_so(self):
        self.train(1, "went", "--seq-length", SEQUENCE, model="longer.json", data="chat.h5", steps=2)
        same = self.job(1, *self.words("went", "chat.h5", "--resume", "auto", steps=3))
        self.assertNotIn("warning", same.err)
        other = self.job(1, *self.words("went", self.masked("later.h5", 9), "--resume", "auto", "--packing", "stream",
                                        "--load", self.checkpoint("went", 2), steps=4))  # fmt: skip
        self.assertEqual(other.status, 0, other)
        self.assertIn("warning: the token files are others than before", other.err)
        self.assertIn('warning: packing was "documents" and is "stream" now', other.err)
        self.assertIn("is not used: the run goes on with its own weights", other.err)

    def test_the_script_starts_from_a_checkpoint(self):
        self.train(1, "base", "--seq-length", SEQUENCE, model="longer.json", data="chat.h5", steps=2)
        settings = {
            "LLAMA3D": PROGRAM, "WEIGHTS": self.checkpoint("base", 2), "TOKENIZER": "bytes", "DEVICE": "cpu", "STEPS": 2,
            "CUTOFF": SEQUENCE, "GLOBAL_BATCH_SIZE": 4, "WARMUP_STEPS": 1, "VALID_DATA": "chat.h5",
        }  # fmt: skip
        result = Started([JOBS / "finetune_alpaca.sh"], self.folder, settings).wait()
        self.assertEqual(result.status, 0, result)
        self.assertIn(f"weights of {self.checkpoint('base', 2)}", result.err)
        self.assertIn("validation loss", result.err)
        self.assertTrue((self.folder / "runs/step_00000002-instructions/metrics.h5").exists())


if __name__ == "__main__":
    main()
