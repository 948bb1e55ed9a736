#!/usr/bin/env python3
"""The compiler's launcher fails where ptxas notes serialized wgmma instructions, and is not seen otherwise."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

LAUNCHER = Path(__file__).parents[2] / "tools/cmake/fail_on_serialized_wgmma.sh"
NVCC = os.environ.get("NVCC")

# Two GEMMs on registers that are read between them, with no wait: ptxas has to wait after each.
SERIALIZED = """
__global__ void kernel(float* out, unsigned long long a, unsigned long long b) {
  float d[4] = {};
  for (int i = 0; i < 2; ++i) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
    d[0] += 1;
  }
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  out[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}
"""


def launch(*command):
    return subprocess.run([LAUNCHER, *command], capture_output=True, text=True, timeout=100)


class SerializedWgmma(unittest.TestCase):
    def test_a_note_fails(self):
        note = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ..."
        done = launch("sh", "-c", f"echo before; echo '{note}' >&2; echo after")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(sorted(done.stderr.splitlines()), sorted(["before", note, "after"]))

    def test_anything_else_is_the_compilers(self):
        for status in (0, 3):
            done = launch("sh", "-c", f"echo 'ptxas info    : Used 168 registers' >&2; exit {status}")
            self.assertEqual(done.returncode, status)
            self.assertEqual(done.stderr, "ptxas info    : Used 168 registers\n")

    @unittest.skipUnless(NVCC, "NVCC names no CUDA compiler")
    def test_the_compilers_own_note(self):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "serialized.cu"
            source.write_text(SERIALIZED)
            command = [NVCC, "-arch=sm_90a", "-cubin", "-o", source.with_suffix(".cubin"), source]
            self.assertEqual(subprocess.run(command, capture_output=True, timeout=100).returncode, 0)
            done = launch(*command)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("serialized", done.stderr)


if __name__ == "__main__":
    unittest.main()
