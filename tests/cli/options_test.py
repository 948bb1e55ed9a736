"""Where options come from, what --help, --print-config and --dry-run say, and what the commands without ranks print."""

import os
import pathlib
import pty
import re
import subprocess

from jobs import PROGRAM, JobTest, Started, environment, main, mpirun


def on_terminal(words, folder):
    """What a command writes to standard error when that is a terminal."""
    screen, side = pty.openpty()
    process = subprocess.Popen(
        [str(word) for word in words], cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=side
    )
    os.close(side)
    shown = b""
    try:
        while block := os.read(screen, 4096):
            shown += block
    except OSError:  # what reading a terminal gives after its last writer has gone
        pass
    os.close(screen)
    if process.wait() != 0:
        raise AssertionError(f"{words}: status {process.returncode}\n{shown.decode()}")
    return shown.decode()


def sources(text):
    """--print-config as {option: (value, origin)}."""
    return {name: (value, origin) for name, value, origin in re.findall(r"^(\S+) = (.*?) +# ([^#]*)$", text, re.M)}


class Options(JobTest):
    def resolved(self, *words, **extra):
        result = self.command("train", *words, "--print-config", **extra)
        self.assertEqual((result.status, result.err), (0, ""), result)
        return sources(result.out)

    def test_ranks_with_different_options(self):
        program = [str(PROGRAM), *map(str, self.training("different", "--tp-size", 2, steps=1))]
        command = [*mpirun(1), *program, ":", "-np", "1", "-x", "LLAMA3D_WEIGHT_DECAY=0.5", *program]
        result = Started(command, self.folder, {}).wait()
        self.assertEqual(result.status, 2, result)
        self.assertRegex(result.error_lines()[0], "--weight-decay 0.5: rank 0 has 0.1 .*rank 1")

    def test_precedence(self):
        (self.folder / "run.toml").write_text("steps = 20\nseed = 21\nwarmup_steps = 22\n")
        variables = {"LLAMA3D_STEPS": 10, "LLAMA3D_SEED": 11, "LLAMA3D_TP_SIZE": 12}
        options = self.resolved("--config", "run.toml", "--steps", 30, **variables)
        self.assertEqual(options["steps"], ("30", "command line"))
        self.assertEqual(options["seed"], ("21", "run.toml"))
        self.assertEqual(options["warmup-steps"], ("22", "run.toml"))
        self.assertEqual(options["tp-size"], ("12", "environment LLAMA3D_TP_SIZE"))
        self.assertEqual(options["pp-size"], ("1", "default"))
        # Each source alone, so that none wins by being the only one read.
        self.assertEqual(self.resolved("--config", "run.toml")["steps"], ("20", "run.toml"))
        self.assertEqual(self.resolved(**variables)["steps"], ("10", "environment LLAMA3D_STEPS"))
        self.assertEqual(self.resolved()["steps"], ("1000", "default"))

    def test_variables_with_a_slip(self):
        slips = {"TP_SZIE": "TP_SIZE", "GLOBAL_BATCHSIZE": "GLOBAL_BATCH_SIZE", "STEP": "STEPS", "tp_size": "TP_SIZE",
                 "TP-SIZE": "TP_SIZE", "CONFG": "CONFIG"}  # fmt: skip
        for variable, meant in slips.items():
            refused = self.command("train", "--print-config", **{f"LLAMA3D_{variable}": 2})
            self.assertEqual(refused.status, 2, refused)
            self.assertIn(f"environment LLAMA3D_{variable}: names no option; did you mean LLAMA3D_{meant}?", refused.err)

    def test_variables_of_other_commands(self):
        """A job's environment may serve several commands: none mistakes another's option for a slip of its own."""
        commands = ["train", "eval", "generate", "plan", "bench", "tokenize", "import", "export", "inspect"]
        options = {name: set(re.findall(r"Env:(LLAMA3D_\w+)", self.command(name, "--help").out)) for name in commands}
        everything = set().union(*options.values()) | {"LLAMA3D_CACHE_DIR", "LLAMA3D_TEST_DEVICE", "LLAMA3D"}
        self.assertGreater(len(everything), 60)
        for name in commands:
            # Without what it needs, each ends soon for another reason.
            words = [name, "tokens.h5"] if name == "inspect" else [name]
            result = self.command(*words, **{variable: "0" for variable in everything - options[name]})
            self.assertNotIn("names no option", result.err)

    def test_file_named_by_a_variable(self):
        (self.folder / "named.toml").write_text("steps = 20\n")
        (self.folder / "other.toml").write_text("seed = 21\n")
        options = self.resolved(LLAMA3D_CONFIG="named.toml", LLAMA3D_STEPS=10)
        self.assertEqual(options["steps"], ("20", "named.toml"))
        options = self.resolved("--config", "other.toml", LLAMA3D_CONFIG="named.toml")
        self.assertEqual((options["steps"], options["seed"]), (("1000", "default"), ("21", "other.toml")))
        self.assertEqual(self.resolved(LLAMA3D_CONFIG="")["steps"], ("1000", "default"))
        missing = self.command("train", "--print-config", LLAMA3D_CONFIG="missing.toml")
        self.assertEqual(missing.status, 2, missing)
        self.assertIn("missing.toml", missing.err)

    def test_settings_reach_the_run(self):
        (self.folder / "use.toml").write_text("steps = 3\nglobal_batch_size = 2\nseq-length = 16\n")
        words = ["train", "--config", "use.toml", "--steps", 2, "--output-dir", "used", "--threads", 1]
        result = self.job(2, *words, LLAMA3D_MODEL="model.json", LLAMA3D_DATA="tokens.h5", LLAMA3D_STEPS=5)
        self.assertEqual(result.status, 0, result)
        rows = self.metrics("used", "train")
        self.assertEqual(list(rows["step"]), [1, 2])
        self.assertEqual(list(rows["tokens"]), [32, 64])

    def test_spellings(self):
        (self.folder / "spelling.toml").write_text(
            '# every way to write a key and a value\ntp_size=2 # of 8\n"pp-size" = +2\n\nlearning_rate = 1e-4\n'
            "pipeline_layers = [\n  1, 1, # a line each\n  2\n]\nseparate-documents = false\nsteps = 1_000_000\n"
            "data = 'C:\\a # b'\r\nvalid_data = \"say \\\"a\\\" # b\"\n"
        )
        options = self.resolved("--config=spelling.toml", "--micro_batch_size=4", "--global_batch_size", 8)
        values = {name: value for name, (value, _) in options.items()}
        wanted = {
            "tp-size": "2", "pp-size": "2", "learning-rate": "0.0001", "pipeline-layers": "[1, 1, 2]",
            "separate-documents": "false", "steps": "1000000", "micro-batch-size": "4", "global-batch-size": "8",
            "data": '"C:\\\\a # b"', "valid-data": '"say \\"a\\" # b"',
        }  # fmt: skip
        self.assertEqual({name: values[name] for name in wanted}, wanted)
        self.assertEqual(options["micro-batch-size"][1], "command line")
        self.assertEqual(self.resolved("--steps", 3, "--steps", 4)["steps"], ("4", "command line"))
        self.assertEqual(self.resolved("--pipeline-layers", "1,2")["pipeline-layers"][0], "[1, 2]")
        self.assertEqual(self.resolved("--pipeline-layers", 1, 2)["pipeline-layers"][0], "[1, 2]")
        self.assertEqual(self.resolved(LLAMA3D_PIPELINE_LAYERS="1,2")["pipeline-layers"][0], "[1, 2]")

    def test_flags(self):
        name = "separate-documents"
        self.assertEqual(self.resolved()[name], ("true", "default"))
        self.assertEqual(self.resolved("--no-separate-documents")[name], ("false", "command line"))
        self.assertEqual(self.resolved("--separate-documents")[name], ("true", "command line"))
        self.assertEqual(
            self.resolved(LLAMA3D_SEPARATE_DOCUMENTS=0)[name], ("false", "environment LLAMA3D_SEPARATE_DOCUMENTS")
        )

    def test_printed_configuration_is_one(self):
        printed = self.command("train", "--steps", 7, "--data", "a b", "--print-config")
        self.assertEqual(printed.status, 0, printed)
        (self.folder / "printed.toml").write_text(printed.out)
        again = self.resolved("--config", "printed.toml")
        first = {name: value for name, (value, _) in sources(printed.out).items()}
        self.assertEqual({name: value for name, (value, _) in again.items()}, first)
        self.assertEqual(first["steps"], "7")
        self.assertEqual(again["steps"][1], "printed.toml")

    def test_printed_configuration_trains(self):
        printed = self.command(*self.training("printed", steps=1), "--print-config", "--dry-run", "--dry-run-ranks", 4)
        self.assertEqual(printed.status, 0, printed)
        (self.folder / "trains.toml").write_text(printed.out)
        result = self.command("train", "--config", "trains.toml")
        self.assertEqual(result.status, 0, result)
        self.assertEqual(list(self.metrics("printed", "train")["step"]), [1])

    def test_help(self):
        for command in ("train", "eval", "plan", "tokenize", "inspect"):
            result = self.command(command, "--help")
            self.assertEqual((result.status, result.err), (0, ""), result)
            self.assertIn(f"Usage: llama3d {command}", result.out)
        text = self.job(2, "train", "--help").out
        self.assertEqual(text.count("Usage:"), 1, "once, not once a rank")
        # The two forms of a default are those of CLI11's versions.
        self.assertRegex(text, r"--tp-size INT(=1| \[1\]) +\(Env:LLAMA3D_TP_SIZE\)")
        self.assertRegex(text, r"--learning-rate FLOAT(=0\.0003| \[0\.0003\])")
        self.assertRegex(text, r"--seq-length INT(=1024| \[1024\]) .*\n +tokens a sequence")
        self.assertRegex(text, r"--separate-documents.*(=true| \[true\])")
        # Every option says what it is.
        self.assertNotRegex(text, r"\(Env:\w+\)\s*\n\s*--")
        commands = self.command("--help")
        self.assertEqual(commands.status, 0)
        for command in ("train", "eval", "plan", "tokenize", "inspect"):
            self.assertIn(f"  {command} ", commands.out)
        self.assertRegex(self.command("--version").out, r"^llama3d \d")

    def test_the_reference_is_that_of_the_program(self):
        page = (pathlib.Path(__file__).parents[2] / "jobs/OPTIONS.md").read_text()
        result = self.command("--options")
        self.assertEqual(result.out, page, "make it anew: llama3d --options > jobs/OPTIONS.md")
        for command in ("train", "eval", "generate", "plan", "bench", "tokenize", "import", "export"):
            section = page.split(f"\n## {command}\n")[1].split("\n## ")[0]
            listed = set(re.findall(r"^\| `--([\w-]+)`", section, re.MULTILINE))
            text = self.command(command, "--help").out
            told = set(re.findall(r"^  (?:-h,)?--([\w-]+)", text, re.MULTILINE)) - {"help"}
            self.assertEqual(listed, told, command)

    def test_numbers_are_compared_not_their_spelling(self):
        """Ranks that were given 1e-3 and 0.001 were given the same."""
        self.train(1, "spelled", "--learning-rate", "1e-3", steps=2)
        result = self.train(1, "spelled", "--learning-rate", "0.001", "--resume", "auto", steps=4)
        self.assertNotIn("learning-rate was", result.err)

    def test_dry_run_writes_nothing(self):
        before = sorted(path for path in self.folder.rglob("*") if path.suffix != ".log")
        result = self.job(2, *self.training("dry", "--dry-run"))
        self.assertEqual((result.status, result.err), (0, ""), result)
        self.assertEqual(result.out.count("everything checked"), 1, result)
        self.assertRegex(result.out, r"total +\S+ [KMG]iB")
        many = self.command(*self.training("dry", "--dry-run", "--dry-run-ranks", 8, "--tp-size", 2, "--pp-size", 4))
        self.assertEqual(many.status, 0, many)
        self.assertIn("where each rank has this memory", many.out)
        words = self.training("dry", "--dry-run", "--dry-run-ranks", 8, "--tp-size", 8, model="llama3.1-405b")
        large = self.command(*words)
        self.assertEqual(large.status, 0, "these ranks' memory is not this machine's")
        wrong = self.command(*self.training("dry", "--dry-run", "--dry-run-ranks", 6, "--tp-size", 4))
        self.assertEqual(wrong.status, 2, wrong)
        few = self.command(*self.training("dry", "--dry-run", "--tp-size", 2))
        self.assertEqual(few.status, 2, few)
        self.assertIn("--dry-run-ranks 2 assumes more", few.err)
        after = sorted(path for path in self.folder.rglob("*") if path.suffix != ".log")
        self.assertEqual(after, before)

    def planned(self, *more, **extra):
        """What plan prints, and the grids in it."""
        words = ["--model", "model.json", "--seq-length", 32, "--ranks", 4, *more]
        result = self.command("plan", *words, **extra)
        self.assertEqual(result.status, 0, result)
        grids = re.findall(r"^TP (\d+) x PP (\d+) x DP (\d+)", result.out, re.M)
        return result, {tuple(map(int, found)) for found in grids}

    def test_plan_prints_every_grid(self):
        result, grids = self.planned("--global-batch-size", 8)
        self.assertRegex(result.out, r"^model.json on 4 ranks \(.+\): sequences of 32 tokens, micro-batches of 1, 8 a step, fp32, ")
        # Two key-value heads allow TP 1 and 2, four layers all of 1, 2 and 4 stages.
        self.assertEqual(grids, {(1, 1, 4), (1, 2, 2), (1, 4, 1), (2, 1, 2), (2, 2, 1)})

    def test_plan_of_grids_with_a_size(self):
        self.assertEqual(self.planned("--tp-size", 2)[1], {(2, 1, 2), (2, 2, 1)})
        self.assertEqual(self.planned(LLAMA3D_PP_SIZE=2)[1], {(1, 2, 2), (2, 2, 1)})
        self.assertEqual(self.planned("--tp-size", 1, "--pp-size", 1)[1], {(1, 1, 4)})
        # As many as can be asked for: a prime, and a power of 2 whose TP x PP may be larger yet.
        self.assertEqual(self.planned("--ranks", 2**31 - 1)[1], {(1, 1, 2**31 - 1)})
        self.assertEqual(self.planned("--ranks", 2**30, "--pp-size", 4)[1], {(1, 4, 2**28), (2, 4, 2**27)})

    def test_plan_counts_what_receives_ahead_hold(self):
        def activations(*more):
            result = self.command(
                "plan", "--ranks", 4, "--model", "model.json", "--seq-length", 32, "--global-batch-size", 8, *more
            )
            self.assertEqual(result.status, 0, result)
            self.assertEqual("1f1b, --pipeline-receive-ahead\n" in result.out, bool(more))
            lines = re.findall(r"^TP 1 x PP (\d+) x .*?B .*?B .*?B +(\S+) KiB ", result.out, re.M)
            return {int(pp): float(kib) for pp, kib in lines}

        needed, ahead = activations(), activations("--pipeline-receive-ahead")
        self.assertEqual(ahead[1], needed[1])
        # The first stage holds 3 micro-batches instead of 2, and 7 instead of 4.
        self.assertAlmostEqual(ahead[2] / needed[2], 3 / 2, delta=0.15)
        self.assertAlmostEqual(ahead[4] / needed[4], 7 / 4, delta=0.15)

    def test_progress(self):
        words = [*mpirun(2), PROGRAM, *self.training("bar", steps=4)]
        shown = on_terminal(words, self.folder)
        self.assertIn("\r\033[K[", shown)
        self.assertRegex(shown, r"4/4  loss \d+\.\d{4}  \d+ tokens/s  ETA 0m00s")
        plain = self.train(2, "lines", steps=4).err
        self.assertNotIn("\r", plain)
        self.assertRegex(plain, r"\nstep 4/4  loss \d+\.\d{4} .* tokens/s  ETA 0m00s\n")

    def test_inspect(self):
        self.train(2, "seen", steps=2)
        step = "seen/checkpoints/step_00000002"
        wanted = {
            "tokens.h5": ["token file", "bytes", "259"],
            "seen/metrics.h5": ["metrics", "train", "2 rows"],
            step: ["checkpoint", "model.embed_tokens.weight", "(259, 32)"],
            f"{step}/checkpoint.h5": ["checkpoint", "model.embed_tokens.weight"],
            f"{step}/rank_00001.h5": ["rank"],
        }
        for path, words in wanted.items():
            for verify in ([], ["--verify"]):
                result = self.command("inspect", path, *verify)
                self.assertEqual((result.status, result.err), (0, ""), result)
                for word in words:
                    self.assertIn(word, result.out, path)


if __name__ == "__main__":
    main()
