"""Plots of throughput and p99 against the number of users: one picture for each tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: no display is needed

from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks.report import words
from benchmarks.results import Row, Run, Summary
from benchmarks.targets import YARDSTICK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart with every kind of colour vision.  The yardstick is black.
COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D00")
MARKERS = ("s", "^", "D", "v", "P", "X", "*")
DPI = 160
WIDE_RANGE = 15  # of the values on an axis; beyond it, a linear axis would crush the small ones

METRICS = (("throughput", "requests per second"), ("p99_ms", "p99 latency, ms"))


def write_plots(output: Path, summary: Summary) -> list[Path]:
    """Write ``users-<tool>.png`` for each tool that measured more than one number of users."""
    rows = summary.rows
    styles = _styles(rows)
    files = []
    for old in output.glob("users-*.png"):  # an earlier comparison may have used more tools
        old.unlink()
    for tool in dict.fromkeys(row.tool for row in rows):
        workloads = [
            name
            for name in dict.fromkeys(row.workload for row in rows if row.tool == tool)
            if len({row.users for row in rows if row.tool == tool and row.workload == name}) > 1
        ]
        if workloads:
            files.append(_draw(output / f"users-{tool}.png", tool, workloads, summary, styles))
    return files


Styles = dict[str, tuple[str, str]]


def _styles(rows: Sequence[Row]) -> Styles:
    """Colour and marker of each target, the same in every picture."""
    others = [name for name in dict.fromkeys(row.target for row in rows) if name != YARDSTICK]
    styles = {
        name: (COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
        for number, name in enumerate(others)
    }
    return {YARDSTICK: ("#000000", "o"), **styles}


def _draw(file: Path, tool: str, workloads: Sequence[str], summary: Summary, styles: Styles) -> Path:
    columns = len(workloads)
    figure, axes = plt.subplots(
        len(METRICS), columns, figsize=(4.9 * columns + 0.6, 7.2), sharex="col", sharey="row", squeeze=False
    )
    for column, workload in enumerate(workloads):
        rows = [row for row in summary.rows if (row.tool, row.workload) == (tool, workload)]
        runs = [run for run in summary.runs if (run.tool, run.workload) == (tool, workload)]
        for line, (metric, label) in enumerate(METRICS):
            panel = axes[line][column]
            _lines(panel, metric, rows, runs, styles)
            _x_axis(panel, sorted({row.users for row in rows}))
            panel.set_ylabel(label if column == 0 else "")
        axes[0][column].set_title(f"{workload}\n", fontsize=12, fontweight="bold", loc="left")
        axes[0][column].text(
            0,
            1.03,
            words.workload_title(workload),
            transform=axes[0][column].transAxes,
            fontsize=8.5,
            color="#555",
        )
        axes[-1][column].set_xlabel("users")
    for line, (metric, _) in enumerate(METRICS):
        _y_axis(axes[line][0], metric, [getattr(row, metric) for row in summary.rows if row.tool == tool])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=min(4, len(labels)), frameon=False)
    figure.suptitle(f"{_nodes(summary, tool)}, load from {tool}", x=0.01, ha="left", fontsize=13)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(file, dpi=DPI)
    plt.close(figure)
    return file


def _nodes(summary: Summary, tool: str) -> str:
    modes = {f"durability {run.durability}, reads {run.reads}" for run in summary.runs if run.tool == tool}
    return f"3 nodes on one machine, {modes.pop()}" if len(modes) == 1 else "Clusters of different durability"


def _lines(panel: Axes, metric: str, rows: Sequence[Row], runs: Sequence[Run], styles: Styles) -> None:
    """A line through the medians of each target, and a pale dot for each round."""
    for target in dict.fromkeys(row.target for row in rows):
        colour, marker = styles[target]
        medians = [(row.users, getattr(row, metric)) for row in rows if row.target == target]
        rounds = [(run.users, getattr(run, metric)) for run in runs if run.target == target]
        panel.plot(
            *zip(*rounds, strict=True), linestyle="", marker=".", markersize=4, color=colour, alpha=0.4
        )
        panel.plot(
            *zip(*medians, strict=True),
            marker=marker,
            markersize=6,
            linewidth=1.8,
            color=colour,
            label=target,
        )
    panel.grid(visible=True, color="#DDD", linewidth=0.7)
    panel.spines[["top", "right"]].set_visible(False)


def _x_axis(panel: Axes, users: Sequence[int]) -> None:
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(list(users)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.count(value)))


def _y_axis(panel: Axes, metric: str, medians: Sequence[float]) -> None:
    """Latencies, and values of a wide range, on a logarithmic axis; others from zero."""
    known = [value for value in medians if value > 0]
    if known and (metric == "p99_ms" or max(known) / min(known) > WIDE_RANGE):
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_minor_locator(NullLocator())
    else:
        panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
