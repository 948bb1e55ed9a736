"""Which weights and which tokenizer count where a folder, a checkpoint and a token file say different things."""

import hashlib
import json
import pathlib
import shutil
import struct

import h5py
import numpy

from jobs import MACHINE, JobTest, main

TESTS = pathlib.Path(__file__).resolve().parents[1]
TOKENIZER = TESTS / "data/tokenizer/tokenizer.model"
DATA = 3
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def add_head(folder, change):
    """Gives the folder's one file an output head: the embedding's bits as `change` leaves them."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    begin, end = header[EMBEDDING]["data_offsets"]
    head = bytearray(data[begin:end])
    change(head)
    header[HEAD] = header[EMBEDDING] | {"data_offsets": [len(data), len(data) + len(head)]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data + head)


class TiedHead(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()

        def flip_last(head):
            head[-1] ^= 1

        for name, change in (("same", lambda head: None), ("other", flip_last)):
            shutil.copytree(TESTS / "golden/folder_tied", cls.folder / name)
            add_head(cls.folder / name, change)
        shutil.copytree(TESTS / "golden/folder_tied", cls.folder / "none")

    def commands(self, folder):
        data = ["--data", "tokens.h5", "--seq-length", 32, *MACHINE]
        return {
            "train": ["--load", folder, *data, "--steps", 1, "--learning-rate", 0, "--output-dir", f"{folder}_run"],
            "eval": ["--load", folder, *data, "--samples", 4],
            "generate": ["--load", folder, "--tokenizer", "bytes", "--prompt", "a", "--max-new-tokens", 2, *MACHINE],
            "import": ["--input", folder, "--output", f"{folder}.checkpoint"],
            "export": ["--input", folder, "--output", f"{folder}_again"],
        }

    def test_another_head_is_refused(self):
        for command, words in self.commands("other").items():
            for ranks in (1, 2):
                with self.subTest(command, ranks=ranks):
                    more = ["--tp-size", 2] if command == "generate" and ranks == 2 else []
                    result = self.job(ranks, command, *words, *more)
                    self.assertEqual(result.status, DATA, result)
                    self.assertEqual(len(result.error_lines()), 1, result)
                    for text in ("other", "tie", f"{HEAD} is not {EMBEDDING}: row 258", "tie_word_embeddings to false"):
                        self.assertIn(text, result.error_lines()[0])
        self.assertEqual(sorted(path.name for path in self.folder.glob("other*")), ["other"])

    def test_the_same_head_changes_nothing(self):
        for command, words in self.commands("same").items():
            with self.subTest(command):
                same, none = self.command(command, *words), self.command(command, *self.commands("none")[command])
                self.assertEqual((same.status, none.status), (0, 0), same)
                self.assertEqual(same.out, none.out.replace("none", "same"))


class Tokenizers(JobTest):
    """A folder with a tokenizer, of which `own.h5` has tokens and `tokens.h5` none: those are bytes."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.write_model("sized.json", vocab_size=1500)
        cls.run_training("start", "--model", "sized.json")
        cls.done("export", "--input", cls.weights("start"), "--output", "llama")
        shutil.copy(TOKENIZER, cls.folder / "llama")
        config = json.loads((cls.folder / "llama/config.json").read_text())
        ids = {"bos_token_id": 1201, "eos_token_id": 65, "pad_token_id": None}
        (cls.folder / "llama/config.json").write_text(json.dumps(config | ids))
        generation = {"eos_token_id": [65, 66], "temperature": 0.6}
        (cls.folder / "llama/generation_config.json").write_text(json.dumps(generation))
        cls.done("tokenize", "--tokenizer", "llama", "--input", "text.txt", "--output", "own.h5")
        cls.own_hash = hashlib.sha256(TOKENIZER.read_bytes()).hexdigest()
        cls.bytes = cls.run_training("bytes", "--load", "llama", "--valid-data", "own.h5")
        cls.own = cls.run_training("own", "--load", "llama", data="own.h5")

    @classmethod
    def run_training(cls, output, *words, data="tokens.h5"):
        return cls.done("train", "--data", data, "--output-dir", output, "--steps", 1, "--seq-length", 32, *words, *MACHINE)

    @classmethod
    def weights(cls, output):
        return f"{output}/checkpoints/step_00000001"

    def warnings(self, result):
        return [line for line in result.err.splitlines() if "warning" in line]

    def evaluated(self, load, data, *more):
        return self.done("eval", "--load", load, "--data", data, "--seq-length", 32, "--samples", 2, *more, *MACHINE)

    def generated(self, load, *more):
        return self.done("generate", "--load", load, "--prompt", "the quick", "--max-new-tokens", 8, *more, *MACHINE)

    def test_data_of_another_tokenizer(self):
        came_with = "--data was made with bytes, but the weights came with tokenizer.model (SHA-256 " + self.own_hash[:8]
        self.assertEqual(len(self.warnings(self.own)), 0, self.own)
        self.assertEqual(len(self.warnings(self.bytes)), 2, self.bytes)
        self.assertIn("warning: --data was made with bytes, --valid-data with tokenizer.model", self.bytes.err)
        self.assertIn(came_with, self.bytes.err)
        self.done("import", "--input", "llama", "--output", "imported")
        for load in ("llama", "imported"):
            self.assertIn(came_with, self.evaluated(load, "tokens.h5").err)
            self.assertEqual(self.warnings(self.evaluated(load, "own.h5")), [])
        trained = "--data was made with tokenizer.model (SHA-256 {}...), but the weights were trained on tokens of bytes"
        self.assertIn(trained.format(self.own_hash[:8]), self.evaluated(self.weights("bytes"), "own.h5").err)
        self.assertEqual(self.warnings(self.evaluated(self.weights("bytes"), "tokens.h5")), [])

    def test_generation_takes_the_tokenizer_of_the_training(self):
        for output, tokenizer in (("bytes", "bytes"), ("own", "llama")):
            with self.subTest(output):
                own, named = (self.generated(self.weights(output), *more) for more in ([], ["--tokenizer", tokenizer]))
                self.assertEqual((own.out, self.warnings(own)), (named.out, []))
        said = "warning: the tokenizer is tokenizer.model (SHA-256 {}...), but the weights were trained on tokens of bytes"
        other = self.generated(self.weights("bytes"), "--tokenizer", "llama")
        self.assertIn(said.format(self.own_hash[:8]), other.err)
        self.assertIn("the tokenizer is bytes, but the weights came with", self.generated("llama", "--tokenizer", "bytes").err)

    def exported(self, output, *more):
        name = f"{output}_export"
        shutil.rmtree(self.folder / name, ignore_errors=True)
        result = self.done("export", "--input", self.weights(output), "--output", name, *more)
        read = [json.loads((self.folder / name / f"{file}.json").read_text()) for file in ("config", "generation_config")]
        return result, (self.folder / name / "tokenizer.model").exists(), *read

    def test_an_export_has_the_tokenizer_of_the_training(self):
        result, copied, config, generation = self.exported("own")
        self.assertTrue(copied)
        self.assertEqual(self.warnings(result), [])
        self.assertEqual((config["eos_token_id"], generation["eos_token_id"]), (65, [65, 66]))
        result, copied, config, generation = self.exported("bytes")
        self.assertFalse(copied)
        self.assertIn("no tokenizer was copied (the weights were trained on bytes", result.err)
        self.assertEqual((config["bos_token_id"], config["eos_token_id"]), (256, 257))
        self.assertEqual(generation, {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": None, "temperature": 0.6})
        result, copied, *_ = self.exported("bytes", "--tokenizer", "llama")
        self.assertTrue(copied)
        self.assertIn("warning: the tokenizer copied is tokenizer.model", "".join(self.warnings(result)))

    def test_the_folder_has_another_tokenizer_since(self):
        name = "changed"
        shutil.copytree(self.folder / "llama", self.folder / name)
        self.run_training("moved", "--load", name, data="own.h5")
        with (self.folder / name / "tokenizer.model").open("a") as file:
            file.write("\n")
        for result in (self.exported("moved")[0], self.generated(self.weights("moved"))):
            self.assertEqual(len(self.warnings(result)), 1, result)
            self.assertIn("but the weights were trained on tokens of tokenizer.model", result.err)

    def test_another_chat_template(self):
        folder = self.folder / "chat"
        shutil.copytree(self.folder / "llama", folder)
        config = folder / "tokenizer_config.json"
        said = "warning: messages are written as Llama 3's chat template has them, that of chat is another"
        for template, other in (("<|im_start|>", True), ("'<|start_header_id|>'", False), ([{"template": "[INST]"}], True), (None, False)):
            text = json.dumps({"added_tokens": "<|start_header_id|>"} | ({"chat_template": template} if template else {}))
            with self.subTest(template):
                config.write_text(text)
                self.assertEqual(said in self.generated("chat", "--chat").err, other)
        self.assertNotIn("template", self.generated("chat").err)
        config.unlink()
        (folder / "chat_template.jinja").write_text("<|im_start|>")
        self.assertIn(said, self.generated("chat", "--chat").err)
        self.run_training("talked", "--load", "chat", data="own.h5")
        self.assertIn("warning: the chat template copied from", self.exported("talked")[0].err)
        self.assertNotIn("template", self.generated(self.weights("talked"), "--chat").err)

    def test_unknown_tokenizers_are_no_matter(self):
        shutil.copy(self.folder / "tokens.h5", self.folder / "unknown.h5")
        with h5py.File(self.folder / "unknown.h5", "r+") as file:
            file.attrs["tokenizer"] = numpy.bytes_("unknown")
        self.assertEqual(self.warnings(self.evaluated("llama", "unknown.h5")), [])
        self.done("export", "--input", self.weights("start"), "--output", "without")
        for data in ("tokens.h5", "own.h5"):
            self.assertEqual(self.warnings(self.evaluated("without", data)), [])


class Models(JobTest):
    def test_a_model_folder_is_not_taken_for_weights(self):
        self.train(1, "first", steps=1)
        self.assertEqual(self.command("export", "--input", self.checkpoint("first", 1), "--output", "folder").status, 0)
        said = "warning: --model folder gives the sizes alone, the weights begin at random"
        self.assertIn(said, self.train(1, "by_model", model="folder", steps=1).err)
        self.assertNotIn("warning", self.train(1, "by_load", "--load", "folder", model="folder", steps=1).err)
        self.assertNotIn("warning", self.train(1, "by_config", model="folder/config.json", steps=1).err)

    def test_adapters_are_not_left_out_silently(self):
        self.train(1, "base", steps=1)
        self.assertEqual(self.command("export", "--input", self.checkpoint("base", 1), "--output", "adapted").status, 0)
        (self.folder / "adapted/adapter_config.json").write_text("{}")
        result = self.command("import", "--input", "adapted", "--output", "adapted.checkpoint")
        self.assertEqual(result.status, DATA, result)
        self.assertIn("adapter_config.json", result.error_lines()[0])

    def test_another_model_config_counts_and_is_told(self):
        self.train(1, "run", steps=1)
        self.write_model("theta.json", rope_theta=20000.0)
        said = "warning: rope_theta is 10000.0 where the weights come from and 20000.0 in --model, which counts"
        load = ["--load", self.checkpoint("run", 1), "--model", "theta.json", *MACHINE]
        result = self.command("eval", *load, "--data", "tokens.h5", "--seq-length", 32, "--samples", 2)
        self.assertEqual((result.status, said in result.err), (0, True), result)
        result = self.command("generate", *load, "--prompt", "a", "--max-new-tokens", 2)
        self.assertEqual((result.status, said in result.err), (0, True), result)


if __name__ == "__main__":
    main()
