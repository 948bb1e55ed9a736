"""Instruction data from records to a trained model: tokenize, pack, train, evaluate, and the script that does it."""

import json
import pathlib
import struct

import h5py
import numpy

from jobs import PROGRAM, JobTest, Started, main

JOBS = pathlib.Path(__file__).resolve().parents[2] / "jobs"
TOKENIZERS = JOBS.parent / "tests/data/tokenizer"
SCRIPT, RECORDS = JOBS / "finetune_alpaca.sh", JOBS / "data" / "instructions.json"
SEQUENCE = 256


class Instructions(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.write_model("long.json", max_position_embeddings=1024)
        made = cls.command("tokenize", "--input", RECORDS, "--output", "chat.h5", "--strict")
        assert made.status == 0, made
        assert f"{len(json.loads(RECORDS.read_text()))} conversations, 0 bad records" in made.out, made

    def packed_training(self, output, *more):
        words = ["--valid-fraction", 0.1, "--seq-length", SEQUENCE, *more]
        return self.training(output, *words, model="long.json", data="chat.h5", steps=3)

    def test_the_script_trains_the_tiny_model(self):
        settings = {
            "LLAMA3D": PROGRAM, "MODEL": "llama3-tiny", "DEVICE": "cpu", "RANKS": 2, "STEPS": 6, "WARMUP_STEPS": 2,
            "CUTOFF": SEQUENCE, "OUTPUT_DIR": "script",
        }  # fmt: skip
        first = Started([SCRIPT, "--log-interval", 1], self.folder, settings).wait()
        self.assertEqual(first.status, 0, first)
        rows = self.metrics("script", "train")
        with h5py.File(self.folder / "script/tokens.h5", "r") as file:
            lengths = numpy.minimum(numpy.diff(file["documents"][:]), SEQUENCE)
        # Several epochs of all tokens, each of them once, and nothing for padding.
        samples = int(first.err.split("packed into ")[1].split()[0])
        self.assertLess(lengths.sum(), samples * SEQUENCE)
        self.assertLess(rows["tokens"][-1], 6 * 8 * SEQUENCE)
        self.assertGreater(rows["tokens"][-1], 6 * 8 * lengths.sum() / samples * 0.8)
        step_tokens = numpy.diff(rows["tokens"], prepend=0)
        numpy.testing.assert_allclose(rows["tokens_per_second"] * rows["step_seconds"], step_tokens)
        self.assertLess(rows["loss"][-1], rows["loss"][0] - 1)
        self.assertEqual(rows["learning_rate"][-1], 0)
        again = Started([SCRIPT], self.folder, settings).wait()
        self.assertEqual(again.status, 0, again)
        self.assertIn("resuming at step 6", again.err)

    def test_the_script_wants_a_tokenizer(self):
        self.assertEqual(Started([SCRIPT], self.folder, {"LLAMA3D": PROGRAM}).wait().status, 2)

    def test_any_grid_trains_on_the_same_samples(self):
        one, many = (self.job(ranks, *self.packed_training(f"grid{ranks}", *grid)) for ranks, grid in
                     ((1, []), (4, ["--pp-size", 2])))  # fmt: skip
        self.assertEqual((one.status, many.status), (0, 0), f"{one}{many}")
        left, right = (self.metrics(f"grid{ranks}", "train") for ranks in (1, 4))
        self.assertEqual(list(left["tokens"]), list(right["tokens"]))
        numpy.testing.assert_allclose(left["loss"], right["loss"], rtol=1e-5)  # sums of floats in another order
        valid = [self.metrics(f"grid{ranks}", "valid")["loss"] for ranks in (1, 4)]
        numpy.testing.assert_allclose(*valid, rtol=1e-5)

    def test_packing_is_a_choice(self):
        dry = {word: self.job(1, *self.packed_training("dry", "--dry-run", "--packing", word))
               for word in ("auto", "documents", "stream")}  # fmt: skip
        for word, result in dry.items():
            self.assertEqual(result.status, 0, result)
            self.assertEqual("documents packed into" in result.out, word != "stream", result)
        wrong = self.job(1, *self.packed_training("dry", "--packing", "neat"))
        self.assertEqual(wrong.status, 2, wrong)
        self.assertIn("--packing neat", wrong.error_lines()[0])

    def test_eval_counts_the_answers(self):
        self.train(1, "eval", "--packing", "documents", model="long.json", data="chat.h5", steps=1)
        result = self.job(1, "eval", "--load", self.checkpoint("eval", 1), "--data", "chat.h5", "--device", "cpu",
                          "--seq-length", 1024)  # fmt: skip
        self.assertEqual(result.status, 0, result)
        with h5py.File(self.folder / "chat.h5", "r") as file:
            targets = int(file["loss_mask"][:].sum())
        self.assertIn(f"targets {targets}\n", result.out)

    def test_token_files_of_others(self):
        with h5py.File(self.folder / "tokens.h5", "r") as file:
            tokens, offsets = file["tokens"][:], file["documents"][:]
        index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, len(offsets) - 1, len(offsets))
        index += numpy.diff(offsets).astype("<i4").tobytes() + (2 * offsets[:-1]).astype("<i8").tobytes()
        (self.folder / "megatron.idx").write_bytes(index + numpy.arange(len(offsets), dtype="<i8").tobytes())
        (self.folder / "megatron.bin").write_bytes(tokens.astype("<u2").tobytes())
        header = struct.pack("<3i", 20240520, 1, len(tokens)).ljust(1024, b"\0")
        (self.folder / "llmc.bin").write_bytes(header + tokens.astype("<u2").tobytes())
        losses = []
        for name in ("tokens.h5", "megatron.bin", "llmc.bin"):
            self.train(1, f"from_{name}", "--seed", 3, data=name, steps=2)
            losses.append(list(self.metrics(f"from_{name}", "train")["loss"]))
        # One document: the same whether or not bounds are known.
        self.assertEqual(losses[0], losses[1])
        self.assertEqual(losses[0], losses[2])
        self.assertIn("vocabulary_size = unknown", self.command("inspect", "megatron.bin").out)
        (self.folder / "llmc.bin").write_bytes(header + b"\xff" * (2 * len(tokens)))
        result = self.job(1, *self.training("wrong", data="llmc.bin"))
        self.assertEqual(result.status, 3, result)
        self.assertIn("llmc.bin: token", result.error_lines()[0])
        (self.folder / "llmc.bin").write_bytes(header)
        result = self.job(1, *self.training("wrong", data="llmc.bin"))
        self.assertEqual(result.status, 3, result)
        self.assertIn("truncated", result.error_lines()[0])

    def test_a_tokenizer_of_another_size_is_doubtful(self):
        for name, doubtful in (("tokenizer.model", True), ("pairs.json", False)):
            words = ["--tokenizer", TOKENIZERS / name, "--input", RECORDS, "--output", "bpe.h5"]
            result = self.command("tokenize", *words)
            self.assertEqual(result.status, 0, result)
            self.assertEqual("1201 ranks" in result.err, doubtful, result)

    def test_bad_records(self):
        records = [{"instruction": "a", "output": "b"}, {"instruction": "a"}, {"instruction": 3, "output": "b"}]
        (self.folder / "some_bad.json").write_text(json.dumps(records, indent=0))
        words = ["tokenize", "--input", "some_bad.json", "--output", "bad.h5"]
        result = self.command(*words)
        self.assertEqual(result.status, 0, result)
        self.assertIn("1 conversations, 2 bad records", result.out)
        self.assertIn("some_bad.json:6, record 2: no \"output\"", result.err)
        self.assertIn("2 bad records were left out", result.err)
        (self.folder / "bad.h5").unlink()
        for more, data, place in (
            (["--strict"], records, "some_bad.json:6, record 2:"),
            ([], records[1:], "some_bad.json:2, record 1:"),
            ([], [[]], "no known format"),
            (["--format", "sharegpt"], records, "neither"),
            ([], "[1, ", "some_bad.json:1:"),
        ):
            (self.folder / "some_bad.json").write_text(data if isinstance(data, str) else json.dumps(data, indent=0))
            result = self.command(*words, *more)
            self.assertEqual(result.status, 3, result)
            self.assertEqual(len(result.error_lines()), 1, result)
            self.assertIn(place, result.error_lines()[0])
            self.assertFalse((self.folder / "bad.h5").exists())
        for wrong in (["--format", "csv"], ["--loss-on", "none"], ["--cutoff", "1"], ["--cutoff", "-1"]):
            result = self.command(*words, *wrong)
            self.assertEqual(result.status, 2, result)
            self.assertIn(" ".join(wrong), result.error_lines()[0])


if __name__ == "__main__":
    main()
