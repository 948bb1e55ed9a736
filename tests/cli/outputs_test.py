"""Where the output goes must not decide over training; results that cannot be written are an error."""

import os
import pathlib
import re
import resource
import signal
import subprocess
import time

from jobs import MACHINE, PROGRAM, JobTest, Started, environment, main

FAILURE, REQUEUE = 1, 75
LONG = 1_000_000  # steps that nobody waits for


class Results(JobTest):
    def commands(self):
        self.train(1, "made", steps=1)
        load = ["--load", self.checkpoint("made", 1)]
        return {
            "help": ["--help"],
            "version": ["--version"],
            "option help": ["train", "--help"],
            "configuration": self.training("none", "--print-config"),
            "dry run": self.training("none", "--dry-run"),
            "plan": ["plan", "--ranks", 2],
            "plan help": ["plan", "--help"],
            "inspect": ["inspect", "--verify", "tokens.h5"],
            "tokenize": ["tokenize", "--tokenizer", "bytes", "--input", "text.txt", "--output", "again.h5"],
            "eval": ["eval", *load, "--data", "tokens.h5", "--seq-length", 32, "--samples", 4, *MACHINE],
            "generate": ["generate", *load, "--tokenizer", "bytes", "--prompt", "the", "--max-new-tokens", 4, *MACHINE],
            "bench": ["bench", "gemm", "--model", "model.json", "--seq-length", 32, "--repeats", 1, *MACHINE],
        }

    def finish(self, words, out=subprocess.PIPE, err=subprocess.PIPE):
        command = [PROGRAM, *map(str, words)]
        return subprocess.run(command, cwd=self.folder, env=environment(), stdout=out, stderr=err, text=True)

    def test_full_disk(self):
        for name, words in self.commands().items():
            with self.subTest(name), open("/dev/full", "w") as full:
                result = self.finish(words, full)
                self.assertEqual(result.returncode, FAILURE, result)
                errors = [line for line in result.stderr.splitlines() if "llama3d: error:" in line]
                self.assertEqual(len(errors), 1, result)
                self.assertIn("standard output cannot be written (No space left on device)", errors[0])

    def test_full_disk_under_standard_error(self):
        """Progress and warnings are lost, and nothing else."""
        for name, words in self.commands().items():
            with self.subTest(name), open("/dev/full", "w") as full:
                result = self.finish(words, err=full)
                self.assertEqual(result.returncode, 0, result)
                self.assertNotEqual(result.stdout, "")

    def test_reader_that_is_gone(self):
        """Ends as other programs of a pipeline do."""
        for words in (["--help"], ["train", "--help"], ["plan", "--ranks", 2], ["inspect", "tokens.h5"]):
            with self.subTest(words):
                reader, writer = os.pipe()
                os.close(reader)
                result = self.finish(words, writer)
                os.close(writer)
                self.assertEqual(result.returncode, -signal.SIGPIPE, result)
                self.assertEqual(result.stderr, "")

    def test_closed_output(self):
        result = subprocess.run(["sh", "-c", 'exec "$0" --version >&-', PROGRAM], stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, FAILURE, result)
        self.assertIn("standard output cannot be written", result.stderr)

    def test_limit_on_file_sizes(self):
        """An error of the write, instead of a signal that ends the process."""
        script = ["bash", "-c", 'ulimit -f 0; exec "$0" --help > limited.txt', PROGRAM]
        result = subprocess.run(script, cwd=self.folder, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, FAILURE, result)
        self.assertIn("standard output cannot be written (File too large)", result.stderr)


