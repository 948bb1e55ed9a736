"""The plots of report.py. Each returns a PNG as bytes, or None when the runs hold nothing to draw."""

from __future__ import annotations

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from metrics_file import PHASES, Run, rows_of_steps  # noqa: E402

# Okabe and Ito, "Color universal design", 2008: told apart by all readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PHASE_COLOURS = dict(zip(PHASES, ("#0072B2", "#E69F00", "#D55E00", "#CC79A7", "#009E73", "#56B4E9", "#BBBBBB")))
PHASE_LABELS = {"tp": "TP communication", "pp": "PP communication", "dp": "DP communication"}
MOST_RANK_LABELS = 32


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def finish(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")


def mark_resumes(axes: Any, run: Run, run_colour: str) -> None:
    for step in run.resumed_steps():
        axes.axvline(step, color=run_colour, linestyle=":", linewidth=1)


def loss(runs: list[Run], unigram_entropy: float | None) -> bytes:
    """Training and validation loss by step; dotted lines where a run resumed."""
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for index, run in enumerate(runs):
        axes.plot(run.train["step"], run.train["loss"], color=colour(index), linewidth=1, label=run.name)
        if run.tables["valid"].size:
            axes.plot(run.column("valid", "step"), run.column("valid", "loss"), color=colour(index), marker="o",
                      markersize=4, linestyle="--", label=f"{run.name}, validation")
        mark_resumes(axes, run, colour(index))
    if unigram_entropy is not None:
        axes.axhline(unigram_entropy, color="#666666", linewidth=1, linestyle="-.", label="unigram entropy of the data")
    finish(axes, "step", "loss (nats a token)")
    return png(figure)


def throughput(runs: list[Run], unit: str) -> bytes:
    """Tokens a second by step, and below it MFU where a run has it."""
    utilization = [run.column("train", "mfu") for run in runs]
    has_mfu = any(np.isfinite(values).any() and np.nanmax(values) > 0 for values in utilization if values.size)
    figure, panels = plt.subplots(1 + has_mfu, 1, figsize=(9, 3.2 * (1 + has_mfu)), sharex=True, squeeze=False,
                                  layout="constrained")
    top, bottom = panels[0, 0], panels[-1, 0]
    for index, run in enumerate(runs):
        style = dict(color=colour(index), linewidth=1, label=run.name)
        top.plot(run.train["step"], run.train["tokens_per_second_per_gpu"], **style)
        mark_resumes(top, run, colour(index))
        if has_mfu and utilization[index].size:
            bottom.plot(run.train["step"], 100 * utilization[index], **style)
    finish(top, "" if has_mfu else "step", f"tokens / s / {unit}")
    top.set_ylim(bottom=0)
    if has_mfu:
        finish(bottom, "step", "MFU (%)")
        bottom.set_ylim(bottom=0)
    return png(figure)


def mean_by_rank(run: Run, steps: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Ranks, and for each phase the mean seconds a step of each rank, over `steps` where any of them was recorded."""
    rows = rows_of_steps(run.tables["ranks"], steps)
    ranks, group = np.unique(rows["rank"], return_inverse=True)
    names = [p for p in PHASES if f"{p}_seconds" in rows.dtype.names]
    sums = {p: np.bincount(group, weights=np.nan_to_num(rows[f"{p}_seconds"])) for p in names}
    return ranks, {p: total / np.bincount(group) for p, total in sums.items()}


def phases(runs: list[Run], steps: list[np.ndarray]) -> bytes | None:
    """Stacked bars of where each rank's time goes; a panel a run."""
    shown = [(run, s) for run, s in zip(runs, steps) if run.tables["ranks"].size]
    if not shown:
        return None
    figure, panels = plt.subplots(len(shown), 1, figsize=(9, 3.4 * len(shown)), squeeze=False, layout="constrained")
    for axes, (run, counted) in zip(panels[:, 0], shown):
        ranks, seconds = mean_by_rank(run, counted)
        bottom = np.zeros(ranks.size)
        for phase, values in seconds.items():
            axes.bar(np.arange(ranks.size), values, 0.8, bottom, color=PHASE_COLOURS[phase],
                     label=PHASE_LABELS.get(phase, phase))
            bottom += values
        if ranks.size <= MOST_RANK_LABELS:
            axes.set_xticks(np.arange(ranks.size), ranks)
        axes.set_title(run.name, fontsize="medium")
        finish(axes, "rank", "seconds a step")
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)
