"""Runs llama3d for the scripts here that compare it with others."""

from __future__ import annotations

import os
import pathlib
import subprocess

ROOT_IN_CONTAINER = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Program:
    """llama3d, working in a folder. A run that fails ends the script with what it said."""

    def __init__(self, path: pathlib.Path, folder: pathlib.Path):
        self.path, self.folder = path.absolute(), folder

    def run(self, *words: object, ranks: int = 1) -> str:
        command = [self.path, *words] if ranks == 1 else ["mpirun", "--quiet", "--oversubscribe", "--bind-to", "none", "-np",
                                                          ranks, self.path, *words]
        done = subprocess.run([str(word) for word in command], cwd=self.folder, text=True, capture_output=True,
                              env=os.environ | ROOT_IN_CONTAINER)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return done.stdout