class Logs(JobTest):
    def begin(self, name, log, *more, steps=LONG):
        words = self.training(name, *more, steps=steps)
        command = [PROGRAM, *map(str, words)]
        return subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=log, stderr=log)

    def test_interrupt_after_the_reader_of_the_log(self):
        """Ctrl-C under a pipe ends the reader, too, and mostly first."""
        reader, writer = os.pipe()
        run = self.begin("piped", writer)
        os.close(writer)
        with os.fdopen(reader) as log:
            for line in log:
                if line.startswith("step 3/"):
                    break
        time.sleep(0.5)
        self.assertIsNone(run.poll(), "it goes on")
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(60), REQUEUE)
        self.assertEqual(len(self.checkpoint_steps("piped")), 1)

    def test_full_disk_under_the_log(self):
        with open("/dev/full", "w") as full:
            run = self.begin("full", full, steps=4)
        self.assertEqual(run.wait(60), 0)
        self.assertEqual(self.checkpoint_steps("full"), [4])

    def test_closed_log(self):
        """Its descriptor must not become that of a file of the run, which would then hold log lines."""
        script = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', PROGRAM]
        result = Started([*script, *self.training("closed", steps=4)], self.folder, {}).wait()
        self.assertEqual(result.status, 0, result)
        self.assertEqual(self.command("inspect", "--verify", self.checkpoint("closed", 4)).status, 0)
        self.assertEqual(len(self.metrics("closed", "train")), 4)

    def test_log_that_nobody_takes(self):
        """A pager that waits holds up nothing but its own lines."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
        run = self.begin("stalled", writer, steps=20)
        os.close(writer)
        self.assertEqual(run.wait(60), 0)
        os.close(reader)
        self.assertEqual(self.checkpoint_steps("stalled"), [20])


class FileSizes(JobTest):
    def test_metrics_at_the_limit(self):
        """They wait in memory, as for a full disk. MPI's start writes files of its own: the limit comes later."""
        job = Started([PROGRAM, *self.training("limited", steps=LONG)], self.folder, {})
        job.wait_for("step 3/")
        before = resource.prlimit(job.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(job.process.pid, resource.RLIMIT_FSIZE, (4096, before[1]))
        job.wait_for("warning: metrics wait in memory")
        resource.prlimit(job.process.pid, resource.RLIMIT_FSIZE, before)
        job.wait_for("metrics are written again")
        job.process.send_signal(signal.SIGTERM)
        result = job.wait()
        self.assertEqual(result.status, REQUEUE, result)
        self.assertIn("File too large", result.err)
        steps = list(self.metrics("limited", "train")["step"])
        self.assertEqual(steps, list(range(1, len(steps) + 1)))


class FirstMoments(JobTest):
    def test_signal_while_mpi_starts(self):
        """From the start of `main` on; before it nothing of the program can take one (138)."""
        for tenths in range(8):
            with self.subTest(seconds=tenths / 10):
                job = self.start(2, *self.training(f"moment_{tenths}", steps=LONG))
                end = time.monotonic() + 60
                while len(pids := job.rank_pids()) < 2 or not all(map(in_start, pids)):
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.002)
                time.sleep(tenths / 10)
                job.process.send_signal(signal.SIGUSR1)
                result = job.wait()
                self.assertEqual(result.status, REQUEUE, result)
                self.assertRegex(result.err, "signal received")

    def test_interrupt_of_what_does_not_train(self):
        os.mkfifo(self.folder / "slow.txt")
        words = ["tokenize", "--tokenizer", "bytes", "--input", "slow.txt", "--output", "slow.h5"]
        job = Started([PROGRAM, *words], self.folder, {})
        time.sleep(1)
        job.process.send_signal(signal.SIGINT)
        self.assertEqual(job.wait().status, -signal.SIGINT)


def in_start(pid):
    """Whether the process has come into MPI's start, which makes the first threads."""
    return len(list(pathlib.Path(f"/proc/{pid}/task").iterdir())) > 1


class Hangups(JobTest):
    def test_terminal_that_is_gone(self):
        job = Started([PROGRAM, *self.training("hangup", steps=LONG)], self.folder, {})
        job.wait_for("step 3/")
        job.process.send_signal(signal.SIGHUP)
        result = job.wait()
        self.assertEqual(result.status, REQUEUE, result)
        self.assertEqual(len(self.checkpoint_steps("hangup")), 1)

    def test_nohup(self):
        script = ["/bin/sh", "-c", 'trap "" HUP; exec "$0" "$@"', PROGRAM]
        job = Started([*script, *self.training("nohup", steps=LONG)], self.folder, {})
        job.wait_for("step 3/")
        job.process.send_signal(signal.SIGHUP)
        done = int(re.findall(r"^step (\d+)/", job.log.read_text(), re.M)[-1])
        job.wait_for(f"step {done + 5}/")
        job.process.send_signal(signal.SIGTERM)
        self.assertEqual(job.wait().status, REQUEUE)


if __name__ == "__main__":
    main()
