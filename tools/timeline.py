#!/usr/bin/env python3
"""Draws what every rank computed and communicated in a profiled step (`llama3d train --profile-steps FIRST:LAST`).

Writes a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open, and with --png a picture. Times count from
each rank's own begin of the step. Waits are when computing stood still for a communication.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import sys

os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # a running job is never disturbed by its reader
try:
    import h5py
    import numpy
except ModuleNotFoundError as missing:
    sys.stderr.write(f"timeline.py: no Python module {missing.name}; tools/install_packages.sh installs it for "
                     "/usr/bin/python3\n")
    sys.exit(3)

COMPUTE, WAITS = "compute", "waits"
COLORS = {"forward": "#4878a8", "backward": "#8cb468", "backward_input": "#6a9848", "backward_weight": "#c8d8a0",
          "update": "#d8b050", WAITS: "#e0e0e0", "tp": "#803030", "tp.all_gather": "#b85450", "tp.reduce_scatter": "#e0a090",
          "dp": "#503878", "dp.all_gather": "#8064a2", "dp.reduce_scatter": "#b8a8d0", "pp.activation": "#e08030",
          "pp.gradient": "#e0a878", "world": "#606060"}  # fmt: skip


def text(value: bytes) -> str:
    return value.decode()


def read_step(path: pathlib.Path, step: int | None) -> tuple[int, numpy.ndarray]:
    """The rows of one step, the last profiled one unless it is named."""
    with h5py.File(path, "r") as file:
        rows = file["timeline"][:] if "timeline" in file else numpy.empty(0)
    if len(rows) == 0:
        raise ValueError(f"{path}: no timeline (no step was profiled); train with --profile-steps FIRST:LAST")
    steps = sorted(set(rows["step"].tolist()))
    step = steps[-1] if step is None else step
    if step not in steps:
        raise ValueError(f"{path}: step {step} has no timeline; those that have: {', '.join(map(str, steps))}")
    return step, rows[rows["step"] == step]


def title_of(path: pathlib.Path, step: int) -> str:
    with h5py.File(path, "r") as file:
        run = dict(file["run"].attrs)
    return f"{text(run['model'])}, {text(run['method'])}, step {step}"


def lanes_of(rows: numpy.ndarray) -> list[tuple[int, str]]:
    """Rank by rank, computing first."""
    lanes = {(int(r["rank"]), text(r["lane"])) for r in rows}
    return sorted(lanes, key=lambda lane: (lane[0], lane[1] != COMPUTE, lane[1]))


def trace(rows: numpy.ndarray) -> dict:
    """The trace event format: microseconds, a process a rank and a thread a lane."""
    lanes = {lane: number for number, lane in enumerate(lanes_of(rows))}
    events = [{"ph": "M", "name": "thread_name", "pid": rank, "tid": number, "args": {"name": lane}}
              for (rank, lane), number in lanes.items()]  # fmt: skip
    events += [{"ph": "M", "name": "process_name", "pid": rank, "args": {"name": f"rank {rank}"}}
               for rank in sorted({rank for rank, _ in lanes})]  # fmt: skip
    for row in rows:
        rank, micro_batch = int(row["rank"]), int(row["micro_batch"])
        events.append({
            "ph": "X", "name": text(row["name"]) + (f" {micro_batch}" if micro_batch >= 0 else ""),
            "pid": rank, "tid": lanes[rank, text(row["lane"])],
            "ts": row["begin_seconds"] * 1e6, "dur": (row["end_seconds"] - row["begin_seconds"]) * 1e6,
        })  # fmt: skip
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def kind_of(lane: str, name: str) -> str:
    """The colour's name: a label without its last words, down to the group."""
    if lane == WAITS:
        return WAITS
    words = name.split(".")
    while words and ".".join(words) not in COLORS:
        words.pop()
    return ".".join(words) or name


