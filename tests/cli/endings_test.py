"""How a run ends before its last step: on a signal saved and to be resumed, by a failure of one rank on all."""

import os
import re
import shutil
import signal
import time

import numpy

from jobs import PROGRAM, JobTest, Started, different, main, mpirun, tensors

CONFIGURATION, REQUEUE = 2, 75
LONG = 1_000_000  # steps that nobody waits for
SOON_S = 20  # a lost rank must end the job within this time; mpirun itself takes one or two


class Signals(JobTest):
    def stopped(self, name, send, *more):
        """Starts a run of two ranks, signals it after a few steps; its end and the step it was saved at."""
        job = self.start(2, *self.training(name, *more, steps=LONG))
        job.wait_for("step 3/")
        send(job)
        result = job.wait()
        found = re.search(r"signal received: saving at step (\d+)", result.err)
        self.assertIsNotNone(found, result)
        step = int(found[1])
        self.assertEqual(self.checkpoint_steps(name), [step], result)
        self.assertEqual(len(self.events(name, "signal")), 1)
        self.assertEqual(result.error_lines(), [])
        return result, step

    def continued(self, name, step):
        """Resumes for three more steps, and holds them against a run that was not stopped."""
        steps = step + 3
        resumed = self.train(2, name, "--resume", "auto", steps=steps)
        self.assertIn(f"resuming at step {step}", resumed.err)
        self.train(2, f"{name}_straight", steps=steps)
        ends = [tensors(self.checkpoint(output, steps)) for output in (name, f"{name}_straight")]
        self.assertEqual(different(*ends), [])
        rows = [self.metrics(output, "train") for output in (name, f"{name}_straight")]
        self.assertEqual(list(rows[0]["step"]), list(range(1, steps + 1)))
        self.assertEqual(rows[0]["loss"].tobytes(), rows[1]["loss"].tobytes())

    def test_usr1_to_mpirun(self):
        """mpirun forwards it to all ranks and returns their status."""
        result, step = self.stopped("usr1", lambda job: job.process.send_signal(signal.SIGUSR1))
        self.assertEqual(result.status, REQUEUE, result)
        self.continued("usr1", step)

    def test_term_to_every_rank(self):
        """As srun does it."""
        result, step = self.stopped("term", lambda job: [os.kill(pid, signal.SIGTERM) for pid in job.rank_pids()])
        self.assertEqual(result.status, REQUEUE, result)
        self.continued("term", step)

    def test_term_to_one_rank(self):
        """One rank that knows is enough: all save at the same step."""
        result, _ = self.stopped("one", lambda job: os.kill(job.rank_pids()[1], signal.SIGTERM))
        self.assertEqual(result.status, REQUEUE, result)

    def test_term_to_mpirun(self):
        """mpirun ends its ranks with SIGTERM, and SIGKILL a second later, and returns a status of its own. Whether
        there was time to save or not, what is there can be resumed."""
        job = self.start(2, *self.training("mpirun", "--checkpoint-interval", 2, steps=LONG))
        job.wait_for("step 3/")
        job.process.terminate()
        result = job.wait()
        self.assertNotEqual(result.status, 0, result)
        self.assertLess(result.seconds, SOON_S)
        last = int(self.metrics("mpirun", "train")["step"][-1])
        again = self.train(2, "mpirun", "--resume", "auto", steps=last + 1)
        self.assertIn("resuming at step", again.err)
        self.assertEqual(list(self.metrics("mpirun", "train")["step"]), list(range(1, last + 2)))

    def test_interrupt_at_a_terminal(self):
        job = Started([PROGRAM, *self.training("interrupted", steps=LONG)], self.folder, {})
        job.wait_for("step 3/")
        job.process.send_signal(signal.SIGINT)
        result = job.wait()
        self.assertEqual(result.status, REQUEUE, result)
        self.assertEqual(len(self.checkpoint_steps("interrupted")), 1)

    def test_interrupt_that_is_not_for_it(self):
        """A shell has its background jobs ignore it."""
        script = ["/bin/sh", "-c", 'trap "" INT; exec "$0" "$@"', PROGRAM]
        job = Started([*script, *self.training("background", steps=LONG)], self.folder, {})
        job.wait_for("step 3/")
        job.process.send_signal(signal.SIGINT)
        done = int(re.findall(r"^step (\d+)/", job.log.read_text(), re.M)[-1])
        job.wait_for(f"step {done + 5}/")
        job.process.send_signal(signal.SIGTERM)
        self.assertEqual(job.wait().status, REQUEUE)

    def test_signal_before_the_first_step(self):
        """It comes while the model is read; nothing has been done that could be lost."""
        os.mkfifo(self.folder / "slow.json")
        job = self.start(1, *self.training("early", model="slow.json"))
        with (self.folder / "slow.json").open("w") as model:
            os.kill(job.rank_pids()[0], signal.SIGUSR1)
            time.sleep(0.2)
            model.write((self.folder / "model.json").read_text())
        result = job.wait()
        self.assertEqual(result.status, REQUEUE, result)
        self.assertIn("signal received before a step was done: ending at step 0", result.err)
        self.assertEqual(self.checkpoint_steps("early"), [])
        self.train(1, "early", "--resume", "auto")

    def test_signal_after_a_checkpoint_of_the_same_step(self):
        result, step = self.stopped_often("often")
        self.assertEqual(result.status, REQUEUE, result)
        self.assertEqual(self.checkpoint_steps("often"), list(range(step - 2, step + 1)))
        saved = [event for event in self.events("often", "checkpoint") if f"step_{step:08d}" in event]
        self.assertEqual(len(saved), 1, "saved once, not twice")

    def stopped_often(self, name):
        job = self.start(2, *self.training(name, "--checkpoint-interval", 1, steps=LONG))
        job.wait_for("step 4/")
        job.process.send_signal(signal.SIGUSR1)
        result = job.wait()
        return result, int(re.search(r"saving at step (\d+)", result.err)[1])


