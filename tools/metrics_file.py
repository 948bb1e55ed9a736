"""Reading of metrics.h5, which `llama3d train` writes: finished runs and live ones."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # a running job is never disturbed by its reader
import h5py  # noqa: E402
import numpy as np  # noqa: E402

TABLES = ("train", "valid", "ranks", "communication", "events")
PHASES = ("compute", "tp", "pp", "dp", "optimizer", "data", "idle")
TRAIN_COLUMNS = ("step", "loss", "step_seconds", "tokens_per_second_per_gpu")


class MetricsError(Exception):
    """One line: problem (why); what to do."""


@dataclasses.dataclass
class Run:
    name: str
    path: pathlib.Path
    attributes: dict[str, Any]  # of /run
    tables: dict[str, np.ndarray]  # TABLES; one-dimensional, structured, empty where the file has none

    @property
    def train(self) -> np.ndarray:
        return self.tables["train"]

    def column(self, table: str, name: str) -> np.ndarray:
        """A column, or an empty array when the table lacks it."""
        rows = self.tables[table]
        return rows[name] if name in (rows.dtype.names or ()) else np.zeros(0)

    def number(self, name: str) -> float | None:
        """A numeric attribute of /run, or None."""
        value = self.attributes.get(name)
        return value if isinstance(value, (int, float)) and np.isfinite(value) else None

    def setting(self, name: str) -> Any:
        """A resolved option by its name on the command line, without the dashes in front; None if unknown."""
        return find_setting(configuration(self), name)

    def resumed_steps(self) -> list[int]:
        return [step for step, _, kind, _ in self.events() if kind == "resume"]

    def events(self) -> list[tuple[int, int, str, str]]:
        """(step, time_ns, kind, text)"""
        rows = self.tables["events"]
        return [(int(r["step"]), int(r["time_ns"]), text(r["kind"]), text(r["text"])) for r in rows]


def text(value: Any) -> str:
    """Of a stranger's file, too: without what a terminal would obey."""
    shown = value.decode("utf-8", "replace").rstrip("\0 ") if isinstance(value, bytes) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def plain(value: Any) -> Any:
    """An HDF5 attribute as a Python value."""
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, np.ndarray):
        return plain(value.item()) if value.size == 1 else [plain(v) for v in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value


def configuration(run: Run) -> dict[str, Any]:
    try:
        value = json.loads(run.attributes.get("configuration") or "{}")
    except (TypeError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def find_setting(settings: dict[str, Any], name: str) -> Any:
    """Looks in sections too, and takes {"value": ..., "origin": ...} for its value."""
    for key, value in settings.items():
        if key.replace("_", "-") == name:
            return value["value"] if isinstance(value, dict) and "value" in value else value
    for value in settings.values():
        found = find_setting(value, name) if isinstance(value, dict) else None
        if found is not None:
            return found
    return None


def resolve(path: pathlib.Path) -> pathlib.Path:
    """The file of a run given as the file or as the run's output folder."""
    return path / "metrics.h5" if path.is_dir() else path


def open_file(path: pathlib.Path) -> h5py.File:
    if not path.exists():
        raise MetricsError(f"{path} can't be read (no such file); give a metrics.h5 or a run's --output-dir")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise MetricsError(f"{path} can't be read ({reason}); give a metrics.h5 or a run's --output-dir") from None


def last_of_each_step(rows: np.ndarray) -> np.ndarray:
    """In order of steps; a step done again after a resume counts as it was done last."""
    if rows.size == 0:
        return rows
    _, first_from_behind = np.unique(rows["step"][::-1], return_index=True)
    return rows[rows.size - 1 - first_from_behind]


def rows_of_steps(rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The rows of `steps`, or all where none of them was recorded."""
    counted = np.isin(rows["step"], steps)
    return rows[counted] if counted.any() else rows


def read_table(file: h5py.File, name: str) -> np.ndarray:
    if name not in file:
        return np.zeros(0, dtype=[("step", "i8")])
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise MetricsError(f"{file.filename} has no table /{name} (a link is there); is it llama3d's metrics file?")
    table = file[name]
    if not isinstance(table, h5py.Dataset) or table.dtype.names is None or table.ndim != 1:
        raise MetricsError(f"{file.filename} has no table /{name} ({table} is there); is it llama3d's metrics file?")
    if table.external or table.is_virtual:
        raise MetricsError(f"{file.filename} has no table /{name} of its own (its rows are in another file)")
    rows = table[:]
    # A kill between a table's new length and its new rows leaves some with the fill value's step, -1.
    return rows[rows["step"] >= 0] if "step" in table.dtype.names else rows


def load_run(path: pathlib.Path, name: str | None = None) -> Run:
    """Raises MetricsError."""
    path = resolve(path)
    with open_file(path) as file:
        if "train" not in file:
            raise MetricsError(f"{path} is no metrics file (it has no table /train); give what `llama3d train` wrote")
        try:
            tables = {table: read_table(file, table) for table in TABLES}
            attributes = {k: plain(v) for k, v in file["run"].attrs.items()} if "run" in file else {}
        except (OSError, RuntimeError) as error:
            raise MetricsError(f"{path} is damaged ({str(error).splitlines()[0]}); read a copy or an older run") from None
    for column in TRAIN_COLUMNS:
        if column not in tables["train"].dtype.names:
            raise MetricsError(f"{path} has no column {column} in /train (another program or version wrote it)")
    tables["train"] = last_of_each_step(tables["train"])
    if tables["train"].size == 0:
        raise MetricsError(f"{path} holds no step yet (the run stopped or is still in its first); try again later")
    return Run(name or path.resolve().parent.name, path, attributes, tables)
