#!/usr/bin/env python3
"""Reports on training runs: a table of throughput, plots, and one HTML page that holds everything.

Takes the metrics.h5 of one run or several, finished or still running. Writes report.html, loss.png, throughput.png
and phases.png, and prints the table. Exit status 3 when a file can't be read.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import html
import math
import pathlib
import sys
from typing import Any

try:
    import h5py
    import numpy as np

    from metrics_file import MetricsError, Run, load_run, rows_of_steps, text
except ModuleNotFoundError as missing:
    sys.stderr.write(f"report.py: no Python module {missing.name}; tools/install_packages.sh installs it for "
                     "/usr/bin/python3\n")
    sys.exit(3)

UNKNOWN = "-"
COMMUNICATION_HEADS = ["label", "bytes/step/rank", "sec/step", "exposed sec/step", "hidden"]
HIDDEN = "hidden: the share of its time in which nothing on the rank stood still for it"
STYLE = """body{font:15px/1.45 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child,.text td,.text th{text-align:left}.text td{overflow-wrap:anywhere;vertical-align:top}
img{max-width:100%}summary{cursor:pointer}"""


# --- figures of a run ------------------------------------------------------------------------------------------


def counted_rows(run: Run, skip: int) -> np.ndarray:
    """The rows of /train that speed is measured on: neither the first `skip` after the start nor those after a
    resume, which warm up; of a run with no others, its later half."""
    steps = run.train["step"]
    warm = np.ones(steps.size, dtype=bool)
    warm[:skip] = False
    for resumed in run.resumed_steps():
        warm &= ~((steps > resumed) & (steps <= resumed + skip))
    return run.train[warm] if warm.any() else run.train[steps.size // 2 :]


def median(values: np.ndarray) -> float | None:
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None


def peak_memory(run: Run) -> float | None:
    """Bytes of the rank that took most."""
    for table, column in (("ranks", "memory_bytes"), ("train", "peak_memory_bytes")):
        values = run.column(table, column)
        if values.size and np.nanmax(values) > 0:
            return float(np.nanmax(values))
    return None


def number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def method(run: Run) -> str:
    return run.attributes.get("method") or run.name


def unit(runs: list[Run]) -> str:
    return "GPU" if all("cuda" in device_kind(run) for run in runs) else "rank"


def device_kind(run: Run) -> str:
    return f"{run.setting('device') or ''} {run.attributes.get('device', '')}".lower().replace("gpu", "cuda")


def size(value: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    power = max(0, min(int(math.log(value, 1024)), len(units) - 1)) if value > 0 else 0
    return f"{value / 1024**power:.2f} {units[power]}"


def heads(runs: list[Run]) -> list[str]:
    per = unit(runs)
    return ["run", "method", "mbs", "grad acc", "global bs", "seqlen", f"{per} memory", "sec/iter",
            f"tokens/sec/{per}", "MFU"]


def table_row(run: Run, skip: int) -> list[str]:
    rows = counted_rows(run, skip)
    memory = peak_memory(run)
    mfu = median(rows["mfu"]) if "mfu" in rows.dtype.names else None
    sizes = ("micro_batch_size", "gradient_accumulation", "global_batch_size", "sequence")
    return [
        run.name,
        method(run),
        *(number(run.number(name), ".0f") for name in sizes),
        UNKNOWN if memory is None else size(memory),
        number(median(rows["step_seconds"]), ".4g"),
        number(median(rows["tokens_per_second_per_gpu"]), ",.0f"),
        f"{100 * mfu:.1f} %" if mfu else UNKNOWN,
    ]


def communication_rows(run: Run, skip: int) -> list[list[str]]:
    """What each label that moves something took: means over all ranks and the counted steps, and the share of its time
    in which nothing stood still for it. Empty where the file says nothing of that."""
    rows = rows_of_steps(run.tables["communication"], counted_rows(run, skip)["step"])
    if rows.size == 0:
        return []
    times = np.unique(rows["step"]).size * np.unique(rows["rank"]).size
    cells = []
    for label in np.unique(rows["label"]):
        of_label = rows[rows["label"] == label]
        moved, seconds, exposed = (of_label[name].sum() / times for name in ("bytes", "seconds", "exposed_seconds"))
        hidden = f"{100 * max(0, 1 - exposed / seconds):.1f} %" if seconds > 0 else UNKNOWN
        if moved > 0:
            cells.append([text(label), f"{moved:,.0f}", f"{seconds:.4g}", f"{exposed:.4g}", hidden])
    return cells


def unigram_entropy(path: pathlib.Path) -> float:
    """Nats a token of a token file, every token guessed from how often it occurs: what a model must beat."""
    try:
        with h5py.File(path, "r") as file:
            counts = np.bincount(file["tokens"][:])
    except (OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise MetricsError(f"--tokens {path} can't be read ({reason}); give what `llama3d tokenize` wrote") from None
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def summary_lines(run: Run, entropy: float | None) -> list[str]:
    last = run.train[-1]
    lines = [f"{run.name}: step {last['step']}, loss {last['loss']:.4f}"]
    losses = run.column("valid", "loss")
    if losses.size and np.isfinite(losses[-1]):
        lines[0] += f", validation loss {losses[-1]:.4f} (perplexity {math.exp(min(losses[-1], 700)):.4g})"
        if entropy is not None:
            relation = "below" if losses[-1] < entropy else "NOT below"
            lines.append(f"{run.name}: validation loss {losses[-1]:.4f} is {relation} the unigram entropy "
                         f"{entropy:.4f} of the data")
    if run.resumed_steps():
        lines.append(f"{run.name}: resumed after step {', '.join(map(str, run.resumed_steps()))}")
    peak, source = run.number("peak_flops"), run.attributes.get("peak_source")
    if peak:
        lines.append(f"{run.name}: MFU against {peak / 1e12:.4g} TFLOP/s a {unit([run])}" + f" ({source})" * bool(source))
    return lines


# --- output ----------------------------------------------------------------------------------------------------


def text_table(rows: list[list[str]], left: int = 2) -> str:
    """The first `left` columns begin at the left, the others end at the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def html_table(rows: list[list[Any]], style: str = "") -> str:
    def line(cells: list[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return f'<table class="{style}">' + line(rows[0], "th") + "\n".join(line(r, "td") for r in rows[1:]) + "</table>"


def communication_text(run: Run, skip: int) -> list[str]:
    rows = communication_rows(run, skip)
    return [f"\n{run.name}: communication ({HIDDEN})", text_table([COMMUNICATION_HEADS, *rows], 1)] if rows else []


def html_run(run: Run, skip: int) -> str:
    times = [datetime.datetime.fromtimestamp(t / 1e9).strftime("%Y-%m-%d %H:%M:%S") for _, t, _, _ in run.events()]
    events = [[step, time, kind, text] for time, (step, _, kind, text) in zip(times, run.events())]
    parts = [f"<h2>{html.escape(run.name)}</h2><p>{html.escape(str(run.path))}</p>"]
    communication = communication_rows(run, skip)
    if communication:
        parts.append(f"<h3>Communication</h3><p>{HIDDEN}</p>" + html_table([COMMUNICATION_HEADS, *communication]))
    if events:
        parts.append("<h3>Events</h3>" + html_table([["step", "time", "kind", "what"], *events], "text"))
    attributes = [[name, value] for name, value in sorted(run.attributes.items())]
    parts.append("<details><summary>The run's attributes</summary>")
    parts.append(html_table([["attribute", "value"], *attributes], "text") + "</details>")
    return "\n".join(parts)


def html_page(runs: list[Run], rows: list[list[str]], lines: list[str], images: dict[str, bytes], skip: int) -> str:
    pictures = "\n".join(
        f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(data).decode()}">' for name, data in images.items())
    sentences = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    body = [html_table(rows), f"<ul>{sentences}</ul>", pictures, *(html_run(run, skip) for run in runs)]
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>llama3d report</title>'
            f"<style>{STYLE}</style></head><body><h1>llama3d report</h1>\n" + "\n".join(body) + "</body></html>\n")


def draw(runs: list[Run], skip: int, entropy: float | None) -> dict[str, bytes]:
    try:
        import report_figures  # matplotlib takes a second to load: only for those who want plots
    except ModuleNotFoundError as missing:
        raise MetricsError(f"no Python module {missing.name}; tools/install_packages.sh installs it for "
                           "/usr/bin/python3, or use --table-only") from None
    steps = [counted_rows(run, skip)["step"] for run in runs]
    images = {
        "loss": report_figures.loss(runs, entropy),
        "throughput": report_figures.throughput(runs, unit(runs)),
        "phases": report_figures.phases(runs, steps),
    }
    return {name: data for name, data in images.items() if data is not None}


def write_files(folder: pathlib.Path, page: str, images: dict[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in images.items():
            (folder / f"{name}.png").write_bytes(data)
        (folder / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise MetricsError(f"--output-dir {folder} can't be written ({error.strerror}); choose another") from None


def distinct_names(runs: list[Run]) -> None:
    """Runs of one folder name get a number behind it."""
    names = [run.name for run in runs]
    for index, run in enumerate(runs):
        if names.count(run.name) > 1:
            run.name = f"{run.name} ({names[: index + 1].count(names[index])})"


def load_runs(arguments: argparse.Namespace) -> list[Run]:
    names = arguments.names or [None] * len(arguments.runs)
    if len(names) != len(arguments.runs):
        raise MetricsError(f"--names has {len(names)} names for {len(arguments.runs)} runs; give one a run")
    runs = [load_run(path, name) for path, name in zip(arguments.runs, names)]
    distinct_names(runs)
    return runs


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN", help="a metrics.h5, or a run's output folder")
    parser.add_argument("--output-dir", type=pathlib.Path, help="folder of the report (default: report/ beside the first file)")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the runs (default: their folders)")
    parser.add_argument("--skip-steps", type=int, default=5, metavar="N",
                        help="steps at each start that count for no median (default: %(default)s)")
    parser.add_argument("--tokens", type=pathlib.Path, metavar="FILE.h5",
                        help="token file whose unigram entropy the loss is compared with (default: none)")
    parser.add_argument("--table-only", action="store_true", help="print the table, write nothing")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    try:
        runs = load_runs(arguments)
        entropy = unigram_entropy(arguments.tokens) if arguments.tokens else None
        rows = [heads(runs), *(table_row(run, arguments.skip_steps) for run in runs)]
        lines = [line for run in runs for line in summary_lines(run, entropy)]
        tables = [part for run in runs for part in communication_text(run, arguments.skip_steps)]
        print(text_table(rows), *lines, *tables, sep="\n")
        if not arguments.table_only:
            folder = arguments.output_dir or runs[0].path.parent / "report"
            images = draw(runs, arguments.skip_steps, entropy)
            write_files(folder, html_page(runs, rows, lines, images, arguments.skip_steps), images)
            print(f"wrote {folder / 'report.html'}")
    except MetricsError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
