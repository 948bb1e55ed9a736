"""Options that would change nothing are refused where they are typed; defaults follow what they depend on."""

import tomllib

from jobs import JobTest, main

CONFIGURATION = 2


class IdleOptions(JobTest):
    def resolved(self, *words, **variables):
        result = self.command("train", "--print-config", *words, **variables)
        self.assertEqual(result.status, 0, result)
        return tomllib.loads(result.out)

    def refused(self, *words, says):
        result = self.command(*words)
        self.assertEqual(result.status, CONFIGURATION, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        for text in says:
            self.assertIn(text, result.error_lines()[0])

    def test_minimum_learning_rate(self):
        for given, derived in (("1e-5", 1e-6), ("3e-4", 3e-5), ("1e-3", 3e-5)):
            self.assertAlmostEqual(self.resolved("--learning-rate", given)["min-learning-rate"], derived, 12)
        both = self.resolved("--learning-rate", "1e-5", "--min-learning-rate", "0")
        self.assertEqual(both["min-learning-rate"], 0)
        self.refused("train", "--print-config", "--learning-rate", "1e-5", "--min-learning-rate", "1e-4",
                     says=["--min-learning-rate 0.0001"])  # fmt: skip

    def test_refused(self):
        for words, says in (
            (["--valid-data", "a.h5", "--valid-fraction", 0.1], ["--valid-fraction 0.1", "--valid-data"]),
            (["--warmup-steps", 11, "--steps", 10], ["--warmup-steps 11", "--steps 10"]),
            (["--min-learning-rate", 0, "--lr-schedule", "constant"], ["--min-learning-rate 0", "constant"]),
            (["--wsd-decay-fraction", 0.5], ["--wsd-decay-fraction 0.5", "wsd"]),
            (["--profile-steps", "11:12", "--steps", 10], ["--profile-steps 11:12", "--steps 10"]),
            (["--valid-interval", 5], ["--valid-interval 5", "--valid-fraction"]),
        ):
            with self.subTest(words):
                self.refused("train", "--print-config", *words, says=says)

    def test_accepted(self):
        self.resolved("--warmup-steps", 10, "--steps", 10, "--profile-steps", "10:12")
        self.resolved("--min-learning-rate", 0.1, "--learning-rate", 0.1, "--lr-schedule", "constant")
        # A file and the environment may be for runs of every kind.
        (self.folder / "shared.toml").write_text("warmup-steps = 20\nwsd-decay-fraction = 0.5\nvalid-interval = 5\n")
        self.resolved("--config", "shared.toml", "--steps", 10)
        self.resolved(LLAMA3D_VALID_INTERVAL="5")

    def test_tokenize(self):
        (self.folder / "a.txt").write_text("text")
        words = ["tokenize", "--input", "a.txt", "--output", "a.h5"]
        self.refused(*words, "--tokenizer", "bytes", "--split-documents-on=", says=["--split-documents-on: is empty"])
        told = self.command(*words)
        self.assertEqual(told.status, 0, told)
        self.assertIn("--tokenizer not given: every byte became a token", told.err)
        self.assertNotIn("not given", self.command(*words, "--tokenizer", "bytes").err)


class NotANumber(JobTest):
    def test_prints_without_a_sign(self):
        result = self.train(1, "nan", "--learning-rate", "1e30", "--grad-clip", 0, "--max-skipped-steps", 100, steps=6)
        self.assertRegex(result.err, r"\bnan\b")
        self.assertNotIn("-nan", result.err)


if __name__ == "__main__":
    main()