def window(words: str) -> tuple[float, float]:
    """FROM:TO, milliseconds."""
    try:
        begin, end = map(float, words.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{words}' is not FROM:TO, milliseconds of the step, such as 70:90") from None
    if not 0 <= begin < end < math.inf:
        raise argparse.ArgumentTypeError(f"'{words}' must begin at 0 or later, and end after that")
    return begin, end


def draw(rows: numpy.ndarray, title: str, path: pathlib.Path, between: tuple[float, float] | None) -> None:
    """What computing waited for lies over it."""
    try:
        import matplotlib
    except ModuleNotFoundError as missing:
        raise ValueError(f"no Python module {missing.name}; tools/install_packages.sh installs it for "
                         "/usr/bin/python3") from None
    matplotlib.use("Agg")
    from matplotlib import patches, pyplot

    lanes = [lane for lane in lanes_of(rows) if lane[1] != WAITS]
    heights = {lane: y for y, lane in enumerate(lanes)}
    heights |= {(rank, WAITS): y for (rank, lane), y in heights.items() if lane == COMPUTE}
    if between:
        rows = rows[(rows["end_seconds"] * 1e3 > between[0]) & (rows["begin_seconds"] * 1e3 < between[1])]
    figure, axes = pyplot.subplots(figsize=(16, 1.2 + 0.28 * len(lanes)), layout="constrained")
    drawn = {}
    for (rank, lane), y in heights.items():
        mine = rows[(rows["rank"] == rank) & (rows["lane"] == lane.encode())]
        spans = [(r["begin_seconds"] * 1e3, (r["end_seconds"] - r["begin_seconds"]) * 1e3) for r in mine]
        kinds = [kind_of(lane, text(r["name"])) for r in mine]
        colors = [COLORS.get(kind, "#a0a0a0") for kind in kinds]
        drawn.update(zip(kinds, colors))
        axes.broken_barh(spans, (y + 0.1, 0.8), facecolors=colors, edgecolor="white", linewidth=0.2)
    axes.set_yticks([y + 0.5 for y in range(len(lanes))], [f"rank {rank} {lane}" for rank, lane in lanes], fontsize=7)
    axes.invert_yaxis()
    if between:
        axes.set_xlim(between)
    handles = [patches.Patch(color=color, label=kind) for kind, color in sorted(drawn.items())]
    axes.legend(handles=handles, ncols=max(1, len(handles)), loc="lower right", bbox_to_anchor=(1, 1), fontsize=7,
                frameon=False)  # fmt: skip
    axes.set_xlabel("ms since the step's begin")
    axes.set_title(title, fontsize=9, loc="left")
    figure.savefig(path, dpi=120)


@contextlib.contextmanager
def writing(option: str, path: pathlib.Path):
    """What goes wrong names the option."""
    try:
        yield
    except (OSError, ValueError) as error:  # matplotlib: no format of that ending
        raise ValueError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, help="folder of the run, or its metrics.h5")
    parser.add_argument("--step", type=int, help="default: the last that was profiled")
    parser.add_argument("--output", type=pathlib.Path, help="trace (default: timeline.json beside metrics.h5)")
    parser.add_argument("--png", type=pathlib.Path, help="picture")
    parser.add_argument("--window", type=window, metavar="FROM:TO",
                        help="milliseconds of the step that the picture shows (default: all)")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.window and not arguments.png:
        parser.error("--window is of the picture; give --png as well")
    path = arguments.run / "metrics.h5" if arguments.run.is_dir() else arguments.run
    try:
        step, rows = read_step(path, arguments.step)
        end = rows["end_seconds"].max() * 1e3
        if arguments.window and arguments.window[0] >= end:
            raise ValueError(f"--window begins at {arguments.window[0]:g} ms, and step {step} ends at {end:.0f} ms")
        output = arguments.output or path.with_name("timeline.json")
        with writing("--output", output):
            output.write_text(json.dumps(trace(rows)))
        if arguments.png:
            with writing("--png", arguments.png):
                draw(rows, title_of(path, step), arguments.png, arguments.window)
    except (OSError, ValueError) as error:
        print(f"timeline.py: error: {error}", file=sys.stderr)
        return 3
    print(f"step {step}: {len(rows)} spans of {len(set(rows['rank'].tolist()))} ranks in {output}"
          + (f", picture in {arguments.png}" if arguments.png else ""))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
