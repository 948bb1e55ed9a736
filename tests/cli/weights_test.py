"""Weights of Hugging Face folders through the command line: evaluated, trained from, imported and exported."""

import base64
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess

import h5py
import numpy

from jobs import DEADLINE_S, PROGRAM, JobTest, environment, main

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
FOLDERS = ("folder_untied", "folder_tied")
CONFIGURATION, DATA, CHECKPOINT = 2, 3, 4


def safetensors(folder):
    """The bits of every tensor by name, and its type."""
    found = {}
    for file in pathlib.Path(folder).glob("*.safetensors"):
        content = file.read_bytes()
        size = int.from_bytes(content[:8], "little")
        for name, tensor in json.loads(content[8 : 8 + size]).items():
            if name != "__metadata__":
                begin, end = (8 + size + offset for offset in tensor["data_offsets"])
                found[name] = (tensor["dtype"], tensor["shape"], content[begin:end])
    return found


class Weights(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.loss = {}
        for name in FOLDERS:
            shutil.copytree(GOLDEN / name, cls.folder / name)
            with h5py.File(GOLDEN / f"{name}.h5", "r") as file:
                cls.loss[name] = float(file["loss"][()])
                (cls.folder / "golden.txt").write_text(file.attrs["text"])
        cls.done("tokenize", "--tokenizer", "bytes", "--input", "golden.txt", "--output", "golden.h5")
        (cls.folder / "folder_untied" / "tokenizer.json").write_text('{"version": "1.0"}')
        cls.made_with("golden.h5", cls.folder / "folder_untied" / "tokenizer.json")
        (cls.folder / "folder_untied" / "tokenizer_config.json").write_text("{}")
        for name in FOLDERS:
            cls.done("import", "--input", name, "--output", f"{name}.checkpoint")

    @classmethod
    def made_with(cls, tokens, tokenizer):
        """Has a token file say that its tokens are of this file."""
        with h5py.File(cls.folder / tokens, "r+") as file:
            file.attrs["tokenizer"] = numpy.bytes_(tokenizer.name)
            file.attrs["tokenizer_sha256"] = numpy.bytes_(hashlib.sha256(tokenizer.read_bytes()).hexdigest())

    def evaluated(self, ranks, *words):
        result = self.job(ranks, "eval", "--data", "golden.h5", "--seq-length", 32, "--device", "cpu", *words)
        self.assertEqual(result.status, 0, result)
        return float(re.search(r"loss (\S+)", result.out).group(1))

    def refused(self, status, words, *command):
        result = self.command(*command)
        self.assertEqual(result.status, status, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        for word in words:
            self.assertIn(str(word), result.error_lines()[0])
        return result

    def test_loss_is_that_of_transformers(self):
        grids = {1: [[]], 4: [["--tp-size", 2, "--pp-size", 2]]}
        for name in FOLDERS:
            for source in (name, f"{name}.checkpoint"):
                for ranks, options in ((ranks, options) for ranks in grids for options in grids[ranks]):
                    with self.subTest(source=source, ranks=ranks):
                        loss = self.evaluated(ranks, "--load", source, *options)
                        # Printed with six digits behind the point.
                        numpy.testing.assert_allclose(loss, self.loss[name], rtol=1e-5)

    def test_training_starts_from_the_folder_and_keeps_its_origin(self):
        words = ["train", "--load", "folder_untied", "--data", "golden.h5", "--valid-data", "golden.h5", "--seq-length",
                 32, "--device", "cpu", "--global-batch-size", 4, "--learning-rate", 0, "--min-learning-rate", 0,
                 "--output-dir", "run", "--resume", "auto"]  # fmt: skip
        for steps in (1, 2):  # started, then resumed by the same words
            result = self.job(2, *words, "--steps", steps)
            self.assertEqual(result.status, 0, result)
        # The batch is all of the golden tokens, and with a rate of 0 nothing moves.
        for table in ("train", "valid"):
            rows = self.metrics("run", table)
            self.assertEqual(list(rows["step"]), [1, 2])
            numpy.testing.assert_allclose(rows["loss"], self.loss["folder_untied"], rtol=1e-5)
        self.assertIn("resuming at step 1", result.err)
        result = self.done("export", "--input", self.checkpoint("run", 2), "--output", "trained", "--dtype", "bf16")
        self.assertIn("tokenizer.json", result.err)
        self.assertEqual(safetensors(self.folder / "trained"), safetensors(self.folder / "folder_untied"))
        generation = [json.loads((self.folder / name / "generation_config.json").read_text())
                      for name in ("trained", "folder_untied")]  # fmt: skip
        self.assertEqual(*generation)
        config = json.loads((self.folder / "trained" / "config.json").read_text())
        self.assertEqual((config["bos_token_id"], config["eos_token_id"]), (256, 257))
        self.assertEqual(config["torch_dtype"], "bfloat16")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            texts = [(self.folder / folder / name).read_text() for folder in ("trained", "folder_untied")]
            self.assertEqual(*texts)

    def test_files_of_an_export(self):
        tensors = safetensors(self.folder / "folder_untied")
        self.done("export", "--input", "folder_untied.checkpoint", "--output", "shards", "--shard-size", "10KB")
        files = sorted(path.name for path in (self.folder / "shards").glob("*.safetensors"))
        self.assertGreater(len(files), 2)
        self.assertEqual(files[0], f"model-00001-of-{len(files):05d}.safetensors")
        index = json.loads((self.folder / "shards" / "model.safetensors.index.json").read_text())
        self.assertEqual(set(index["weight_map"].values()), set(files))
        self.assertEqual(index["weight_map"].keys(), tensors.keys())
        self.assertEqual(index["metadata"]["total_size"], sum(len(bits) for *_, bits in tensors.values()))
        self.assertEqual(safetensors(self.folder / "shards"), tensors)
        # Padding rows of the vocabulary, 259 over two ranks, stay where they are needed.
        words = ["--load", "folder_untied", "--learning-rate", 0, "--min-learning-rate", 0, "--tp-size", 2]
        self.train(2, "padded", *words, model="folder_untied", steps=1)
        self.done("export", "--input", self.checkpoint("padded", 1), "--output", "unpadded")
        for name, (dtype, shape, bits) in safetensors(self.folder / "unpadded").items():
            self.assertEqual((dtype, shape), ("F32", tensors[name][1]))
            widened = numpy.frombuffer(tensors[name][2], numpy.uint16).astype(numpy.uint32) << 16
            self.assertEqual(bits, widened.tobytes(), name)

    def test_an_export_is_whole_or_not_there(self):
        words = ["export", "--input", "folder_untied.checkpoint", "--output", "kept"]
        self.done(*words)
        before = safetensors(self.folder / "kept")
        self.refused(CONFIGURATION, ["kept", "--overwrite"], *words)
        damaged = self.folder / "damaged.checkpoint"
        shutil.copytree(self.folder / "folder_untied.checkpoint", damaged)
        file = damaged / "rank_00000.h5"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        self.refused(CHECKPOINT, ["damaged.checkpoint", "rank_00000.h5"], "export", "--input", damaged, "--output",
                     "kept", "--overwrite")  # fmt: skip
        self.assertEqual(safetensors(self.folder / "kept"), before)
        self.done(*words, "--overwrite", "--dtype", "fp32")
        self.assertEqual({dtype for dtype, *_ in safetensors(self.folder / "kept").values()}, {"F32"})
        self.assertEqual([path.name for path in self.folder.glob("kept*")], ["kept"])
        (self.folder / "mine").mkdir()
        (self.folder / "mine" / "notes").write_text("precious")
        for command in ("export", "import"):
            source = "folder_untied.checkpoint" if command == "export" else "folder_untied"
            self.refused(CONFIGURATION, ["mine"], command, "--input", source, "--output", "mine", "--overwrite")
        self.assertEqual((self.folder / "mine" / "notes").read_text(), "precious")

    def test_answers_of_a_model_trained_on_conversations_end(self):
        self.write_model("llama3.json", vocab_size=128256, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)  # fmt: skip
        (self.folder / "tokenizer.model").write_text("Llama 3's")
        shutil.copy(self.folder / "tokens.h5", self.folder / "llama3.h5")
        self.made_with("llama3.h5", self.folder / "tokenizer.model")
        self.train(1, "random", model="llama3.json", data="llama3.h5", steps=1)

        def exported(checkpoint, name):
            result = self.done("export", "--input", checkpoint, "--output", name)
            files = [self.folder / name / f"{file}.json" for file in ("config", "generation_config")]
            return result, *(json.loads(file.read_text()) if file.exists() else None for file in files)

        ends = [128001, 128009]
        result, config, generation = exported(self.checkpoint("random", 1), "of_random")
        self.assertIn("128001, 128009", result.err)
        self.assertIsNone(config["eos_token_id"])
        self.assertEqual(generation, {"bos_token_id": 128000, "eos_token_id": ends})
        # Of a folder: what it says stays until it is trained on.
        for name, eos, said, expected in (
            ("bare", 128001, None, {"eos_token_id": ends, "pad_token_id": 128004}),
            ("full", [128001, 128008], {"eos_token_id": 128002, "temperature": 0.6, "_from_model_config": True},
             {"eos_token_id": [128001, 128002, 128008, 128009], "temperature": 0.6}),
        ):  # fmt: skip
            with self.subTest(name):
                folder = pathlib.Path(shutil.copytree(self.folder / "of_random", self.folder / name))
                ids = {"bos_token_id": 128000, "eos_token_id": eos, "pad_token_id": 128004}
                (folder / "config.json").write_text(json.dumps(config | ids))
                (folder / "generation_config.json").unlink()
                if said:
                    (folder / "generation_config.json").write_text(json.dumps(said))
                self.done("import", "--input", name, "--output", f"{name}.checkpoint")
                result, after, generation = exported(f"{name}.checkpoint", f"{name}_again")
                self.assertEqual((after, generation), (config | ids, said))
                self.assertNotIn("generation_config", result.err)
                self.train(1, f"{name}_run", "--load", name, model=name, data="llama3.h5", steps=1)
                result, after, generation = exported(self.checkpoint(f"{name}_run", 1), f"{name}_tuned")
                self.assertEqual((after, generation), (config | ids, {"bos_token_id": 128000} | expected))
                self.assertIn("<|eot_id|>", result.err)

    def test_a_tokenizer_of_another_size_is_noted(self):
        tokens = [bytes([byte]) for byte in range(256)] + [bytes([97, byte]) for byte in range(98, 123)]
        lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]
        (self.folder / "large.model").write_text("\n".join(lines) + "\n")
        words = ["export", "--input", "folder_untied.checkpoint", "--output"]
        result = self.done(*words, "noted", "--tokenizer", "large.model")
        self.assertRegex(result.err, r"warning: the tokenizer large.model has \d+ tokens, the model 259")
        self.assertNotIn("warning", self.done(*words, "not_noted").err)

    def content(self, name):
        """Every file below, with its bytes."""
        folder = self.folder / name
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def test_what_is_replaced_holds_neither_input_nor_other_files(self):
        sources = {"import": "folder_untied", "export": "folder_untied.checkpoint"}
        for command, source in sources.items():
            other = sources["export" if command == "import" else "import"]
            with self.subTest(command):
                top = f"{command}_nest"
                (self.folder / top).mkdir()
                shutil.copytree(self.folder / source, self.folder / top / "in")
                (self.folder / f"{top}_link").symlink_to(f"{top}/in")
                before = self.content(top)
                for input, output, words in (
                    (f"{top}/in", top, "holds --input"), (f"{top}_link", f"{top}/", "holds --input"),
                    (f"{top}/in", f"{top}/in/out", "lies in --input"), (f"{top}_link", f"{top}/in", "the same as"),
                    (f"{top}/in", f"{top}/none/../in/out", "lies in --input"),
                ):  # fmt: skip
                    self.refused(CONFIGURATION, ["--output", output, words], command, "--input", input, "--output",
                                 output, "--overwrite")  # fmt: skip
                # Into a folder of the right kind too, that the input was put into.
                shutil.copytree(self.folder / other, self.folder / top, dirs_exist_ok=True)
                self.refused(CONFIGURATION, [top, "holds --input"], command, "--input", f"{top}/in", "--output", top,
                             "--overwrite")  # fmt: skip
                self.refused(CONFIGURATION, [top, "which is none of"], command, "--input", source, "--output", top,
                             "--overwrite")  # fmt: skip
                self.assertLessEqual(before.items(), self.content(top).items())

                made = f"{command}_mixed"
                words = [command, "--input", source, "--output", made]
                self.done(*words)
                (self.folder / made / "notes.txt").write_text("precious")
                before = self.content(made)
                self.refused(CONFIGURATION, [made, "notes.txt"], *words, "--overwrite")
                self.assertEqual(self.content(made), before)
                (self.folder / made / "notes.txt").rename(self.folder / f"{made}.replaced")
                self.refused(CONFIGURATION, [made, f"{made}.replaced"], *words, "--overwrite")
                (self.folder / f"{made}.replaced").unlink()
                self.done(*words, "--overwrite")
                self.assertEqual([path.name for path in self.folder.glob(f"{made}*")], [made])

    def run_in(self, folder, *words, first=None):
        """Without a log in that folder. `first` is done by the process that then becomes the command."""
        result = subprocess.run([PROGRAM, *words], cwd=folder, env=environment(), capture_output=True, text=True,
                                timeout=DEADLINE_S, preexec_fn=first)  # fmt: skip
        self.assertEqual(result.returncode, 0, result)
        return result

    def test_leftovers_of_killed_commands_are_not_taken_up(self):
        def leave():  # as a killed command of the same process id
            for suffix in ("", f"-{os.getpid()}"):
                folder = pathlib.Path(f"left.partial{suffix}")
                folder.mkdir(exist_ok=True)
                (folder / "model-00009-of-00009.safetensors").write_text("stale")

        for command, source in (("import", "folder_untied"), ("export", "folder_untied.checkpoint")):
            with self.subTest(command):
                folder = self.folder / f"leftovers_of_{command}"
                folder.mkdir()
                self.run_in(folder, command, "--input", self.folder / source, "--output", "left", first=leave)
                stale = [path for path in folder.iterdir() if path.name != "left"]
                self.assertEqual(len(stale), 2, stale)
                for left in (*stale, folder / "left"):
                    self.assertEqual((left / "model-00009-of-00009.safetensors").exists(), left in stale)

    def test_output_is_the_folder_one_is_in(self):
        for command, source in (("import", "folder_untied"), ("export", "folder_untied.checkpoint")):
            with self.subTest(command):
                folder = self.folder / "here" / command
                folder.mkdir(parents=True)
                for more in ([], ["--overwrite"]):
                    result = self.run_in(folder, command, "--input", self.folder / source, "--output", ".", *more)
                    self.assertIn("enter it anew", result.stderr)
                    self.assertIn("config.json" if command == "export" else "checkpoint.h5", self.names(folder))
        self.assertEqual(self.names(self.folder / "here"), ["export", "import"])

    @staticmethod
    def names(folder):
        return sorted(path.name for path in folder.iterdir())

    def test_load_and_resume_are_not_mixed_up(self):
        train = ["train", "--data", "golden.h5", "--seq-length", 32, "--device", "cpu", "--output-dir", "refused"]
        self.refused(CONFIGURATION, ["folder_untied", "--load"], *train, "--resume", "folder_untied", "--model",
                     "folder_untied")  # fmt: skip
        self.refused(CHECKPOINT, ["weights only", "--load"], *train, "--resume", "folder_untied.checkpoint")
        self.refused(CONFIGURATION, ["--load x", "--resume y"], *train, "--load", "x", "--resume", "y")
        self.refused(CONFIGURATION, ["num_hidden_layers is 2, here 4", "--model"], *train, "--load", "folder_untied",
                     "--model", self.four_layers())  # fmt: skip
        self.refused(CHECKPOINT, ["nothere", "no such folder"], *train, "--load", "nothere")
        (self.folder / "a_run" / "checkpoints" / "step_00000007").mkdir(parents=True)
        for name in ("a_run", "a_run/checkpoints"):
            self.refused(CHECKPOINT, [name, "did you mean a_run/checkpoints/step_00000007"], *train, "--load", name)
        self.refused(CONFIGURATION, ["--seq-length"], "eval", "--load", "folder_untied", "--data", "golden.h5")
        self.refused(CONFIGURATION, ["--input", "checkpoint already"], "import", "--input", "folder_tied.checkpoint",
                     "--output", "again")  # fmt: skip
        self.assertFalse((self.folder / "refused").exists())

    def four_layers(self):
        config = json.loads((self.folder / "folder_untied" / "config.json").read_text())
        (self.folder / "four.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
        return "four.json"

    def test_damaged_folders_are_refused_by_name(self):
        def copied(name):
            return pathlib.Path(shutil.copytree(self.folder / "folder_untied", self.folder / name))

        second = "model-00002-of-00002.safetensors"
        cut = copied("cut") / second
        cut.write_bytes(cut.read_bytes()[:-1])
        (copied("gone") / second).unlink()
        index = copied("outside") / "model.safetensors.index.json"
        index.write_text(index.read_text().replace(second, f"../folder_untied/{second}"))
        link = copied("linked") / second
        link.unlink()
        link.symlink_to(self.folder / "folder_untied" / second)
        (copied("unnamed") / "config.json").unlink()
        (copied("deep") / "config.json").write_text('{"a":' + "[" * 100000)
        for name, words in {
            "cut": [second, "do not fit"], "gone": [second, "No such file"], "outside": ["../folder_untied", "folder"],
            "linked": [second, "outside the folder"], "unnamed": ["config.json"], "deep": ["config.json", "nested"],
        }.items():  # fmt: skip
            with self.subTest(name):
                self.refused(DATA, [name, *words], "import", "--input", name, "--output", f"from_{name}")
                self.assertEqual(list(self.folder.glob(f"from_{name}*")), [])
        result = self.job(2, "eval", "--load", "cut", "--data", "golden.h5", "--seq-length", 32, "--device", "cpu")
        self.assertEqual(result.status, DATA, result)
        self.assertEqual(len(result.error_lines()), 1, result)

    def test_options(self):
        export = ["export", "--input", "folder_untied.checkpoint", "--output", "options"]
        for option, value in (("--shard-size", "five"), ("--shard-size", "-5GB"), ("--dtype", "fp8")):
            self.refused(CONFIGURATION, [option, value], *export, f"{option}={value}")
        self.refused(DATA, ["folder_tied", "no tokenizer"], *export, "--tokenizer", "folder_tied")
        self.refused(CONFIGURATION, ["--tokenizer bytes", "no file to copy"], *export, "--tokenizer", "bytes")
        self.refused(CONFIGURATION, ["--tokenizer nothere", "no such file"], *export, "--tokenizer", "nothere")
        self.refused(CONFIGURATION, ["--output"], *export[:3])
        self.refused(CONFIGURATION, ["--input"], "import", "--output", "options")
        self.assertEqual(list(self.folder.glob("options*")), [])


if __name__ == "__main__":
    main()
