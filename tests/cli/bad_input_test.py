"""Wrong input ends in one line, printed once for all ranks, with the design's exit status and nothing written."""

import concurrent.futures
import json
import pathlib
import shutil

import h5py

from jobs import JobTest, main

CONFIGURATION, DATA, CHECKPOINT = 2, 3, 4


class BadInput(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        config = json.loads((cls.folder / "model.json").read_text())
        (cls.folder / "cut.json").write_text(json.dumps(config)[:-30])
        (cls.folder / "foreign.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
        cls.write_model("small_vocabulary.json", vocab_size=100)
        cls.write_model("odd_heads.json", num_key_value_heads=4, intermediate_size=70)
        cls.write_model("two_layers.json", num_hidden_layers=2)
        whole = (cls.folder / "tokens.h5").read_bytes()
        (cls.folder / "cut.h5").write_bytes(whole[: len(whole) // 2])
        (cls.folder / "empty.h5").write_bytes(b"")
        with h5py.File(cls.folder / "foreign.h5", "w") as file:
            file["weights"] = [1.0, 2.0]
        shutil.copy(cls.folder / "tokens.h5", cls.folder / "beyond.h5")
        with h5py.File(cls.folder / "beyond.h5", "r+") as file:
            file["tokens"][::20] = 259  # in every sample
        made = cls.job(2, *cls.training("base", "--checkpoint-interval", 1, steps=2))
        assert made.status == 0, made
        for name in ("cut", "gone", "manifest"):
            shutil.copytree(cls.folder / "base", cls.folder / name)
        steps = "checkpoints/step_00000002"
        rank_file = cls.folder / "cut" / steps / "rank_00001.h5"
        rank_file.write_bytes(rank_file.read_bytes()[:-100])
        (cls.folder / "gone" / steps / "rank_00000.h5").unlink()
        view = cls.folder / "manifest" / steps / "checkpoint.h5"
        view.write_bytes(view.read_bytes()[:4096])
        for name in ("cut", "gone", "manifest"):
            shutil.rmtree(cls.folder / name / "checkpoints/step_00000001")

    def refused(self, cases):
        """cases: name to (status, words that the line must have, options of train or a whole command)."""

        def run(case):
            name, (status, wanted, options) = case
            ranks = 2
            extra = {}
            if isinstance(options, dict):
                ranks, extra, options = options.get("ranks", 2), options.get("environment", {}), options["options"]
            words = options if options and options[0] == "!" else [*self.training(f"out_{name}"), *options]
            return case, self.job(ranks, *(words[1:] if words[0] == "!" else words), **extra)

        def check(case, result):
            name, (status, wanted, _) = case
            with self.subTest(name):
                self.assertEqual(len(result.err.splitlines()), 1, result)
                self.assertEqual(len(result.error_lines()), 1, result)
                for word in wanted:
                    self.assertIn(word, result.err, result)
                self.assertEqual(result.status, status, result)
                self.assertFalse((self.folder / f"out_{name}").exists(), f"{name} left an output folder")

        before = sorted(self.folder.iterdir())
        # mpirun waits a second or two for the ranks of a failed job: wait for several at once.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(run, cases.items()))
        self.assertEqual(len(results), len(cases))
        for case, result in results:
            check(case, result)
        left = [path for path in self.folder.iterdir() if path not in before and path.suffix != ".log"]
        self.assertEqual(left, [], "nothing may be left behind")

    def test_grid_and_batch(self):
        heads = {"ranks": 4, "options": ["--tp-size", 4]}
        stages = {"ranks": 3, "options": ["--pp-size", 3, "--model", "two_layers.json"]}
        feed_forward = {"ranks": 4, "options": ["--tp-size", 4, "--model", "odd_heads.json"]}
        self.refused({
            "world": (CONFIGURATION, ["--tp-size 3", "has 2"], ["--tp-size", 3]),
            "heads": (CONFIGURATION, ["--tp-size 4", "2 key-value heads"], heads),
            "feed_forward": (CONFIGURATION, ["--tp-size 4", "feed-forward size 70"], feed_forward),
            "stages": (CONFIGURATION, ["--pp-size", "3", "2 layers"], stages),
            "chunks": (CONFIGURATION, ["6 pipeline parts", "4 layers"],
                       ["--pp-size", 2, "--pipeline-schedule", "interleaved", "--pipeline-chunks", 3]),
            "layers": (CONFIGURATION, ["--pipeline-layers", "4 layers"], ["--pp-size", 2, "--pipeline-layers", "1,1"]),
            "batch": (CONFIGURATION, ["--global-batch-size 3", "multiple of 2"], ["--global-batch-size", 3]),
            "sequence": (CONFIGURATION, ["--seq-length 128", "64"], ["--seq-length", 128]),
            "micro_batch": (CONFIGURATION, [f"--micro-batch-size {2**63 - 1}", "2147483647"],
                            ["--micro-batch-size", 2**63 - 1, "--global-batch-size", 0]),
            "many_micro_batches": (CONFIGURATION, [f"--global-batch-size {2**33 + 2}", "4294967297 micro-batches"],
                                   ["--global-batch-size", 2**33 + 2]),
            "many_stages": (CONFIGURATION, [f"--dry-run-ranks {10**10} assumes more"],
                            ["--dry-run", "--tp-size", 10**5, "--pp-size", 10**5]),
        })  # fmt: skip

    def test_options(self):
        self.refused({
            "misspelt": (CONFIGURATION, ["--tp-sise: no such option", "did you mean --tp-size?"], ["--tp-sise", 2]),
            "unknown": (CONFIGURATION, ["--frobnicate: no such option", "--help"], ["--frobnicate"]),
            "stray": (CONFIGURATION, ["stray"], ["stray"]),
            "no_value": (CONFIGURATION, ["--steps"], ["--steps"]),
            "text": (CONFIGURATION, ["--steps abc", "integer"], ["--steps", "abc"]),
            "fraction": (CONFIGURATION, ["--steps 1.5", "integer"], ["--steps", "1.5"]),
            "negative": (CONFIGURATION, ["--steps -3", "at least 1"], ["--steps", -3]),
            "large": (CONFIGURATION, ["--tp-size 99999999999", "too large"], ["--tp-size", 99999999999]),
            "not_finite": (CONFIGURATION, ["--learning-rate nan", "finite"], ["--learning-rate", "nan"]),
            "small_clip": (CONFIGURATION, ["--grad-clip 1e-300", "1e-30"], ["--grad-clip", "1e-300"]),
            "large_rate": (CONFIGURATION, ["--learning-rate 1e+39", "1e30"], ["--learning-rate", "1e39"]),
            "small_epsilon": (CONFIGURATION, ["--adam-epsilon 1e-46", "1e-30"], ["--adam-epsilon", "1e-46"]),
            "beta_of_one": (CONFIGURATION, ["--adam-beta2 0.99999999999", "below 1"], ["--adam-beta2", "0.99999999999"]),
            "unreadable": (CONFIGURATION, ["--config /proc/self/mem", "TOML file"], ["--config", "/proc/self/mem"]),
            "endless": (CONFIGURATION, ["/dev/zero", "32768 bytes"], ["--config", "/dev/zero"]),
            "seed": (CONFIGURATION, ["--seed -1", "0 or more"], ["--seed", -1]),
            "precision": (CONFIGURATION, ["--precision fp16", "fp32 or bf16"], ["--precision", "fp16"]),
            "schedule": (CONFIGURATION, ["--pipeline-schedule", "2f2b", "1f1b"], ["--pipeline-schedule", "2f2b"]),
            "recompute": (CONFIGURATION, ["--recompute some", "cheap"], ["--recompute", "some"]),
            "rate": (CONFIGURATION, ["--lr-schedule x", "cosine"], ["--lr-schedule", "x"]),
            "device": (CONFIGURATION, ["--device tpu", "cpu"], ["--device", "tpu"]),
            "ranks": (CONFIGURATION, ["--dry-run-ranks -1"], ["--dry-run", "--dry-run-ranks", -1]),
            "no_dry_run": (CONFIGURATION, ["--dry-run-ranks 7: ", "--dry-run;"], ["--dry-run-ranks", 7]),
            "dry_environment": (CONFIGURATION, ["--dry-run-ranks 7 (from environment LLAMA3D_DRY_RUN_RANKS)"],
                                {"options": [], "environment": {"LLAMA3D_DRY_RUN_RANKS": 7}}),
            "environment": (CONFIGURATION, ["--valid-samples many", "LLAMA3D_VALID_SAMPLES", "integer"],
                            {"options": [], "environment": {"LLAMA3D_VALID_SAMPLES": "many"}}),
            "word_environment": (CONFIGURATION, ["--recompute some", "LLAMA3D_RECOMPUTE"],
                                 {"options": [], "environment": {"LLAMA3D_RECOMPUTE": "some"}}),
            "flag_environment": (CONFIGURATION, ["--dry-run maybe", "true or false"],
                                 {"options": [], "environment": {"LLAMA3D_DRY_RUN": "maybe"}}),
            "no_data": (CONFIGURATION, ["--data", "llama3d tokenize"], ["!", "train", "--output-dir", "out_no_data"]),
            "command": (CONFIGURATION, ["no command trian", "did you mean train?"], ["!", "trian"]),
            "no_command": (CONFIGURATION, ["no command given"], ["!"]),
        })  # fmt: skip

    def test_toml(self):
        files = {
            "key": ("stepps = 3\n", ["stepps", "did you mean --steps?"]),
            "section": ("seed = 3\n[train]\nsteps = 3\n", ["line 2", "section"]),
            "integer": ('valid-samples = "ten"\n', ["valid-samples", '"ten"', "an integer"]),
            "boolean": ("separate-documents = 3\n", ["separate-documents = 3", "true or false"]),
            "number": ("valid-data = 3\n", ["valid-data = 3", "a text in quotes"]),
            "array": ("valid-samples = [1, 2]\n", ["valid-samples = [1,2]", "an integer"]),
            "twice": ("seed = 3\nseed = 4\n", ["line 2", "seed"]),
            "both_spellings": ("valid-samples = 3\nvalid_samples = 4\n", ["valid-samples is given twice"]),
            "quote": ('valid-data = "abc\n', ["line 1", "string"]),
            "no_equals": ("seed 3\n", ["line 1", "expected '='"]),
            "zero": ('valid-data = "a\\u0000b"\n', ["line 1", "a zero byte"]),
            "binary": ("\x00\x01\x02", ["line 1"]),
        }
        for name, (text, _) in files.items():
            (self.folder / f"{name}.toml").write_text(text)
        cases = {
            name: (CONFIGURATION, [f"{name}.toml", *wanted], ["--config", f"{name}.toml"])
            for name, (_, wanted) in files.items()
        }
        cases["missing"] = (CONFIGURATION, ["--config nothere.toml"], ["--config", "nothere.toml"])
        cases["folder"] = (CONFIGURATION, ["--config base", "TOML file"], ["--config", "base"])
        self.refused(cases)

    def test_model_and_data(self):
        self.refused({
            "preset": (CONFIGURATION, ["llama3-tyni", "did you mean llama3-tiny"], ["--model", "llama3-tyni"]),
            "no_config": (DATA, ["nothere/config.json"], ["--model", "nothere/config.json"]),
            "cut_config": (DATA, ["cut.json", "cut short"], ["--model", "cut.json"]),
            "other_config": (DATA, ["text.txt"], ["--model", "text.txt"]),
            "foreign_config": (CONFIGURATION, ["foreign.json", "gpt2"], ["--model", "foreign.json"]),
            "no_tokens": (DATA, ["nothere.h5"], ["--data", "nothere.h5"]),
            "cut_tokens": (DATA, ["cut.h5"], ["--data", "cut.h5"]),
            "empty_tokens": (DATA, ["empty.h5"], ["--data", "empty.h5"]),
            "text_tokens": (DATA, ["text.txt", "HDF5"], ["--data", "text.txt"]),
            "foreign_tokens": (DATA, ["foreign.h5"], ["--data", "foreign.h5"]),
            "metrics_tokens": (DATA, ["base/metrics.h5", "metrics"], ["--data", "base/metrics.h5"]),
            "folder_tokens": (DATA, ["base"], ["--data", "base"]),
            "valid_tokens": (DATA, ["nothere.h5"], ["--valid-data", "nothere.h5"]),
            "vocabulary": (DATA, ["tokens.h5", "258", "100"], ["--model", "small_vocabulary.json"]),
            "token": (DATA, ["beyond.h5", "259"], ["--data", "beyond.h5"]),
        })  # fmt: skip

    def test_checkpoints(self):
        step = "checkpoints/step_00000002"
        self.refused({
            "resume_nothing": (CHECKPOINT, ["nothere"], ["--resume", "nothere"]),
            "resume_file": (CHECKPOINT, ["base/metrics.h5"], ["--resume", "base/metrics.h5"]),
            "resume_folder": (CHECKPOINT, ["base"], ["--resume", "base"]),
            "resume_cut": (CHECKPOINT, [step, "rank_00001.h5"], ["--resume", f"cut/{step}"]),
            "load_gone": (CHECKPOINT, [step, "rank_00000.h5"], ["--load", f"gone/{step}"]),
            "load_manifest": (CHECKPOINT, [step, "checkpoint.h5"], ["--load", f"manifest/{step}"]),
            "resume_model": (CONFIGURATION, [step, "num_hidden_layers is 4, here 2", "--model"],
                             ["--resume", f"base/{step}", "--model", "two_layers.json"]),
            "load_model": (CONFIGURATION, [step, "num_hidden_layers is 4, here 2", "--model"],
                           ["--load", f"base/{step}", "--model", "two_layers.json"]),
            "dry_run": (CHECKPOINT, [step, "rank_00000.h5"], ["--dry-run", "--resume", f"gone/{step}"]),
            "eval": (CHECKPOINT, [step, "rank_00000.h5"],
                     ["!", "eval", "--load", f"gone/{step}", "--data", "tokens.h5", "--device", "cpu"]),
            "eval_model": (CONFIGURATION, [step, "num_hidden_layers"],
                           ["!", "eval", "--load", f"base/{step}", "--data", "tokens.h5", "--device", "cpu",
                            "--model", "two_layers.json"]),
        })  # fmt: skip

    def test_evaluation(self):
        evaluate = ["!", "eval", "--load", self.checkpoint("base", 2), "--data", "tokens.h5", "--device", "cpu"]
        one = {"ranks": 1, "options": [*evaluate, "--pipeline-schedule", "interleaved"]}
        self.refused({
            "schedule": (CONFIGURATION, ["schedule interleaved is impossible", "single stage"], one),
            "chunks": (CONFIGURATION, ["2 model chunks", "interleaved"], [*evaluate, "--pipeline-chunks", 2]),
            "batch": (CONFIGURATION, ["--global-batch-size: no such option"], [*evaluate, "--global-batch-size", 8]),
            "optimizer": (CONFIGURATION, ["--offload-optimizer: no such option"], [*evaluate, "--offload-optimizer"]),
            "ahead": (CONFIGURATION, ["--pipeline-receive-ahead: no such"], [*evaluate, "--pipeline-receive-ahead"]),
        })  # fmt: skip

    def test_flipped_byte(self):
        """Seen only once the tensors are read, after the plan was printed; still nothing is written."""
        shutil.copytree(self.folder / "base", self.folder / "flipped")
        checkpoint = self.checkpoint("flipped", 2)
        file = checkpoint / "rank_00001.h5"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        result = self.job(2, *self.training("out_flipped", "--resume", checkpoint))
        self.assertEqual(result.status, CHECKPOINT, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        self.assertIn("rank_00001.h5", result.error_lines()[0])
        self.assertFalse((self.folder / "out_flipped").exists())

    def test_output_folder(self):
        """Below a file, and where even root can make nothing."""
        self.refused({
            "below_file": (CONFIGURATION, ["--output-dir text.txt/run"], ["--output-dir", "text.txt/run"]),
            "file": (CONFIGURATION, ["--output-dir text.txt"], ["--output-dir", "text.txt"]),
            "proc": (CONFIGURATION, ["--output-dir /proc/1/run"], ["--output-dir", "/proc/1/run"]),
            "none": (CONFIGURATION, ["--output-dir"], ["--output-dir", ""]),
            "dry_run": (CONFIGURATION, ["--output-dir text.txt"], ["--dry-run", "--output-dir", "text.txt"]),
        })  # fmt: skip
        self.assertTrue(pathlib.Path(self.folder / "text.txt").is_file())

    def test_plan(self):
        """Where no grid is left, what is wrong with the smallest is said."""
        cases = {
            "batch": (["no grid of 7 ranks", "TP 1 x PP 1", "--global-batch-size 2 is not a multiple"],
                      ["--ranks", 7, "--global-batch-size", 2]),
            "tp": (["--tp-size 3", "has 8"], ["--tp-size", 3]),
            "tp_of_more": (["--tp-size 16", "has 8"], ["--tp-size", 16]),
            "tp_and_heads": (["TP 4 x PP 1", "2 key-value heads"], ["--tp-size", 4]),
            "negative_tp": (["--tp-size -5", "at least 1"], ["--tp-size", -5]),
            "negative_batch": (["--global-batch-size -8"], ["--global-batch-size", -8]),
            "blocks": (["--tp-overlap-blocks -3"], ["--tp-overlap-blocks", -3]),
            "chunks": (["--pipeline-chunks -3"], ["--pipeline-chunks", -3]),
            "many_chunks": ([f"{2**31} pipeline parts", "4 layers"],
                            ["--pp-size", 2, "--pipeline-schedule", "interleaved", "--pipeline-chunks", 2**30]),
            "sequence": (["--seq-length 999999", "64"], ["--seq-length", 999999]),
            "micro_batch": (["--micro-batch-size 0", "from 1"], ["--micro-batch-size", 0]),
            "large_micro_batch": (["--micro-batch-size 99999999999999"], ["--micro-batch-size", 99999999999999]),
            "tokens": (["--micro-batch-size 99999999", "67108863"], ["--micro-batch-size", 99999999]),
            "layers": (["--pipeline-layers", "4 layers"], ["--pipeline-layers", "1,1"]),
        }  # fmt: skip
        small = ["!", "plan", "--model", "model.json", "--seq-length", 32, "--ranks", 8]
        self.refused({name: (CONFIGURATION, wanted, [*small, *more]) for name, (wanted, more) in cases.items()})

    def test_local_commands_speak_once_too(self):
        self.refused({
            "inspect": (DATA, ["text.txt"], ["!", "inspect", "text.txt"]),
            "inspect_nothing": (CONFIGURATION, ["file"], ["!", "inspect"]),
            "plan": (CONFIGURATION, ["--ranks 0"], ["!", "plan", "--ranks", 0]),
            "tokenizer": (CONFIGURATION, ["nothere.model", "bytes"],
                          ["!", "tokenize", "--tokenizer", "nothere.model", "--input", "text.txt",
                           "--output", "made.h5"]),
            "foreign_tokenizer": (DATA, ["model.json", "no tokenizer"],
                                  ["!", "tokenize", "--tokenizer", "model.json", "--input", "text.txt",
                                   "--output", "made.h5"]),
            "invalid_utf8": (CONFIGURATION, ["--invalid-utf8 drop", "error or replace"],
                             ["!", "tokenize", "--invalid-utf8", "drop", "--input", "text.txt",
                              "--output", "made.h5"]),
            "threads": (CONFIGURATION, ["--threads -3", "at least 1"],
                        ["!", "tokenize", "--threads", -3, "--input", "text.txt", "--output", "made.h5"]),
            "tokenize": (DATA, ["nothere.txt"], ["!", "tokenize", "--tokenizer", "bytes", "--input", "nothere.txt",
                                                 "--output", "made.h5"]),
        })  # fmt: skip


if __name__ == "__main__":
    main()
