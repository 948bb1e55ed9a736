"""Runs llama3d as people do, under mpirun, for the tests of this folder: PROGRAM and MPIEXEC are their arguments."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import h5py
import numpy

PROGRAM = pathlib.Path(sys.argv[1]).resolve()
MPIEXEC = sys.argv[2]
# What most jobs compute on. Several ranks may have to share a GPU.
DEVICE = os.environ.get("LLAMA3D_TEST_DEVICE", "cpu")
MACHINE = ["--device", DEVICE, "--threads", 1, *(["--allow-gpu-sharing"] if DEVICE == "cuda" else [])]
DEADLINE_S = 60 if DEVICE == "cpu" else 240


def environment(**extra):
    """What this process has, without settings that would reach llama3d or tell it of another job."""
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LLAMA3D_", "SLURM_", "PMI_", "PMIX_", "OMPI_COMM_"))
    }
    return mine | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMP_NUM_THREADS": "1",
    } | {name: str(value) for name, value in extra.items()}


def mpirun(ranks, quiet=True):
    return [MPIEXEC, *(["--quiet"] if quiet else []), "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]


class Finished:
    """How a job ended."""

    def __init__(self, command, status, out, err, seconds):
        self.command, self.status, self.out, self.err, self.seconds = command, status, out, err, seconds

    def __str__(self):
        return f"{' '.join(map(str, self.command))}\nstatus {self.status}, {self.seconds:.1f} s\n{self.out}{self.err}"

    def error_lines(self):
        return [line for line in self.err.splitlines() if "llama3d: error:" in line]


class Started:
    """A job that is still running; its standard error goes to a file, which a test may watch."""

    def __init__(self, command, folder, extra):
        self.command = [str(word) for word in command]
        self.log = pathlib.Path(tempfile.mkstemp(prefix="job", suffix=".log", dir=folder)[1])
        # Launchers that share a folder for their sessions may find it removed by one that ends.
        self.sessions = tempfile.TemporaryDirectory(prefix="llama3d_job_", ignore_cleanup_errors=True)
        own = {"OMPI_MCA_orte_tmpdir_base": self.sessions.name}
        self.begin = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command, cwd=folder, env=environment(**own, **extra), stdout=subprocess.PIPE, stderr=log, text=True
            )

    def wait(self, deadline_s=DEADLINE_S):
        try:
            out = self.process.communicate(timeout=deadline_s)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError(f"not ended after {deadline_s} s: {self.command}\n{self.log.read_text()}") from None
        finally:
            self.sessions.cleanup()
        seconds = time.monotonic() - self.begin
        return Finished(self.command, self.process.returncode, out, self.log.read_text(), seconds)

    def wait_for(self, text, deadline_s=DEADLINE_S):
        """Until standard error has this text."""
        end = time.monotonic() + deadline_s
        while text not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise AssertionError(f"'{text}' did not come: {self.command}\n{self.log.read_text()}")
            time.sleep(0.02)

    def rank_pids(self):
        """Process ids in the order of ranks, which the launcher tells each in its environment."""
        pids = {}
        for child in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            words = pathlib.Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            for word in words:
                if word.startswith(b"OMPI_COMM_WORLD_RANK="):
                    pids[int(word.partition(b"=")[2])] = int(child)
        return [pids[rank] for rank in sorted(pids)]


class JobTest(unittest.TestCase):
    """Has a folder with a token file and a small model; jobs run in it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="llama3d_cli_"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.write_model("model.json")
        words = "the quick brown fox jumps over one lazy dog and then sleeps in the warm afternoon sun ".split()
        draw = numpy.random.default_rng(7)
        text = " ".join(draw.choice(words, size=4000))
        (cls.folder / "text.txt").write_text(text)
        made = cls.command("tokenize", "--tokenizer", "bytes", "--input", "text.txt", "--output", "tokens.h5")
        if made.status != 0:
            raise AssertionError(f"no token file: {made}")

    @classmethod
    def write_model(cls, name, **changes):
        sizes = {
            "model_type": "llama",
            "vocab_size": 259,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        }
        (cls.folder / name).write_text(json.dumps(sizes | changes))

    @classmethod
    def command(cls, *words, **extra):
        """llama3d with these words, as one process without mpirun."""
        return Started([PROGRAM, *words], cls.folder, extra).wait()

    @classmethod
    def done(cls, *words):
        """The same, which has to succeed."""
        result = cls.command(*words)
        if result.status != 0:
            raise AssertionError(result)
        return result

    @classmethod
    def job(cls, ranks, *words, quiet=True, **extra):
        return cls.start(ranks, *words, quiet=quiet, **extra).wait()

    @classmethod
    def start(cls, ranks, *words, quiet=True, **extra):
        return Started([*mpirun(ranks, quiet), PROGRAM, *words], cls.folder, extra)

    @staticmethod
    def training(output, *more, model="model.json", data="tokens.h5", steps=8):
        """Words of a small training. The constant rate makes a step the same however many follow."""
        return [
            "train", "--model", model, "--data", data, "--output-dir", output, "--steps", steps,
            "--seq-length", 32, "--global-batch-size", 4, "--lr-schedule", "constant", "--learning-rate", 0.003,
            *MACHINE, "--log-interval", 1, *more,
        ]  # fmt: skip

    def train(self, ranks, output, *more, **changes):
        result = self.job(ranks, *self.training(output, *more, **changes))
        self.assertEqual(result.status, 0, result)
        return result

    def checkpoint(self, output, step):
        return self.folder / output / "checkpoints" / f"step_{step:08d}"

    def checkpoint_steps(self, output):
        names = (path.name for path in (self.folder / output / "checkpoints").iterdir())
        return sorted(int(name[5:]) for name in names if name.startswith("step_") and name[5:].isdigit())

    def metrics(self, output, table):
        with h5py.File(self.folder / output / "metrics.h5", "r") as file:
            return file[table][:]

    def events(self, output, kind):
        return [row["text"].decode() for row in self.metrics(output, "events") if row["kind"].decode() == kind]


def tensors(checkpoint):
    """Every parameter and moment of a checkpoint, by its full name."""
    found = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset) and name.startswith(("model/", "optimizer/")):
            found[name] = item[:]

    with h5py.File(checkpoint / "checkpoint.h5", "r") as file:
        file.visititems(collect)
    if not any(name.startswith("model/") for name in found):
        raise AssertionError(f"no tensors in {checkpoint}")
    return found


def different(left, right):
    """Names of tensors that are not the same in every bit."""
    if left.keys() != right.keys():
        return sorted(left.keys() ^ right.keys())
    return [name for name in left if left[name].tobytes() != right[name].tobytes()]


def relative_error(left, right):
    """The largest over all tensors of |left - right| / |right| in the 2-norm."""
    if left.keys() != right.keys():
        return numpy.inf
    return max(
        numpy.linalg.norm(left[name].astype(float) - right[name].astype(float)) / numpy.linalg.norm(right[name])
        for name in left
    )


def main():
    # The first two arguments are ours; what follows is unittest's: -v, -k NAME.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
