"""A run on two nodes: network and host names apart on one machine, a cable between them, and mpirun's daemon on each.

Ends with 77, which CTest reports as skipped, where such nodes can't be made.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import h5py
import numpy

from jobs import MPIEXEC, PROGRAM, JobTest, Started, main, relative_error, tensors

SKIPPED = 77
STEPS = 3
RANKS_PER_NODE = 2
NETWORK = "10.77.0"
SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "jobs" / "train.sh"
TOOLS = ("ip", "unshare", "nsenter", "hostname")


class Node:
    """A network and a host name of its own. Both live as long as a process is in them; the one that holds them ends
    with the pipe to it, however this test ends."""

    def __init__(self, name, address):
        self.name, self.address = name, address
        program = "hostname $0 && ip link set lo up && echo ready && exec cat"
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", program, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self.holder.stdout.readline() != "ready\n":
            raise AssertionError(f"no {name}")

    def inside(self, *command):
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--uts", "--", *map(str, command)]

    def call(self, *command):
        return subprocess.run(self.inside(*command), check=True, capture_output=True, text=True).stdout

    def received(self):
        """Bytes that came through the cable."""
        return json.loads(self.call("ip", "-json", "-stats", "link", "show", "cable"))[0]["stats64"]["rx"]["bytes"]

    def close(self):
        self.holder.communicate()


def why_not():
    """Why no nodes can be made here, or None."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return f"no {', '.join(missing)}"
    attempt = "hostname probe && ip link add cable type veth peer name other"
    made = subprocess.run(["unshare", "--net", "--uts", "sh", "-c", attempt], capture_output=True, text=True)
    return None if made.returncode == 0 else made.stderr.strip().partition("\n")[0] or f"status {made.returncode}"


class TwoNodes(JobTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.nodes = []
        for number in range(2):
            cls.nodes.append(Node(f"node{number}", f"{NETWORK}.{number + 1}"))
            cls.addClassCleanup(cls.nodes[-1].close)
        first, second = cls.nodes
        first.call("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second.holder.pid)
        for node in cls.nodes:
            node.call("ip", "address", "add", f"{node.address}/24", "dev", "cable")
            node.call("ip", "link", "set", "cable", "up")
        cls.write_shell(second)
        cls.write_model("model.json", num_hidden_layers=2)
        made = cls.command(*cls.training("one", "--micro-batch-size", 2, steps=STEPS))
        assert made.status == 0, made

    @classmethod
    def write_shell(cls, node):
        """What mpirun calls instead of ssh: HOST COMMAND... As with ssh, the environment is that of a login."""
        cls.shell = cls.folder / "shell"
        inside = " ".join(node.inside("env", "-i", "PATH=$PATH", "sh", "-c"))
        cls.shell.write_text(f'#!/bin/sh\n[ "$1" = {node.address} ] || exit 1\nshift\nexec {inside} "$*"\n')
        cls.shell.chmod(0o755)

    def job_on_both(self, *command, **extra):
        settings = {
            "plm_rsh_agent": self.shell,
            "btl": "tcp,self",
            "btl_tcp_if_include": f"{NETWORK}.0/24",
            "oob_tcp_if_include": f"{NETWORK}.0/24",
            "mpi_yield_when_idle": 1,  # neither node knows that the other one has the same cores
        }
        extra |= {f"OMPI_MCA_{name}": value for name, value in settings.items()}
        result = Started(self.nodes[0].inside(*command), self.folder, extra).wait()
        self.assertEqual(result.status, 0, result)

    def check(self, output, *grid):
        before = [node.received() for node in self.nodes]
        hosts = ",".join(f"{node.address}:{RANKS_PER_NODE}" for node in self.nodes)
        launch = [MPIEXEC, "--host", hosts, "-np", 2 * RANKS_PER_NODE, "--bind-to", "none", "-x", "OMP_NUM_THREADS"]
        words = self.training(output, "--micro-batch-size", 2, *grid, steps=STEPS)
        self.job_on_both(*launch, PROGRAM, *words)
        received = [node.received() - begin for node, begin in zip(self.nodes, before)]
        self.check_nodes(output, RANKS_PER_NODE)
        self.check_same_as_one_process(output)
        return received

    def check_nodes(self, output, ranks_per_node):
        with h5py.File(self.folder / output / "metrics.h5") as file:
            run = dict(file["run"].attrs)
        self.assertEqual(run["hosts"], b"node0,node1")
        sizes = [run[name] for name in ("world_size", "nodes", "ranks_per_node")]
        self.assertEqual(sizes, [2 * ranks_per_node, 2, ranks_per_node])

    def check_same_as_one_process(self, output):
        losses, expected = (self.metrics(name, "train")["loss"] for name in (output, "one"))
        numpy.testing.assert_allclose(losses, expected, rtol=1e-5)
        self.assertFalse(numpy.allclose(losses[1:], expected[:-1], rtol=1e-5), "negative control")
        whole = self.command("inspect", "--verify", self.checkpoint(output, STEPS))
        self.assertEqual(whole.status, 0, whole)
        self.assertIn("checksums: all right", whole.out)
        self.assertLess(relative_error(*(tensors(self.checkpoint(name, STEPS)) for name in (output, "one"))), 1e-5)

    def sent(self, output, kind, ranks):
        """Bytes that these ranks sent in all steps under labels that begin with this."""
        rows = self.metrics(output, "communication")
        return rows["bytes"][numpy.char.startswith(rows["label"], kind) & numpy.isin(rows["rank"], ranks)].sum()

    def test_pipeline_stage_a_node(self):
        received = self.check("pp", "--tp-size", 2, "--pp-size", 2)
        self.assertGreater(received[1], self.sent("pp", b"pp.activation", [0, 1]))
        self.assertGreater(received[0], self.sent("pp", b"pp.gradient", [2, 3]))
        # A tp group is the two ranks of a node: what they send each other stays off the cable.
        self.assertLess(received[1], self.sent("pp", b"tp.", [0, 1]))
        self.assertLess(received[0], self.sent("pp", b"tp.", [2, 3]))

    def test_replica_a_node(self):
        received = self.check("dp", "--tp-size", 2)
        self.assertGreater(received[1], self.sent("dp", b"dp.", [0, 1]))
        self.assertGreater(received[0], self.sent("dp", b"dp.", [2, 3]))

    def test_script(self):
        """jobs/train.sh on the nodes of a host file, one option in the environment, which must reach both."""
        (self.folder / "hosts").write_text("".join(f"{node.address} slots=1\n" for node in self.nodes))
        settings = {
            "HOSTFILE": "hosts", "RANKS": 2, "RANKS_PER_NODE": 1, "LLAMA3D": PROGRAM, "MODEL": "model.json",
            "DATA": "tokens.h5", "OUTPUT_DIR": "script", "STEPS": STEPS, "MICRO_BATCH_SIZE": 2, "GLOBAL_BATCH_SIZE": 4,
            "SEQ_LENGTH": 32, "DEVICE": "cpu", "LLAMA3D_LEARNING_RATE": 0.003,
        }  # fmt: skip
        self.job_on_both(SCRIPT, "--lr-schedule", "constant", "--threads", 1, **settings)
        self.check_nodes("script", 1)
        self.check_same_as_one_process("script")


if __name__ == "__main__":
    reason = why_not()
    if reason:
        print(f"two_nodes_test.py: skipped: no network namespaces here ({reason})")
        sys.exit(SKIPPED)
    main()
