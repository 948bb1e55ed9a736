"""What a run does when its output folder is not what it was: locks, files and folders that others touch."""

import os
import pathlib
import shutil
import signal
import time

from jobs import JobTest, main

CONFIGURATION, REQUEUE = 2, 75
LONG = 1_000_000
FAULTY_CALLS = os.environ.get("FAULTY_CALLS", "")


class Locks(JobTest):
    def test_lock_files_that_cannot_be_used(self):
        for name, make in (("folder", pathlib.Path.mkdir), ("dangling", lambda path: path.symlink_to("nowhere"))):
            with self.subTest(name):
                (self.folder / name).mkdir()
                make(self.folder / name / ".lock")
                refused = self.job(1, *self.training(name))
                self.assertEqual(refused.status, CONFIGURATION, refused)
                self.assertEqual(len(refused.error_lines()), 1, refused)
                self.assertIn(f"--output-dir {name}: its lock file {name}/.lock cannot be used", refused.err)
                self.assertFalse((self.folder / name / "metrics.h5").exists())

    def test_file_system_without_locks(self):
        result = self.job(1, *self.training("unlocked"), LD_PRELOAD=FAULTY_CALLS, FAULTY_FLOCK=38)
        self.assertEqual(result.status, 0, result)
        self.assertEqual(result.err.count("its file system has no locks (Function not implemented)"), 1, result)

    def test_lock_that_only_a_writer_gets(self):
        """As NFS has it."""
        result = self.job(1, *self.training("read_only"), LD_PRELOAD=FAULTY_CALLS, FAULTY_FLOCK=9)
        self.assertEqual(result.status, CONFIGURATION, result)
        self.assertIn("locks only what may be written to", result.error_lines()[0])


class Living(JobTest):
    """Runs whose files are touched while they train."""

    def begin(self, name, *more, **extra):
        job = self.start(1, *self.training(name, *more, steps=LONG), **extra)
        job.wait_for("step 3/")
        return job

    def end(self, job):
        os.kill(job.rank_pids()[0], signal.SIGTERM)
        result = job.wait()
        self.assertEqual(result.status, REQUEUE, result)
        return result

    def expect_steps(self, output, first):
        steps = list(self.metrics(output, "train")["step"])
        self.assertEqual(steps, list(range(steps[0], steps[-1] + 1)))
        self.assertEqual(steps[0] == 1, first == 1)
        return steps[-1]

    def test_one_write_that_fails(self):
        trigger = self.folder / "fail_once"
        job = self.begin("faulty", LD_PRELOAD=FAULTY_CALLS, FAULTY_WRITE=trigger)
        trigger.touch()
        job.wait_for("metrics are written again")
        result = self.end(job)
        self.assertEqual(result.err.count("warning: metrics wait in memory"), 1, result)
        self.assertIn("Input/output error", result.err)
        self.assertEqual(self.expect_steps("faulty", 1), self.checkpoint_steps("faulty")[-1])
        self.assertEqual(len(self.metrics("faulty", "ranks")), len(self.metrics("faulty", "train")))

    def test_metrics_that_are_removed(self):
        job = self.begin("removed")
        (self.folder / "removed/metrics.h5").unlink()
        job.wait_for("removed/metrics.h5 was removed or renamed while the run writes it: begun anew")
        self.end(job)
        self.assertEqual(self.expect_steps("removed", 2), self.checkpoint_steps("removed")[-1])

    def test_lock_that_is_removed(self):
        job = self.begin("lock")
        (self.folder / "lock/.lock").unlink()
        job.wait_for("its lock file was removed while this run writes there: made anew")
        second = self.job(1, *self.training("lock"))
        self.assertEqual(second.status, CONFIGURATION, second)
        self.end(job)

    def test_folder_that_is_renamed(self):
        """The run goes on under the name it was given, and still keeps others out of it."""
        job = self.begin("before")
        (self.folder / "before").rename(self.folder / "after")
        job.wait_for(f"it was renamed to {self.folder.resolve()}/after while this run writes there")
        second = self.job(1, *self.training("before"))
        self.assertEqual(second.status, CONFIGURATION, second)
        self.assertIn("another run writes there", second.err)
        self.end(job)
        self.assertEqual(len(self.checkpoint_steps("before")), 1)
        self.expect_steps("after", 1)
        last = self.expect_steps("before", 2)
        self.train(1, "before", "--resume", "auto", steps=last + 1)

    def test_folder_that_is_removed(self):
        job = self.begin("gone")
        os.kill(job.rank_pids()[0], signal.SIGSTOP)  # or it makes the folder anew while it is emptied
        shutil.rmtree(self.folder / "gone")
        os.kill(job.rank_pids()[0], signal.SIGCONT)
        job.wait_for("--output-dir gone: it was removed while this run writes there: made anew")
        self.end(job)
        self.assertEqual(len(self.checkpoint_steps("gone")), 1)

    def test_folder_that_another_run_takes(self):
        """It is stopped meanwhile, as a slow step would hold it: it saves where its folder is now, and ends."""
        job = self.begin("taken")
        os.kill(job.rank_pids()[0], signal.SIGSTOP)
        time.sleep(0.2)
        (self.folder / "taken").rename(self.folder / "old")
        second = self.begin("taken")
        before = self.metrics("taken", "train")["step"][0]
        os.kill(job.rank_pids()[0], signal.SIGCONT)
        first = job.wait()
        self.assertEqual(first.status, 1, first)
        self.assertEqual(len(first.error_lines()), 1, first)
        step = self.checkpoint_steps("old")[-1]
        self.assertRegex(first.error_lines()[0],
                         rf"another run writes there \(process {second.rank_pids()[0]} on .*old/checkpoints/step_{step:08d}")  # fmt: skip
        self.end(second)
        self.assertEqual((before, self.metrics("taken", "train")["step"][0]), (1, 1))
        self.assertEqual(len(self.checkpoint_steps("taken")), 1)


class Checkpoints(JobTest):
    def test_names_that_lead_nowhere_are_skipped(self):
        self.train(1, "links", "--checkpoint-interval", 4, "--keep-checkpoints", 1)
        checkpoints = self.folder / "links/checkpoints"
        (checkpoints / "step_00000020").symlink_to("step_00000020")
        (checkpoints / "step_00000019").symlink_to("nowhere")
        (checkpoints / "step_00000018").write_text("no folder")
        result = self.train(1, "links", "--resume", "auto", "--keep-checkpoints", 1, steps=20)
        self.assertIn("resuming at step 8", result.err)
        warned = [line for line in result.err.splitlines() if line.startswith("warning: skipping a checkpoint")]
        self.assertEqual(len(warned), 3, result)
        for step, reason in ((20, "symbolic links"), (19, "no such folder"), (18, "it is a file")):
            self.assertRegex(result.err, rf"step_{step:08d} cannot be loaded \([^)]*{reason}")
        self.assertTrue((checkpoints / "step_00000020/checkpoint.h5").is_file())


if __name__ == "__main__":
    main()
