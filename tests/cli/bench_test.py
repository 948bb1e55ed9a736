"""`llama3d bench`: what it prints and the file it leaves, on the CPU."""

import h5py
import numpy
import pandas

from jobs import JobTest, main


class Bench(JobTest):
    def bench(self, what, *more, ranks=1):
        result = self.job(
            ranks, "bench", what, "--model", "model.json", "--seq-length", 32, "--device", "cpu", "--threads", 1,
            "--repeats", 3, "--warmup", 1, "--output", f"{what}.h5", *more,
        )  # fmt: skip
        self.assertEqual(result.status, 0, result)
        with h5py.File(self.folder / f"{what}.h5", "r") as file:
            rows = file["bench"][:]
            attributes = dict(file.attrs) | dict(file["bench"].attrs)
        self.assertIn("device", attributes)
        self.assertIn("git_revision", attributes)
        # Every printed row is in the file, and its rate is its work over its seconds.
        for row in rows:
            self.assertIn(row["name"].decode(), result.out)
        self.assertTrue((rows["seconds"] > 0).all())
        numpy.testing.assert_allclose(rows["rate"], rows["work"] / rows["seconds"], rtol=1e-9)
        numpy.testing.assert_allclose(rows["fraction"], rows["rate"] / rows["ceiling"], rtol=1e-9)
        self.assertEqual(len(pandas.read_hdf(self.folder / f"{what}.h5", "bench")), len(rows))
        return rows, result

    def test_kernels(self):
        rows, _ = self.bench("kernels", "--precision", "bf16")
        names = {name.decode() for name in rows["name"]}
        self.assertLessEqual(
            {"copy", "add_rms_norm_forward", "rms_norm_backward", "rope_forward", "swiglu_backward", "adamw"}, names
        )
        self.assertEqual({unit.decode() for unit in rows["unit"]}, {"byte"})
        norm = rows[[name == b"rms_norm_forward" for name in rows["name"]]][0]
        # One micro-batch of 32 rows of 32 bf16 in and out, and what a row's statistics and the weights add.
        self.assertGreaterEqual(norm["work"], 2 * 32 * 32 * 2)
        self.assertLess(norm["work"], 2.2 * 32 * 32 * 2)

    def test_gemm(self):
        rows, _ = self.bench("gemm")
        self.assertEqual(len(rows), 15, "five GEMMs, forward and two gradients")
        qkv = rows[[name == b"qkv, forward" for name in rows["name"]]][0]
        self.assertEqual(qkv["work"], 2 * 32 * 32 * (32 + 2 * 16))

    def test_attention(self):
        rows, _ = self.bench("attention")
        self.assertEqual([name.decode() for name in rows["name"]], ["forward", "backward"])
        # Causal: half of a square of 32 x 32 in two GEMMs; backward has five.
        numpy.testing.assert_allclose(rows["work"], [2 * 2 * 32 * 32 * 32 / 2, 2 * 5 * 32 * 32 * 32 / 2], rtol=0.1)

    def test_step(self):
        rows, result = self.bench("step", "--global-batch-size", 4, "--steps", 2, "--tp-size", 2, ranks=2)
        self.assertEqual([row["unit"].decode() for row in rows], ["token"])
        self.assertEqual(rows["work"][0], 4 * 32)
        self.assertRegex(result.out, r"memory: planned \S+ \S+, in use \S+ \S+")

    def test_refusals(self):
        for words, text in (
            (["everything"], "everything"),
            (["step", "--repeats", 0], "--repeats 0"),
            (["kernels", "--model", "no_such"], "no_such"),
            (["gemm", "--output", "model.json/below/a/file.h5"], "model.json"),
        ):
            with self.subTest(words=words):
                result = self.job(1, "bench", *words, "--device", "cpu")
                self.assertNotEqual(result.status, 0)
                lines = result.error_lines()
                self.assertEqual(len(lines), 1, result)
                self.assertIn(text, lines[0])
                self.assertEqual(result.out, "", "nothing was timed")


class NoGpu(JobTest):
    def test_one_clear_line(self):
        """Whether built with CUDA or not; hidden GPUs are as good as none."""
        result = self.job(1, *self.training("out", "--device", "cuda"), CUDA_VISIBLE_DEVICES="")
        self.assertEqual(result.status, 2, result)
        self.assertEqual(len(result.error_lines()), 1, result)
        self.assertRegex(result.err, r"--device cuda: (this llama3d was built without CUDA|no GPU can be used)")
        self.assertFalse((self.folder / "out").exists())


if __name__ == "__main__":
    main()
