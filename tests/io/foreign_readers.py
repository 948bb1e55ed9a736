"""Reads our files with h5py, pandas and h5dump: samples of each kind, and a metrics file while it is written.

usage: foreign_readers.py SAMPLE_WRITER
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np
import pandas as pd


def check(condition, what):
    if not condition:
        sys.exit(f"failed: {what}")


def h5dump(*arguments):
    return subprocess.run(["h5dump", *arguments], check=True, capture_output=True, text=True).stdout


def expected_tensors(text):
    tensors = {}
    for line in text.splitlines():
        name, *values = line.split()
        tensors[name] = np.array(values, dtype=np.float64)
    return tensors


def holds(file, tensors):
    return all(
        np.array_equal(file[name][...].astype(np.float64).ravel(), values)
        for name, values in tensors.items()
    )


def test_checkpoint(folder, tensors):
    with h5py.File(f"{folder}/checkpoint.h5", "r") as file:
        check(len(tensors) == 6, "six tensors")
        check(file["/model/model.embed_tokens.weight"].shape == (37, 23), "global shape")
        check(file["/model/model.norm.weight"].shape == (50,), "one-dimensional tensors stay so")
        check(holds(file, tensors), "tensors as written")
        check(file.attrs["step"] == 100, "integer attribute")
        check(file.attrs["learning_rate"] == 0.25, "float attribute")
        check(file.attrs["config"] in ("[model]\nlayers = 2", b"[model]\nlayers = 2"), "string attribute")
        check(file["manifest"][()].startswith(b'{"format":"llama3d checkpoint"'), "manifest")
        wrong = dict(tensors)
        wrong["/model/model.row"] = tensors["/model/model.row"] + 1
        check(not holds(file, wrong), "the comparison sees a wrong element")


def test_samples(writer, folder):
    out = subprocess.run([writer, "samples", folder], check=True, capture_output=True, text=True).stdout
    tensors = expected_tensors(out)
    test_checkpoint(f"{folder}/checkpoint", tensors)
    os.mkdir(f"{folder}/elsewhere")
    shutil.move(f"{folder}/checkpoint", f"{folder}/elsewhere/moved")
    os.chdir("/")
    test_checkpoint(f"{folder}/elsewhere/moved", tensors)
    dump = h5dump("-d", "/model/model.layers.0.mlp.up_proj.weight", f"{folder}/elsewhere/moved/checkpoint.h5")
    check("16-bit little-endian floating-point" in dump and "(63,0)" in dump, "h5dump prints bf16")
    with h5py.File(f"{folder}/tokens.h5", "r") as file:
        check(list(file["tokens"][:5]) == [256, 72, 105, 257, 65], "tokens")
        check(list(file["documents"][...]) == [0, 4, 100004], "documents")
        check(file["loss_mask"][...].sum() == 100003, "loss mask")


def read_live(path, least):
    """The rows of /train. A read that meets the writer in the middle of a flush may fail, so it tries again."""
    for attempt in range(5):
        try:
            with h5py.File(path, "r") as file:
                rows = file["train"][...]
            break
        except (OSError, KeyError):
            check(attempt < 4, "h5py reads the live file")
    check(len(rows) > least, "h5py sees every flushed row")
    check(np.array_equal(rows["step"], np.arange(len(rows))), "steps in order")
    check(np.allclose(rows["loss"], 1 / (rows["step"] + 1.0), rtol=0), "losses as written")
    return rows


def test_live(writer, path):
    process = subprocess.Popen([writer, "live", path], stdout=subprocess.PIPE, text=True)
    flushed = -1
    reads = 0
    start = time.time()
    try:
        while flushed < 600:
            flushed = int(process.stdout.readline())
            if flushed % 20 == 19:
                read_live(path, flushed)
                reads += 1
        check(reads > 20, "live reads")
        frame = pd.read_hdf(path, "train")
        check(len(frame) > flushed and list(frame["step"][:3]) == [0, 1, 2], "pandas reads the live file")
        dump = h5dump("-d", "train", "-s", "500", "-c", "1", path)
        check("500" in dump and "5000" in dump, "h5dump prints a row of the live file")
        # A reader that stays open must not stop the writer.
        with h5py.File(path, "r"):
            flushed = int(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split("\n")
    process.wait()
    flushed = max([flushed] + [int(line) for line in rest[:-1]])
    rows = read_live(path, flushed)
    with h5py.File(path, "r") as file:
        check(file["events"][0]["text"].decode() == "gr\u00fc\u00df dich", "UTF-8 text")
        command = file["run"].attrs["command"]
        check(command in ("llama3d train --steps 1000", b"llama3d train --steps 1000"), "attribute")
        check(file["train"].attrs["step_seconds_unit"] in ("s", b"s"), "unit")
    for table in ("train", "events", "ranks", "communication", "valid"):
        pd.read_hdf(path, table)
    seconds = time.time() - start
    print(f"{reads} live reads of up to {len(rows)} rows in {seconds:.1f} s, killed after row {flushed}")


def main():
    writer = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        test_samples(writer, folder)
        test_live(writer, f"{folder}/metrics.h5")


main()
