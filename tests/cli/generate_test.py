"""Text from a trained model, as people ask for it: prompts, messages, files of questions, and what is refused."""

import json
import os
import pathlib
import re
import shutil
import subprocess

from jobs import DEADLINE_S, PROGRAM, JobTest, Started, environment, main, mpirun

TOKENIZER = pathlib.Path(__file__).resolve().parents[1] / "data/tokenizer/tokenizer.model"
ON_CPU = ["--device", "cpu", "--threads", 1]
QUESTIONS = [
    {"instruction": "Say yes.", "input": "", "output": "Yes."},
    {"instruction": "Say the colour of", "input": "grass", "output": "Green: gr\u00fcn."},
    {"instruction": "Count to three.", "input": "", "output": "One, two, three.", "system": "Be brief."},
    {"instruction": "Say no.", "input": "", "output": "No."},
    {"instruction": "Name a fruit.", "input": "", "output": "Pear."},
]


class Generate(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Large enough to know its few answers by heart.
        cls.write_model("larger.json", hidden_size=64, intermediate_size=128, max_position_embeddings=256)
        (cls.folder / "questions.json").write_text(json.dumps(QUESTIONS))
        made = cls.command(
            "tokenize", "--tokenizer", "bytes", "--input", "questions.json", "--output", "questions.h5")  # fmt: skip
        assert made.status == 0, made
        trained = cls.command(
            "train", "--model", "larger.json", "--data", "questions.h5", "--output-dir", "run", "--steps", 150,
            "--seq-length", 128, "--global-batch-size", 4, "--micro-batch-size", 4, "--learning-rate", 0.01,
            "--warmup-steps", 10, *ON_CPU, "--log-interval", 50)  # fmt: skip
        assert trained.status == 0, trained
        cls.weights = cls.folder / "run" / "checkpoints" / "step_00000150"

    def words(self, *more, tokenizer="bytes"):
        return ["generate", "--load", self.weights, "--tokenizer", tokenizer, *ON_CPU, *more]

    def run_on(self, ranks, words, **extra):
        return self.command(*words, **extra) if ranks == 1 else self.job(ranks, *words, **extra)

    def text(self, *more, ranks=1):
        result = self.run_on(ranks, self.words(*more))
        self.assertEqual(result.status, 0, result)
        self.assertIn("tokens/s", result.err)
        return result.out

    def answers(self, name, *more, ranks=1):
        result = self.run_on(ranks, self.words("--data", "questions.json", "--output", name, *more))
        self.assertEqual(result.status, 0, result)
        self.assertEqual(list(pathlib.Path(self.folder).glob(name + ".partial*")), [])
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def refused(self, status, *words, says, ranks=1, **extra):
        result = self.run_on(ranks, words, **extra)
        self.assertEqual(result.status, status, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        for part in says:
            self.assertIn(part, result.error_lines()[0])

    def test_a_message_gets_the_answer_that_was_trained(self):
        self.assertEqual(self.text("--chat", "--prompt", "Say yes."), "Yes.\n")
        self.assertEqual(self.text("--chat", "--prompt", "Say the colour of\ngrass"), "Green: grün.\n")
        self.assertEqual(
            self.text("--chat", "--system", "Be brief.", "--prompt", "Count to three."), "One, two, three.\n")

    def test_tensor_parallel_ranks_say_the_same(self):
        prompt = ["--prompt", "<|user|>\nName", "--max-new-tokens", 60]
        self.assertEqual(self.text(*prompt, "--tp-size", 2, ranks=2), self.text(*prompt))
        warm = [*prompt, "--temperature", 1.5, "--seed", 5]
        self.assertEqual(self.text(*warm, "--tp-size", 2, ranks=2), self.text(*warm))

    def test_the_seed_decides_and_greed_needs_none(self):
        prompt = ["--prompt", "S", "--max-new-tokens", 40]
        self.assertEqual(self.text(*prompt, "--seed", 1), self.text(*prompt, "--seed", 2))
        warm = [self.text(*prompt, "--temperature", 2, "--seed", seed) for seed in (1, 1, 2)]
        self.assertEqual(warm[0], warm[1])
        self.assertNotEqual(warm[0], warm[2])
        self.assertEqual(self.text(*prompt, "--temperature", 2, "--top-k", 1), self.text(*prompt))

    def test_stop_texts_and_lengths(self):
        count = ["--chat", "--system", "Be brief.", "--prompt", "Count to three."]
        self.assertEqual(self.text(*count, "--stop", "wo,"), "One, t\n")
        self.assertEqual(self.text(*count, "--stop", "three", "ne,"), "O\n")
        self.assertEqual(self.text(*count, "--max-new-tokens", 5), "One, \n")

    def test_the_checkpoint_knows_its_tokenizer(self):
        words = ["generate", "--load", self.weights, *ON_CPU, "--chat", "--prompt", "Say yes."]
        self.assertEqual(self.command(*words).out, "Yes.\n")
        # Weights that never saw a token do not know one.
        self.assertEqual(self.command("export", "--input", self.weights, "--output", "bare").status, 0)
        self.refused(2, "generate", "--load", "bare", "--prompt", "x", says=["--tokenizer"])

    def test_prompt_file(self):
        (self.folder / "prompt.txt").write_text("<|user|>\nSay no.\n<|assistant|>\n")
        self.assertEqual(self.text("--prompt-file", "prompt.txt"), "No.\n")

    def test_text_comes_in_whole_characters(self):
        # A character of two bytes is two tokens; what is read is never half of it.
        command = [PROGRAM, *self.words("--chat", "--prompt", "Say the colour of\ngrass")]
        process = subprocess.Popen(
            list(map(str, command)), cwd=self.folder, env=environment(), stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)  # fmt: skip
        pieces = []
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            pieces.append(piece)
        self.assertEqual(process.wait(DEADLINE_S), 0)
        process.stdout.close()
        self.assertEqual("".join(piece.decode() for piece in pieces), "Green: grün.\n")

    def test_a_file_of_questions(self):
        answers = self.answers("one.jsonl")
        self.assertEqual([list(a) for a in answers], [["prompt", "predict", "label"]] * len(QUESTIONS))
        self.assertEqual([a["label"] for a in answers], [q["output"] for q in QUESTIONS])
        self.assertEqual([a["predict"] for a in answers], [q["output"] for q in QUESTIONS])
        self.assertIn("Say the colour of\ngrass", answers[1]["prompt"])
        # Fewer at once than there are, on two replicas of two ranks each.
        self.assertEqual(self.answers("four.jsonl", "--tp-size", 2, "--batch-size", 2, ranks=4), answers)
        self.assertEqual(self.answers("some.jsonl", "--max-samples", 2), answers[:2])

    def test_bad_records_are_left_out_by_name(self):
        records = [QUESTIONS[0], {"instruction": 5}, QUESTIONS[3]]
        (self.folder / "mixed.json").write_text(json.dumps(records, indent=1))
        result = self.command(*self.words("--data", "mixed.json", "--output", "mixed.jsonl"))
        self.assertEqual(result.status, 0, result)
        self.assertIn("1 bad record left out", result.err)
        self.assertIn("mixed.json:7, record 2:", result.err)
        self.assertEqual(len((self.folder / "mixed.jsonl").read_text().splitlines()), 2)

    def test_what_is_refused(self):
        ask = self.words("--prompt", "x")
        self.refused(2, "generate", "--prompt", "x", says=["--load"])
        self.refused(4, "generate", "--load", "nowhere", "--tokenizer", "bytes", "--prompt", "x", says=["nowhere"])
        self.refused(2, *self.words(), says=["--prompt", "--data"])
        self.refused(2, *ask, "--data", "questions.json", says=["one of", "--prompt and --data are given"])
        self.refused(2, *self.words("--prompt-file", "x"), says=["--data (from environment LLAMA3D_DATA) are given"],
                     LLAMA3D_DATA="tokens.h5")  # fmt: skip
        self.refused(2, *self.words(), says=["--output", "LLAMA3D_DATA"], LLAMA3D_DATA="tokens.h5")
        self.refused(2, *ask, says=["--format (from environment LLAMA3D_FORMAT)", "--data"], LLAMA3D_FORMAT="alpaca")
        self.refused(2, *ask, "--pp-size", 2, says=["--pp-size 2", "--tp-size"])
        self.refused(2, *ask, says=["--tp-size 1", "2 ranks"], ranks=2)
        self.refused(2, *ask, "--temperature", -1, says=["--temperature -1"])
        self.refused(2, *ask, "--top-p", 1.5, says=["--top-p 1.5"])
        self.refused(2, *ask, "--top-k", -3, says=["--top-k -3"])
        self.refused(2, *ask, "--max-new-tokens", 0, says=["--max-new-tokens 0"])
        self.refused(2, *ask, "--stop", "", says=["--stop"])
        self.refused(2, *ask, "--system", "s", says=["--system", "--chat"])
        self.refused(2, *ask, "--output", "o", says=["--output", "--data"])
        self.refused(2, *self.words("--prompt", "x" * 300), says=["301 tokens", "256"])
        self.refused(2, *self.words("--data", "questions.json"), says=["--output"])
        self.refused(3, *self.words("--prompt-file", "none.txt"), says=["none.txt"])
        self.refused(3, *self.words("--data", "none.json", "--output", "o"), says=["none.json"])
        self.refused(3, *self.words("--data", "text.txt", "--output", "o"), says=["text.txt"])
        below_a_file = "text.txt/no/folder.jsonl"
        self.refused(3, *self.words("--data", "questions.json", "--output", below_a_file), says=["text.txt"])
        self.refused(2, *ask, "--top-p", 0.5, says=["--top-p", "--temperature"])
        self.refused(3, *self.words("--prompt-file", "."), says=["--prompt-file ."])
        one = self.words("--data", "questions.json", "--output", "o")
        # Under another name too.
        (self.folder / "link.json").symlink_to("questions.json")
        for name in ("questions.json", "link.json"):
            self.refused(2, *self.words("--data", "questions.json", "--output", name), says=[name, "also an input"])
        self.assertEqual(json.loads((self.folder / "questions.json").read_text()), QUESTIONS)
        (self.folder / "words").mkdir()
        shutil.copy(TOKENIZER, self.folder / "words")
        words = self.words("--data", "questions.json", "--output", "words/tokenizer.model", tokenizer="words")
        self.refused(2, *words, says=["words/tokenizer.model", "also an input"])
        self.refused(2, *one, "--tp-size", 2, says=["--tp-size 2"])
        self.assertEqual(list(pathlib.Path(self.folder).glob("*.partial*")), [])

    def test_ranks_that_ask_different_questions(self):
        (self.folder / "others.json").write_text(json.dumps(QUESTIONS[:2]))
        words = [self.words("--data", name, "--output", "apart.jsonl") for name in ("questions.json", "others.json")]
        command = [*mpirun(1), PROGRAM, *words[0], ":", "-np", "1", PROGRAM, *words[1]]
        result = Started(command, self.folder, {}).wait()
        self.assertEqual(result.status, 3, result)
        self.assertIn("the prompts are not those of rank 0", result.error_lines()[0])
        self.assertFalse((self.folder / "apart.jsonl").exists())

    def test_records_too_long_for_the_model(self):
        long = {"instruction": "x" * 300, "output": "y"}
        records = [{"instruction": 5}, QUESTIONS[0], long, QUESTIONS[3], *[long] * 6]
        (self.folder / "long.json").write_text(json.dumps(records, indent=0))
        result = self.command(*self.words("--data", "long.json", "--output", "long.jsonl", "--max-new-tokens", 2**62))
        self.assertEqual(result.status, 0, result)
        self.assertIn("8 bad records left out, first:", result.err)
        # By their numbers in the file, five of them.
        shown = re.findall(r"^  long.json:\d+, record (\d+):", result.err, re.M)
        self.assertEqual(shown, ["1", "3", "5", "6", "7"], result)
        lines = [json.loads(line) for line in (self.folder / "long.jsonl").read_text().splitlines()]
        self.assertEqual([line["predict"] for line in lines], ["Yes.", "No."])
        (self.folder / "long.json").write_text(json.dumps([{"instruction": 5}, long]))
        self.refused(3, *self.words("--data", "long.json", "--output", "o"), says=["record 2: takes", "so for all"])

    def test_the_weights_say_where_a_text_ends(self):
        made = self.command("export", "--input", self.weights, "--output", "model")
        self.assertEqual(made.status, 0, made)
        config = json.loads((self.folder / "model/config.json").read_text())
        (self.folder / "model/config.json").write_text(json.dumps(config | {"eos_token_id": [257, ord(",")]}))
        words = ["generate", "--load", "model", "--tokenizer", "bytes", *ON_CPU, "--chat", "--system", "Be brief.",
                 "--prompt", "Count to three."]  # fmt: skip
        self.assertEqual(self.command(*words).out, "One\n")

    def test_output_that_is_lost(self):
        with open("/dev/full", "w") as full:
            command = list(map(str, [PROGRAM, *self.words("--prompt", "x")]))
            done = subprocess.run(command, cwd=self.folder, env=environment(), stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn(b"standard output", done.stderr)

    def test_another_tokenizers_model(self):
        self.write_model("small_vocabulary.json", vocab_size=200)
        self.refused(
            2, *self.words("--prompt", "x", "--model", "small_vocabulary.json"), says=["259", "200"])


main()