class TwoRuns(JobTest):
    def test_second_run_in_a_folder(self):
        """It would take the first one's checkpoints and metrics away. A run that was killed keeps nobody out."""
        first = self.start(1, *self.training("shared", "--checkpoint-interval", 2, steps=LONG))
        first.wait_for("step 3/")
        for more in ([], ["--resume", "auto"]):
            second = self.job(1, *self.training("shared", *more))
            self.assertEqual(second.status, CONFIGURATION, second)
            self.assertEqual(len(second.error_lines()), 1, second)
            self.assertIn(f"another run writes there (process {first.rank_pids()[0]} on ", second.err)
        os.kill(first.rank_pids()[0], signal.SIGKILL)
        first.wait()
        last = self.checkpoint_steps("shared")[-1]
        self.train(1, "shared", "--resume", "auto", steps=last + 1)
        self.assertEqual(list(self.metrics("shared", "train")["step"]), list(range(1, last + 2)))


class LostRanks(JobTest):
    def test_killed_rank(self):
        """No exception, no message of its own: mpirun names it. What was flushed and saved before is whole."""
        job = self.start(4, *self.training("killed", "--checkpoint-interval", 2, "--tp-size", 2, steps=LONG),
                         quiet=False)  # fmt: skip
        job.wait_for("step 5/")
        begin = time.monotonic()
        os.kill(job.rank_pids()[2], signal.SIGKILL)
        result = job.wait()
        self.assertLess(time.monotonic() - begin, SOON_S)
        self.assertEqual(result.status, 128 + signal.SIGKILL, result)
        self.assertRegex(result.err, r"rank 2 .*signal 9", result)
        steps = self.metrics("killed", "train")["step"]
        self.assertEqual(list(steps), list(range(1, len(steps) + 1)))
        again = self.train(4, "killed", "--resume", "auto", "--tp-size", 2, steps=int(steps[-1]) + 2)
        self.assertRegex(again.err, r"resuming at step \d+")
        rows = self.metrics("killed", "train")["step"]
        self.assertEqual(list(rows), list(range(1, int(steps[-1]) + 3)))

    def own_files(self, name, ranks, *more):
        """Starts a run whose ranks read a token file each: data_0.h5, data_1.h5, ..."""
        for rank in range(ranks):
            shutil.copy(self.folder / "many.h5", self.folder / f"{name}_{rank}.h5")
        words = self.training(name, *more, data=f"{name}_DATA.h5", steps=LONG)
        program = 'exec "$0" "${@/_DATA.h5/_$OMPI_COMM_WORLD_RANK.h5}"'
        command = ["bash", "-c", program, PROGRAM, *words]
        return Started([*mpirun(ranks), *command], self.folder, {})

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # So long that neither HDF5 nor the first steps have seen most of it.
        text = numpy.random.default_rng(3).integers(97, 123, size=3_000_000, dtype=numpy.uint8).tobytes().decode()
        (cls.folder / "many.txt").write_text(text)
        made = cls.command("tokenize", "--tokenizer", "bytes", "--input", "many.txt", "--output", "many.h5")
        assert made.status == 0, made

    def test_data_that_becomes_unreadable_on_one_rank(self):
        job = self.own_files("cut", 3, "--global-batch-size", 3)
        job.wait_for("step 5/")
        path = self.folder / "cut_1.h5"
        begin = time.monotonic()
        os.truncate(path, path.stat().st_size // 2)
        result = job.wait()
        self.assertLess(time.monotonic() - begin, SOON_S)
        self.assertEqual(result.status, 3, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        self.assertIn("cut_1.h5", result.error_lines()[0])
        self.assertRegex(result.error_lines()[0], r"\[rank 1 on host \S+\]$")

    def test_checkpoint_that_one_rank_cannot_write(self):
        """A limit on file sizes stands for a full disk on one node: training goes on, and fails only at its end."""
        limit = 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then ulimit -f 64; trap "" XFSZ; fi; exec "$0" "$@"'
        words = self.training("limited", "--checkpoint-interval", 2, steps=4)
        result = Started([*mpirun(2), "bash", "-c", limit, PROGRAM, *words], self.folder, {}).wait()
        self.assertEqual(result.status, 1, result)
        self.assertIn("warning: no checkpoint at step 2", result.err)
        self.assertIn("step 4/4", result.err)
        self.assertEqual(len(result.error_lines()), 1, result)
        self.assertRegex(result.error_lines()[0], r"\[rank 1 on host \S+\]$")
        left = list((self.folder / "limited/checkpoints").iterdir())
        self.assertEqual(left, [], "no checkpoint is better than a part of one, and the next needs its room")
        self.assertEqual(list(self.metrics("limited", "train")["step"]), [1, 2, 3, 4])

    def test_no_memory_on_one_rank(self):
        limit = 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then ulimit -v 4000000; fi; exec "$0" "$@"'
        self.write_model("wide.json", hidden_size=2048, intermediate_size=8192, num_hidden_layers=8)
        words = self.training("memory", "--model", "wide.json", steps=1)
        result = Started([*mpirun(2), "bash", "-c", limit, PROGRAM, *words], self.folder, {}).wait()
        self.assertNotEqual(result.status, 0, result)
        self.assertLess(result.seconds, SOON_S)
        self.assertRegex(result.err, r"rank 1 (\(host \S+\): error|on host)", result)
        self.assertFalse((self.folder / "memory").exists())


if __name__ == "__main__":
    main()
