#!/usr/bin/env python3
"""tools/check_includes.py on small trees: each rule broken once, and one tree that breaks none."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).resolve().parents[2] / "tools" / "check_includes.py"
SOUND = {
    "src/base/error.hpp": "#pragma once\n#include <string>\n",
    "src/compute/tensor.hpp": '#pragma once\n#include "base/error.hpp"\n',
    "src/compute/host/kernels.hpp": '#include "compute/tensor.hpp"\n',
    "mpi/session.cpp": "#include <mpi.h>\n",
    "io/file.hpp": "#include <hdf5.h>\n",
    "src/data/dataset.hpp": '#include "io/file.hpp"\n',
    "src/model/layer.cpp": '#include "layer.hpp"\n#include "compute/tensor.hpp"\n',
    "src/model/layer.hpp": "#pragma once\n",
    "src/cli/device_factory.cpp": '#if LLAMA3D_CUDA\n#include "cuda/device.hpp"\n#endif\n#include "compute/host/kernels.hpp"\n',
    "cuda/device.hpp": '#include <cuda_runtime.h>\n#include "comm/grid.hpp"\n',
    "src/comm/grid.hpp": "",
}


class CheckIncludesTest(unittest.TestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = pathlib.Path(holder.name)
        for name, text in SOUND.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def check(self, *arguments: str) -> tuple[int, list[str]]:
        result = subprocess.run([sys.executable, str(CHECK), "--root", str(self.root), *arguments], capture_output=True,
                                text=True)
        self.assertEqual(result.stderr, "")
        return result.returncode, result.stdout.splitlines()

    def test_sound_tree(self) -> None:
        self.assertEqual(self.check(), (0, []))

    def test_each_rule(self) -> None:
        broken = [
            ("src/base/up.hpp", '#include "compute/tensor.hpp"', "base lies not above compute"),
            ("io/model.cpp", '#include "model/layer.hpp"', "io lies not above model"),
            ("src/compute/up.cpp", '#include "compute/host/kernels.hpp"', "compute lies not above host"),
            ("src/data/up.cpp", '#  include "train/missing.hpp"', "data lies not above train"),
            ("src/cli/train.cpp", '#include "cuda/device.hpp"', "only the file that makes the device"),
            ("src/model/net.cpp", "#include <mpi.h>", "only mpi may include it"),
            ("src/train/save.cpp", "#include <hdf5.h>", "only io may include it"),
            ("src/compute/gpu.cpp", "#include <cuda_runtime.h>", "only cuda may include it"),
            ("src/parallel/switch.cpp", "#ifdef LLAMA3D_CUDA", "no conditional compilation in parallel"),
        ]
        for name, text, problem in broken:
            with self.subTest(name):
                self.write(name, "\n" + text + "\n")
                status, lines = self.check()
                self.assertEqual((status, len(lines)), (1, 1), lines)
                self.assertTrue(lines[0].startswith(f"{name}:2: "), lines)
                self.assertIn(problem, lines[0])
                (self.root / name).unlink()

    def test_empty_tree_fails(self) -> None:
        with tempfile.TemporaryDirectory() as empty:
            self.root = pathlib.Path(empty)
            self.assertEqual(self.check()[0], 1)

    def test_headers_alone(self) -> None:
        for name in list(SOUND):
            if name.startswith(("cuda", "mpi", "io", "src/data")):
                self.write(name, "")
        database = self.root / "compile_commands.json"
        words = f"/usr/bin/ccache /usr/bin/c++ -I{self.root}/src -I{self.root} -O3 -std=c++20 -c src/model/layer.cpp"
        database.write_text(json.dumps([{"file": "src/model/layer.cpp", "directory": str(self.root), "command": words}]))
        self.assertEqual(self.check("--compile", str(database)), (0, []))
        self.write("src/model/needy.hpp", "inline std::string name() { return {}; }\n")
        status, lines = self.check("--compile", str(database))
        self.assertEqual((status, len(lines)), (1, 1), lines)
        self.assertIn("src/model/needy.hpp: does not compile alone", lines[0])


if __name__ == "__main__":
    unittest.main()
