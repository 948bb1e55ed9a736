"""Ranks that are stopped where no step runs: in MPI's start or end, before the first step, in a save."""

import os
import signal

from jobs import MACHINE, PROGRAM, JobTest, Started, main, mpirun

RANK_LOST = 5
LIMIT_S = 4
END_S = 20  # behind the limit, on a busy machine


class Start(JobTest):
    def held_up(self, ranks, how, *words):
        """The end of a job whose rank 1 does `how` in the place of starting."""
        script = f'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then {how}; fi; exec "$0" "$@"'
        return Started([*mpirun(ranks), "bash", "-c", script, PROGRAM, *words], self.folder, {}).wait()

    def stopped_in(self, call, ranks, *words):
        """The same of a rank 1 that is stopped in this call."""
        faulty = os.environ["FAULTY_CALLS"]
        return self.held_up(ranks, f"export LD_PRELOAD={faulty} FAULTY_STOP={call}", *words)

    def reported(self, result, waiting, where="MPI's start"):
        self.assertEqual(result.status, RANK_LOST, result)
        self.assertGreater(result.seconds, LIMIT_S)
        self.assertLess(result.seconds, LIMIT_S + END_S)
        for rank in waiting:
            self.assertRegex(
                result.err,
                rf"llama3d: error: no progress for {LIMIT_S} s \(--comm-timeout\): rank {rank} \(host \S+\) waits in {where}",
            )
        self.assertNotIn("rank 1 (host", result.err)

    def test_stopped_rank(self):
        words = self.training("stopped", "--comm-timeout", LIMIT_S)
        self.reported(self.held_up(3, "kill -STOP $$", *words), [0, 2])

    def test_rank_that_does_not_start(self):
        (self.folder / "limit.toml").write_text(f"comm-timeout = {LIMIT_S}\n")
        words = self.training("missing", "--config", "limit.toml")
        self.reported(self.held_up(2, "sleep 1000", *words), [0])

    def test_rank_stopped_before_the_options_are_looked_at(self):
        for words in (self.training("early"), ["generate", "--load", "nothing", "--prompt", "a", *MACHINE]):
            result = self.stopped_in("MPI_Iallreduce", 2, *words, "--comm-timeout", LIMIT_S)
            self.assertEqual(result.status, RANK_LOST, result)
            self.assertRegex(result.err, r"rank 0 \(host \S+\) waits in control.all_max, before the first step")
            self.assertRegex(result.err, r"rank 1 \(host \S+\): no answer")

    def test_rank_stopped_in_the_end(self):
        words = self.training("end", "--comm-timeout", LIMIT_S, steps=2)
        result = self.stopped_in("MPI_Finalize", 2, *words)
        self.reported(result, [0], "MPI's end")
        self.assertTrue((self.folder / "end" / "checkpoints" / "step_00000002").is_dir(), result)

    def test_other_commands(self):
        words = ["bench", "gemm", "--model", "model.json", "--seq-length", 32, *MACHINE, "--comm-timeout", LIMIT_S]
        self.reported(self.held_up(2, "kill -STOP $$", *words), [0])

    def test_start_that_takes_its_time(self):
        """Within the limit it is no matter, and the limit ends with the start."""
        words = self.training("slow", "--comm-timeout", 20, steps=2)
        result = self.held_up(2, "sleep 2", *words)
        self.assertEqual(result.status, 0, result)


class Saves(JobTest):
    def test_rank_stopped_in_a_save(self):
        """Most of the time goes into saves; a rank that is stopped elsewhere is not what is looked for."""
        for attempt in range(6):
            name = f"save_{attempt}"
            job = self.start(2, *self.training(name, "--checkpoint-interval", 1, "--comm-timeout", LIMIT_S, steps=10**6))
            job.wait_for("step 3/")
            os.kill(job.rank_pids()[1], signal.SIGSTOP)
            result = job.wait()
            self.assertEqual(result.status, RANK_LOST, result)
            if "saving a checkpoint" in result.err:
                self.assertRegex(result.error_lines()[0], r"waits in \S+, step \d+, saving a checkpoint$")
                return
        self.fail(f"never named: {result}")


if __name__ == "__main__":
    main()
