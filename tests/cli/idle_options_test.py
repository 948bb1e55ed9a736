"""Options that would change nothing are refused where they are typed; defaults follow what they depend on."""

import json
import tomllib

from jobs import JobTest, main

CONFIGURATION, NUMERICS = 2, 6


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
            (["--no-final-checkpoint", "--keep-checkpoints", 2], ["--keep-checkpoints 2", "--checkpoint-interval"]),
            (["--valid-interval", 5], ["--valid-interval 5", "--valid-fraction"]),
            *self.SHAPES,
        ):
            with self.subTest(words):
                self.refused("train", "--print-config", *words, says=says)

    SHAPES = (
        (["--no-tp-overlap", "--tp-overlap-blocks", 2], ["--tp-overlap-blocks 2", "--no-tp-overlap"]),
        (["--master-weights", "none"], ["--master-weights none", "--precision is fp32"]),
    )

    def test_other_commands(self):
        (command, blocks), (_, master) = self.SHAPES
        self.refused("eval", "--load", "x", "--data", "tokens.h5", *command, says=blocks)
        for words in (["plan"], ["bench", "step"]):
            for command, says in self.SHAPES:
                with self.subTest(words + command):
                    self.refused(*words, *command, says=says)
        self.refused("bench", "gemm", "--steps", 3, says=["--steps 3", "bench step"])

    def test_accepted(self):
        self.resolved("--warmup-steps", 10, "--steps", 10, "--profile-steps", "10:12")
        self.resolved("--min-learning-rate", 0.1, "--learning-rate", 0.1, "--lr-schedule", "constant")
        # A file and the environment may be for runs of every kind.
        (self.folder / "shared.toml").write_text("warmup-steps = 20\nwsd-decay-fraction = 0.5\nvalid-interval = 5\n")
        self.resolved("--config", "shared.toml", "--steps", 10)
        self.resolved(LLAMA3D_VALID_INTERVAL="5")
        self.resolved("--master-weights", "none", "--precision", "bf16", "--tp-overlap-blocks", 2)
        self.resolved("--master-weights", "fp32")

    def test_tokenize(self):
        (self.folder / "a.txt").write_text("text")
        words = ["tokenize", "--input", "a.txt", "--output", "a.h5"]
        self.refused(*words, "--tokenizer", "bytes", "--split-documents-on=", says=["--split-documents-on: is empty"])
        records = {"a.jsonl": {"text": "text"}, "chat.json": {"instruction": "a", "output": "b"}}
        for name, record in records.items():
            (self.folder / name).write_text(json.dumps(record))
        for name, option, value in (
            ("a.jsonl", "--split-documents-on", "*"), ("a.txt", "--text-field", "text"), ("chat.json", "--text-field", "text"),
            ("a.txt", "--cutoff", 8), ("a.jsonl", "--cutoff", 8), ("a.txt", "--loss-on", "assistant"),
        ):  # fmt: skip
            with self.subTest(option, input=name):
                made = ["tokenize", "--tokenizer", "bytes", "--input", name, "--output", "idle.h5"]
                self.refused(*made, option, value, says=[f"{option} {value}: has no effect, no input "])
                # Beside an input that it is for.
                others = [other for other in ("a.txt", "a.jsonl", "chat.json") if other != name]
                both = self.command(*made, "--input", *others, option, value)
                self.assertEqual(both.status, 0, both)
                shared = self.command(*made, **{f"LLAMA3D_{option[2:].replace('-', '_').upper()}": value})
                self.assertEqual(shared.status, 0, shared)
        self.assertEqual(self.command(*words, "--loss-on", "all", "--cutoff", 0).status, 0)
        told = self.command(*words)
        self.assertEqual(told.status, 0, told)
        self.assertIn("--tokenizer not given: every byte became a token", told.err)
        self.assertNotIn("not given", self.command(*words, "--tokenizer", "bytes").err)


class NotANumber(JobTest):
    def test_prints_without_a_sign(self):
        words = ["--learning-rate", "1e30", "--grad-clip", 0, "--max-skipped-steps", 100]
        result = self.job(1, *self.training("nan", *words, steps=6))
        self.assertEqual(result.status, NUMERICS, result)
        self.assertRegex(result.err, r"\bnan\b")
        self.assertNotIn("-nan", result.err)


if __name__ == "__main__":
    main()
