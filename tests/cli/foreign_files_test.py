"""Files that strangers made: what they hold can't crash a command, speak to the terminal, or have other files read."""

import json
import resource
import shutil
import subprocess
import tomllib

import h5py
import numpy

from jobs import PROGRAM, JobTest, environment, main

DATA, CHECKPOINT = 3, 4
DEEP = "[" * 100_000 + "]" * 100_000
ESCAPE = "\x1b[2J\x9b31m"  # clears the screen; the second is ESC [ in one character


def crc32c(data):
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def rewrite_manifest(checkpoint, change):
    """Of its text, with the right checksum: the damage of somebody who means it."""
    with h5py.File(checkpoint / "checkpoint.h5", "r+") as file:
        text = change(file["manifest"][()].decode()).encode()
        del file["manifest"]
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(len(text))
        kind.set_strpad(h5py.h5t.STR_NULLPAD)
        kind.set_cset(h5py.h5t.CSET_UTF8)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        data = h5py.h5d.create(file.id, b"manifest", kind, space)
        data.write(space, space, numpy.frombuffer(text, dtype=f"S{len(text)}"), kind)
        h5py.Dataset(data).attrs.create("crc32c", crc32c(text), dtype="<i8")


class ForeignFiles(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        made = cls.job(1, *cls.training("base", "--checkpoint-interval", 1, "--keep-checkpoints", 0, steps=2))
        assert made.status == 0, made

    def copy_of_run(self, name):
        shutil.copytree(self.folder / "base", self.folder / name)
        return self.folder / name / "checkpoints" / "step_00000002"

    def refused(self, result, status, *words):
        self.assertEqual(result.status, status, result)
        self.assertEqual(len(result.err.splitlines()), 1, result)
        self.assertLess(len(result.err), 1500, result)
        for word in words:
            self.assertIn(word, result.err, result)
        self.plain(result)

    def plain(self, result):
        for character in "\x1b\x9b":
            self.assertNotIn(character, result.out + result.err, result)

    def tokenize(self, text, *more, name="records.jsonl"):
        (self.folder / name).write_text(text)
        return self.command("tokenize", "--tokenizer", "bytes", "--input", name, "--output", "made.h5", *more)

    def test_records_that_no_double_holds_and_deep_ones_are_counted(self):
        values = ["1e999", "9" * 400, DEEP]
        for kind in ("text", "instruction"):
            lines = [{"text": "a b"} if kind == "text" else {"instruction": "a", "output": "b"}] * 2
            lines = [json.dumps(line) for line in lines]
            lines += [line[:-1] + f', "x": {value}}}' for line, value in zip(lines[:1] * 3, values)]
            result = self.tokenize("\n".join(lines) + "\n")
            with self.subTest(kind):
                self.assertEqual(result.status, 0, result)
                self.assertIn("3 bad records", result.err, result)
                for number, reason in ((3, "number overflow"), (4, "number overflow"), (5, "nested more than 64 deep")):
                    self.assertRegex(result.err, rf"records.jsonl:{number}: .*{reason}")
        self.refused(self.tokenize("\n".join(lines), "--strict"), DATA, "records.jsonl:3", "1e999", "--strict")

    def test_a_record_of_brackets_takes_little_memory(self):
        (self.folder / "brackets.jsonl").write_text('{"text": "a"}\n' + "[" * 20_000_000 + "\n")
        words = ["tokenize", "--tokenizer", "bytes", "--input", "brackets.jsonl", "--output", "made.h5"]

        def limit():
            resource.setrlimit(resource.RLIMIT_DATA, (400 << 20, 400 << 20))

        made = subprocess.run([PROGRAM, *words], cwd=self.folder, env=environment(), capture_output=True, text=True,
                              preexec_fn=limit)  # fmt: skip
        self.assertEqual(made.returncode, 0, made)
        self.assertIn("brackets.jsonl:2", made.stderr)

    def test_manifests(self):
        changes = {
            "deep": (lambda text: text.replace('"files":[', f'"files":[{DEEP},', 1), "nested more than 64 deep"),
            "deep_attribute": (lambda text: text.replace('"attributes":{', f'"attributes":{{"a":{DEEP},', 1), "64 deep"),
            "large": (lambda text: text.replace('"bytes":', '"bytes":1e30,"b":', 1), "bytes is 1e+30"),
            "overflow": (lambda text: text.replace('"bytes":', '"bytes":1e999,"b":', 1), "number overflow"),
            "step": (lambda text: text.replace('"step":2', '"step":1e30', 1), "step is 1e+30"),
            "samples": (lambda text: text.replace('"consumed_samples":', '"consumed_samples":-', 1), "consumed_samples"),
            "model": (lambda text: text.replace('"model_config":"', f'"model_config":"{DEEP}', 1), "64 deep"),
        }
        for name, (change, reason) in changes.items():
            checkpoint = self.copy_of_run(name)
            rewrite_manifest(checkpoint, change)
            with self.subTest(name):
                # The newest one is passed over for the one before.
                result = self.job(1, *self.training(name, "--resume", "auto", steps=3))
                self.assertEqual(result.status, 0, result)
                self.assertIn("skipping a checkpoint that can't be loaded", result.err)
                self.assertIn(reason, result.err)
                self.assertIn("resuming at step 1", result.err)

    def test_a_manifest_alone_is_refused(self):
        checkpoint = self.copy_of_run("alone")
        rewrite_manifest(checkpoint, lambda text: text.replace('"files":[', f'"files":[{DEEP},', 1))
        self.refused(self.command("inspect", checkpoint), DATA, "manifest is damaged", "64 deep")
        resumed = self.job(1, *self.training("out_alone", "--resume", checkpoint))
        self.refused(resumed, CHECKPOINT, "manifest is damaged", "64 deep")
        evaluated = self.job(1, "eval", "--load", checkpoint, "--data", "tokens.h5", "--device", "cpu")
        self.refused(evaluated, CHECKPOINT, "64 deep")

    def test_inspect_speaks_no_escape_sequences(self):
        checkpoint = self.copy_of_run("escapes")
        note = json.dumps(f"{ESCAPE}\nchecksums: all right")
        rewrite_manifest(checkpoint, lambda text: text.replace('"attributes":{', f'"attributes":{{"a":{note},', 1))
        shutil.copy(self.folder / "tokens.h5", self.folder / "escapes.h5")
        with h5py.File(self.folder / "escapes.h5", "r+") as file:
            file.attrs["tokenizer"] = numpy.bytes_(ESCAPE.encode())
        for path in (checkpoint, "escapes.h5"):
            result = self.command("inspect", path)
            self.assertEqual(result.status, 0, result)
            self.plain(result)
            self.assertIn("\\u001b[2J\\u009b31m", result.out)
            self.assertNotIn("\nchecksums", result.out)

    def test_errors_speak_no_escape_sequences(self):
        name = f"{ESCAPE}.h5"
        shutil.copy(self.folder / "text.txt", self.folder / name)
        self.refused(self.command("inspect", name), DATA, "\\u001b[2J\\u009b31m.h5")
        self.refused(self.job(1, *self.training("out_name", data=name)), DATA, "\\u001b[2J\\u009b31m.h5")
        printed = self.command(*self.training("out_printed", "--print-config", data=name))
        self.assertEqual(printed.status, 0, printed)
        self.plain(printed)
        self.assertEqual(tomllib.loads(printed.out)["data"], name)
        role = {"messages": [{"role": ESCAPE + "x" * 100_000, "content": "a"}]}
        self.refused(self.tokenize(json.dumps(role) + "\n"), DATA, "\\u001b[2J\\u009b31m")
        (self.folder / "escape.json").write_text(json.dumps({"model_type": ESCAPE}))
        refused = self.job(1, *self.training("out_model", model="escape.json"))
        self.refused(refused, 2, "\\u001b[2J\\u009b31m")

    def test_token_files_whose_tokens_lie_elsewhere(self):
        (self.folder / "secret").write_bytes(b"top secret, not for your eyes!!!" * 4)
        external, virtual, link = (f"{kind}.h5" for kind in ("external", "virtual", "link"))
        for name in (external, virtual, link):
            shutil.copy(self.folder / "tokens.h5", self.folder / name)
            with h5py.File(self.folder / name, "r+") as file:
                count = file["tokens"].shape[0]
                del file["tokens"]
                if name == external:
                    place = [(str(self.folder / "secret"), 0, h5py.h5f.UNLIMITED)]
                    file.create_dataset("tokens", (count,), "<u4", external=place)
                elif name == virtual:
                    layout = h5py.VirtualLayout((count,), "<u4")
                    layout[:] = h5py.VirtualSource(self.folder / "tokens.h5", "tokens", (count,))
                    file.create_virtual_dataset("tokens", layout)
                else:
                    file["tokens"] = h5py.ExternalLink(self.folder / "tokens.h5", "tokens")
            with self.subTest(name):
                self.refused(self.command("inspect", name), DATA, name, "dataset tokens")
                self.refused(self.job(1, *self.training("out_tokens", data=name)), DATA, name, "dataset tokens")

    def test_rank_files_that_lie_elsewhere(self):
        shutil.copytree(self.checkpoint("base", 2), self.folder / "moved")
        shutil.move(self.folder / "moved/rank_00000.h5", self.folder / "elsewhere.h5")
        (self.folder / "moved/rank_00000.h5").symlink_to("../elsewhere.h5")
        self.refused(self.command("inspect", "--verify", "moved"), DATA, "rank_00000.h5", "elsewhere.h5", "outside")
        self.refused(self.job(1, *self.training("out", "--resume", "moved")), 4, "elsewhere.h5", "outside the folder")

    def test_attributes_are_bounded(self):
        checkpoint = self.copy_of_run("attributes")
        many = lambda text: text.replace('"attributes":{', '"attributes":{"many":[' + "[]," * 400_000 + "0],", 1)
        rewrite_manifest(checkpoint, many)
        self.refused(self.command("inspect", checkpoint), DATA, "attributes take more than 1048576 bytes")

    def test_locks_of_hdf5_are_no_matter(self):
        for value in ("TRUE", "BEST_EFFORT"):
            (self.folder / "a.txt").write_text("text")
            words = ["--tokenizer", "bytes", "--input", "a.txt", "--output", f"new/folder/{value}.h5"]
            result = self.command("tokenize", *words, HDF5_USE_FILE_LOCKING=value)
            self.assertEqual(result.status, 0, result)

    def test_options_of_a_file(self):
        tables = "a." * 16_000 + "b = 1\n"
        files = {
            "deep_array": ("steps = " + "[" * 16_000, ["deep_array.toml: line 1", "depth"]),
            "deep_table": (tables, ["deep_table.toml: line 1", "sections are not used here"]),
            "deeper_table": (tables * 5, ["deeper_table.toml: too long", "32768"]),
            "overflow": ("learning-rate = 1e999\n", ["overflow.toml: line 1", "1e999"]),
            "infinite": ("learning-rate = inf\n", ["infinite.toml: line 1", "finite"]),
            "large": ("steps = 1e30\n", ["steps = 1e+30", "an integer"]),
            "key": ('"\\u001b[2J\\u009b31m' + "x" * 10_000 + '" = 1\n', ["key.toml", "no option \\u001b[2J\\u009b31mxx"]),
            "value": ("steps = [" + "1, " * 5_000 + "1]\n", ["value.toml: steps = [1,1", "an integer"]),
        }
        for name, (text, words) in files.items():
            (self.folder / f"{name}.toml").write_text(text)
            with self.subTest(name):
                refused = self.command(*self.training("out_toml", "--config", f"{name}.toml"))
                self.refused(refused, 2, *words)

    def test_a_models_files_are_its_own(self):
        outside = self.folder / "outside"
        outside.mkdir()
        shutil.copy(self.folder / "model.json", outside / "config.json")
        (outside / "tokenizer.json").write_text("{}")
        linked = self.folder / "linked"
        linked.mkdir()
        for name in ("config.json", "tokenizer.json"):
            (linked / name).symlink_to(f"../outside/{name}")
        made = self.command("tokenize", "--tokenizer", "linked", "--input", "text.txt", "--output", "made.h5")
        self.refused(made, DATA, "tokenizer.json", "outside the folder")
        self.refused(self.job(1, *self.training("out_linked", model="linked")), DATA, "config.json", "outside the folder")
        words = ["--load", self.checkpoint("base", 2), "--tokenizer", "linked", "--prompt", "a", "--device", "cpu"]
        self.refused(self.job(1, "generate", *words), DATA, "tokenizer.json", "outside the folder")


if __name__ == "__main__":
    main()
