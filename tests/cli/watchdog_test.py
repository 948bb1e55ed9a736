"""A job that hangs ends by itself, with a report that says who waits for what; one that does not is left alone."""

import os
import pathlib
import re
import signal
import subprocess
import time

from jobs import DEADLINE_S, DEVICE, MACHINE, PROGRAM, JobTest, Started, main, mpirun

CONFIGURATION, RANK_LOST, REQUEUE = 2, 5, 75
LONG = 1_000_000  # steps that nobody waits for
LIMIT_S = 3 if DEVICE == "cpu" else 10  # ranks that share a GPU take longer to find each other
END_S = 10  # after the limit
WAITS = r"waits in (tp|pp|dp|world|control)\.\S+ since \d+\.\d s, step \d+(, micro-batch \d+)?$"


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def still_alive(pids, deadline_s=5):
    """Those that do not end within a moment: the launcher may be done before the system has cleared them away."""
    end = time.monotonic() + deadline_s
    while alive(pids) and time.monotonic() < end:
        time.sleep(0.05)
    return alive(pids)


def alive(pids):
    """Those that still run. A number that another process has by now does not count."""
    return [pid for pid in pids if b"llama3d" in read(pathlib.Path(f"/proc/{pid}/cmdline"))]


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def gpus():
    """Those that a job of this test sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([gpu for gpu in visible.split(",") if gpu])
    listed = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, check=True, text=True)
    return len(listed.stdout.splitlines())


def watchdogs(pid):
    return sum(read(task / "comm") == b"watchdog\n" for task in pathlib.Path(f"/proc/{pid}/task").iterdir())


class WatchdogTest(JobTest):
    def started(self, ranks, *words):
        """A job and the process ids of its ranks, which do not survive the test."""
        job = self.start(ranks, *words)
        end = time.monotonic() + DEADLINE_S
        while True:
            pids = job.rank_pids()
            if len(pids) == ranks and all(b"llama3d" in read(pathlib.Path(f"/proc/{pid}/cmdline")) for pid in pids):
                break
            self.assertLess(time.monotonic(), end, "the ranks did not start")
            time.sleep(0.02)
        self.addCleanup(job.process.kill)
        self.addCleanup(lambda: send(alive(pids), signal.SIGKILL))
        return job, pids

    def trained(self, ranks, name, *more, limit=LIMIT_S):
        """Likewise, of a training that has done some steps."""
        words = self.training(name, "--comm-timeout", limit, "--global-batch-size", 4 * ranks, *more, steps=LONG)
        job, pids = self.started(ranks, *words)
        job.wait_for("step 3/")
        return job, pids

    def goes_on(self, job):
        """Five steps more than have been done; then it is saved and ends well."""
        done = max(int(step) for step in re.findall(r"^step (\d+)/", job.log.read_text(), re.M))
        job.wait_for(f"step {done + 5}/")
        job.process.send_signal(signal.SIGUSR1)
        result = job.wait()
        self.assertEqual(result.status, REQUEUE, result)
        self.assertEqual(result.error_lines(), [], result)
        self.assertNotIn("waits in", result.err)

    def ended_by_report(self, job, pids, stopped):
        """The job after one rank has been stopped; its report's lines, by rank."""
        begin = time.monotonic()
        result = job.wait()
        seconds = time.monotonic() - begin
        print(f"{self.id()}: ended {seconds - LIMIT_S:.1f} s after the limit of {LIMIT_S} s\n{self.report(result)}")
        self.assertEqual(result.status, RANK_LOST, result)
        self.assertGreater(seconds, LIMIT_S - 1, result)
        self.assertLess(seconds, LIMIT_S + END_S, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        self.assertRegex(
            result.error_lines()[0],
            rf"^llama3d: error: no progress for {LIMIT_S} s \(--comm-timeout\): rank \d+ \(host \S+\) waits in \S+, ",
        )
        lines = re.findall(r"^  rank (\d+) \(host \S+\): (.*)$", result.err, re.M)
        self.assertEqual([int(rank) for rank, _ in lines], list(range(len(pids))), result)
        for rank, text in lines:
            if int(rank) == stopped:
                self.assertRegex(text, "^no answer .*what the others wait for")
            else:
                self.assertRegex(text, f"^({WAITS}|in no communication)")
        self.assertEqual(still_alive(pids), [])
        return lines

    @staticmethod
    def report(result):
        return result.err[result.err.find("llama3d: error:") :]

    def nothing_after(self, name):
        self.assertEqual(self.checkpoint_steps(name), [])
        steps = list(self.metrics(name, "train")["step"])
        self.assertEqual(steps, list(range(1, len(steps) + 1)))
        return steps[-1]


class Hangs(WatchdogTest):
    def test_stopped_rank_of_a_grid(self):
        job, pids = self.trained(8, "grid", "--tp-size", 2, "--pp-size", 2)
        send([pids[5]], signal.SIGSTOP)
        lines = self.ended_by_report(job, pids, 5)
        last = self.nothing_after("grid")
        steps = {int(step) for _, text in lines for step in re.findall(r"step (\d+)", text)}
        # A GPU has a step more queued.
        under_way = range(last, last + (2 if DEVICE == "cpu" else 3))
        self.assertLessEqual(steps, set(under_way), "all ranks are in the steps under way")

    def test_stopped_first_rank(self):
        job, pids = self.trained(4, "first", "--pp-size", 2, "--pipeline-schedule", "zero-bubble")
        send([pids[0]], signal.SIGSTOP)
        self.ended_by_report(job, pids, 0)
        self.nothing_after("first")

    def test_stopped_rank_of_two(self):
        job, pids = self.trained(2, "two", "--tp-size", 2)
        send([pids[1]], signal.SIGSTOP)
        self.ended_by_report(job, pids, 1)

    def test_stopped_rank_that_comes_back_too_late(self):
        """The others have told what they do: the job is lost, and nothing more is recorded."""
        job, pids = self.trained(4, "late", "--tp-size", 2, "--checkpoint-interval", 1_000)
        send([pids[2]], signal.SIGSTOP)
        job.wait_for("no progress")
        send([pids[2]], signal.SIGCONT)
        result = job.wait()
        self.assertEqual(result.status, RANK_LOST, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        self.assertNotIn("\nstep ", self.report(result), "no step after the report")
        self.nothing_after("late")

    def test_stopped_rank_of_a_bench(self):
        job, pids = self.started(
            2, "bench", "step", "--model", "model.json", "--seq-length", 32, "--global-batch-size", 4, *MACHINE,
            "--repeats", 1, "--steps", LONG, "--comm-timeout", LIMIT_S,
        )  # fmt: skip
        end = time.monotonic() + DEADLINE_S
        while not all(watchdogs(pid) for pid in pids):
            self.assertLess(time.monotonic(), end, "no watchdog started")
            time.sleep(0.05)
        time.sleep(1)
        send([pids[1]], signal.SIGSTOP)
        self.ended_by_report(job, pids, 1)

    def test_rank_that_never_starts(self):
        """It reads a file that does not come, as from a file server that is gone."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        os.mkfifo(elsewhere / "model.json")
        for more in ([], ["--dry-run"]):
            with self.subTest(more=more):
                words = [PROGRAM, *self.training("never", "--comm-timeout", LIMIT_S, *more)]
                job = Started([*mpirun(1), "-wdir", elsewhere, *words, ":", "-np", 1, *words], self.folder, {})
                self.addCleanup(job.process.kill)
                result = job.wait()
                self.assertEqual(result.status, RANK_LOST, result)
                self.assertEqual(len(result.error_lines()), 1, result)
                self.assertLess(result.seconds, LIMIT_S + END_S, result)
                self.assertRegex(result.err, rf"no progress for {LIMIT_S} s .*: rank 1 .* waits in control\.\S+, ")
                self.assertRegex(result.err, r"\n  rank 0 \(host \S+\): in no communication")

    def test_rank_that_is_gone_unseen(self):
        """The launcher watches a script that goes on. What NCCL moves over sockets fails then; where a rank waits for
        MPI, and nothing of NCCL's is under way, the limit counts, as it mostly does on a shared GPU."""
        script = self.folder / "unseen.sh"
        script.write_text(f'#!/bin/sh\n"{PROGRAM}" "$@"\nsleep 30\n')
        script.chmod(0o755)
        own_gpus = DEVICE == "cuda" and gpus() >= 2
        ends = [self.end_of_a_rank_unseen(script, f"unseen{i}") for i in range(3 if own_gpus else 1)]
        if own_gpus:
            self.assertIn("failure", ends)
        if DEVICE == "cpu":
            self.assertEqual(ends, ["limit"])

    def end_of_a_rank_unseen(self, script, name):
        """What ended a job of two ranks whose second one was killed: a communicator's "failure" or the "limit"."""
        sockets = {"NCCL_P2P_DISABLE": 1, "NCCL_SHM_DISABLE": 1, "NCCL_NET": "Socket"}
        words = self.training(name, "--comm-timeout", LIMIT_S, "--global-batch-size", 8, steps=LONG)
        job = Started([*mpirun(2), script, *words], self.folder, sockets)
        self.addCleanup(job.process.kill)
        job.wait_for("step 3/")
        shell = job.rank_pids()[1]
        pid = int(pathlib.Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])
        begin = time.monotonic()
        send([pid], signal.SIGKILL)
        result = job.wait()
        seconds = time.monotonic() - begin
        self.assertEqual(result.status, RANK_LOST, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        self.assertRegex(result.err, r"\n  rank 1 \(host \S+\): no answer")
        headline = result.error_lines()[0]
        if "no progress" not in headline:
            self.assertLess(seconds, END_S, result)
            return "failure"
        self.assertIn(f"no progress for {LIMIT_S} s", headline)
        self.assertLess(seconds, LIMIT_S + END_S, result)
        if DEVICE == "cuda":
            self.assertRegex(headline, r"rank 0 \(host \S+\) waits in control\.")
        return "limit"

    def test_killed_rank(self):
        """The launcher sees that at once."""
        job, pids = self.trained(8, "killed", "--tp-size", 2, "--pp-size", 2)
        begin = time.monotonic()
        send([pids[3]], signal.SIGKILL)
        result = job.wait()
        self.assertLess(time.monotonic() - begin, END_S)
        self.assertEqual(result.status, 128 + signal.SIGKILL, result)
        self.assertEqual(still_alive(pids), [])
        self.nothing_after("killed")


class NoHangs(WatchdogTest):
    def test_a_run_longer_than_the_limit(self):
        job, pids = self.trained(8, "healthy", "--tp-size", 2, "--pp-size", 2, limit=4)
        self.assertEqual([watchdogs(pid) for pid in pids], [1] * 8)
        time.sleep(6)
        self.goes_on(job)
        evaluated = self.job(
            2, "eval", "--load", self.checkpoint("healthy", self.checkpoint_steps("healthy")[-1]), "--data",
            "tokens.h5", *MACHINE, "--comm-timeout", 20,
        )  # fmt: skip
        self.assertEqual(evaluated.status, 0, evaluated)

    def test_a_rank_that_is_slow_below_the_limit(self):
        job, pids = self.trained(4, "slow", "--tp-size", 2, limit=10)
        send([pids[1]], signal.SIGSTOP)
        time.sleep(4)
        send([pids[1]], signal.SIGCONT)
        self.goes_on(job)

    def test_a_job_that_is_stopped_as_a_whole(self):
        job, pids = self.trained(4, "paused", "--tp-size", 2)
        send(pids, signal.SIGSTOP)
        time.sleep(LIMIT_S + 3)
        send(pids, signal.SIGCONT)
        self.goes_on(job)

    def test_a_clean_end_with_the_shortest_waits(self):
        result = self.train(4, "short", "--tp-size", 2, "--comm-timeout", 5, steps=3)
        self.assertEqual(result.error_lines(), [])

    def test_without_a_limit(self):
        """Watchdogs are there for communicators that fail."""
        job, pids = self.trained(2, "unlimited", limit=0)
        self.assertEqual([watchdogs(pid) for pid in pids], [1, 1])
        send([pids[1]], signal.SIGSTOP)
        time.sleep(2)
        send([pids[1]], signal.SIGCONT)
        self.goes_on(job)

    def test_refused(self):
        for words in (
            self.training("refused"),
            ["eval", "--load", "x", "--data", "tokens.h5"],
            ["bench", "step"],
            ["generate", "--load", "x", "--prompt", "y"],
            ["export", "--input", "x", "--output", "y"],
        ):
            with self.subTest(command=words[0]):
                result = self.job(2, *words, "--comm-timeout", -1)
                self.assertEqual(result.status, CONFIGURATION, result)
                self.assertEqual(len(result.err.splitlines()), 1, result)
                self.assertIn("--comm-timeout -1: must be 0 (no limit) or more seconds", result.err)
        self.assertFalse((self.folder / "refused").exists())
        text = self.command("train", "--help").out
        self.assertRegex(text, r"--comm-timeout FLOAT(=600| \[600\]) .*\n +seconds")


if __name__ == "__main__":
    main()
