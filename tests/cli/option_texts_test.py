"""A text option takes every text, whole: from the command line, a TOML file and the environment."""

import json
import subprocess
import tomllib

from jobs import PROGRAM, JobTest, environment, main

TEXTS = [
    "[END]", "[a, b]", "[]", "{}", "{a}", "%%", "a,b", "a b", " a ", "'a'", '"a"', '"', "a\\b", "\\n", "a\nb", "\t", "é 漢 🙂", "-", "-x",
    "--steps", "--steps=3", "--a_b", "a=b", "#a", "$HOME", "%d", "x" * 3000, "\x1b[2J", "\x7f", "true", "1e3", "B\"(a)\"",
]


OPTIONS = ["output-dir", "data", "valid-data", "load"]
BATCHES = [TEXTS[i : i + len(OPTIONS)] for i in range(0, len(TEXTS), len(OPTIONS))]


class Texts(JobTest):
    def resolved(self, *arguments, **variables):
        result = self.command(*arguments, "--print-config", **variables)
        self.assertEqual(result.status, 0, result)
        return tomllib.loads(result.out)

    def expect(self, texts, *arguments, **variables):
        with self.subTest(texts=[text[:40] for text in texts]):
            values = self.resolved("train", *arguments, **variables)
            self.assertEqual([values[option] for option, _ in zip(OPTIONS, texts)], texts)
            return values

    def test_command_line(self):
        for texts in [*BATCHES, [""]]:
            values = self.expect(texts, *(f"--{option}={text}" for option, text in zip(OPTIONS, texts)), "--tp_size=2")
            self.assertEqual(values["tp-size"], 2)
            texts = [text for text in texts if not text.startswith("--steps")]
            words = [word for option, text in zip(OPTIONS, texts) for word in (f"--{option}", text)]
            self.assertEqual(self.expect(texts, *words, "--tp-size", "2")["tp-size"], 2)

    def test_an_option_is_no_value(self):
        for arguments in (["--output-dir", "--steps", "3"], ["--output-dir", "--no-final-checkpoint"], ["--output-dir", "--help"],
                          ["--output-dir", "--config", "a.toml"], ["--output-dir"], ["--config"]):
            result = self.command("train", *arguments, "--print-config")
            self.assertEqual(result.status, 2, result)
            self.assertIn(f"{arguments[0]}: no value given", result.err)

    def test_toml_and_back(self):
        for texts in [*BATCHES, [""]]:
            lines = [f"{option} = {json.dumps(text, ensure_ascii=False)}\n" for option, text in zip(OPTIONS, texts)]
            (self.folder / "a.toml").write_text("".join(lines).replace("\x7f", "\\u007f"))
            self.expect(texts, "--config", "a.toml")
            (self.folder / "b.toml").write_text(self.command("train", "--config", "a.toml", "--print-config").out)
            self.expect(texts, "--config", "b.toml")

    def test_environment(self):
        for texts in BATCHES:
            names = [f"LLAMA3D_{option.replace('-', '_').upper()}" for option in OPTIONS]
            self.expect(texts, **dict(zip(names, texts)))

    def tokenized(self, *arguments, **variables):
        return self.command("tokenize", "--tokenizer", "bytes", "--output", "out.h5", *arguments, **variables)

    def test_lists_of_files(self):
        names = ["[a]", "[a, b]", "{}", "c,d", " e ", "f"]
        for name in names:
            (self.folder / name).write_text("text")
        for arguments in (["--input", *names], [f"--input={name}" for name in names]):
            result = self.tokenized(*arguments)
            self.assertEqual(result.status, 0, result)
            self.assertIn("6 documents", result.out + result.err)
        (self.folder / "list.toml").write_text(f"input = {json.dumps(names)}\n")
        self.assertIn("6 documents", self.tokenized("--config", "list.toml").out)
        for name in names[:4]:
            result = self.tokenized(LLAMA3D_INPUT=name)
            self.assertEqual(result.status, 0, result)
            self.assertIn("1 documents", result.out + result.err)

    def test_bytes_that_are_no_text(self):
        for option in ("--prompt", "--system", "--stop"):
            others = [] if option == "--prompt" else ["--prompt", "a"]
            command = [PROGRAM, "generate", "--load", "nothing", *others, option, b"caf\xe9"]
            done = subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, timeout=60)
            self.assertEqual(done.returncode, 2, done)
            self.assertIn(f"{option} caf\\xe9: is no UTF-8".encode(), done.stderr)


if __name__ == "__main__":
    main()
