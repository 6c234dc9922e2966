"""Plots of throughput and p99 against the number of users, and bars of what a target is beside the yardstick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import words
from benchmarks.report.styles import DPI, Style, inches_above, logarithmic, plain, styles
from benchmarks.results import Row, Run, Summary
from benchmarks.statistics import Ratio

from matplotlib import pyplot as plt  # isort: skip  (after styles, which says where matplotlib draws)
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # isort: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = (("throughput", "requests per second"), ("p99_ms", "p99 latency, ms"))
BAR_USERS = 96  # of the bars; where it was not measured, the number next to it

RATIOS: tuple[tuple[str, Callable[[Row], Ratio | None]], ...] = (
    ("throughput: more is better", lambda row: row.throughput_ratio),
    ("p99 latency: less is better", lambda row: row.p99_ratio),
    ("CPU per request: less is better", lambda row: row.cpu_ratio),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A file of a section, and what it shows, in words."""

    section: str
    file: Path
    text: str


def write_plots(output: Path, summary: Summary) -> list[Picture]:
    """Write ``users-<section>-<tool>.png`` where several numbers of users, ``bars-...`` where ratios are known."""
    for pattern in ("users-*.png", "bars-*.png"):  # an earlier comparison may have used more tools
        for old in output.glob(pattern):
            old.unlink()
    looks = styles(row.target for row in summary.rows)
    pictures = []
    for (section, tool), of_tool in groupby(summary.rows, key=lambda row: (row.section, row.tool)):
        if words.is_chain(section):
            continue
        rows = list(of_tool)
        runs = [run for run in summary.runs if (run.section, run.tool) == (section, tool)]
        lines = [row for row in rows if len({one.users for one in rows if one.workload == row.workload}) > 1]
        if lines:
            file = output / f"users-{section}-{tool}.png"
            _draw_lines(file, lines, runs, looks)
            pictures.append(Picture(section, file, f"Throughput and p99 against users, load from {tool}"))
        bars = _for_bars(rows)
        if bars:
            file = output / f"bars-{section}-{tool}.png"
            _draw_bars(file, bars, looks)
            pictures.append(Picture(section, file, f"Ratios to etcd, load from {tool}"))
    return pictures


def _draw_lines(file: Path, rows: Sequence[Row], runs: Sequence[Run], looks: dict[str, Style]) -> None:
    workloads = list(dict.fromkeys(row.workload for row in rows))
    figure, axes = plt.subplots(
        len(workloads),
        len(METRICS),
        figsize=(13, 3.7 * len(workloads) + 1.2),
        sharex=True,
        sharey="col",
        squeeze=False,
    )
    for line, workload in enumerate(workloads):
        of_workload = [row for row in rows if row.workload == workload]
        for column, (metric, label) in enumerate(METRICS):
            panel = axes[line][column]
            _lines(panel, metric, of_workload, [run for run in runs if run.workload == workload], looks)
            panel.set_ylabel(label)
        _workload_title(axes[line][0], workload)
    for column, (metric, _) in enumerate(METRICS):
        values = [value for row in rows if (value := getattr(row, metric)) > 0] or [1.0]
        logarithmic(axes[0][column], "y", min(values), max(values))
        _users_axis(axes[-1][column], sorted({row.users for row in rows}))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.suptitle(f"{_what(rows)}, load from {rows[0].tool}", x=0.01, ha="left", fontsize=13)
    legend_height = 0.28 * -(-len(labels) // 4) + 0.1
    figure.legend(handles, labels, loc="lower center", ncols=min(4, len(labels)), frameon=False, fontsize=11)
    figure.tight_layout(rect=(0, legend_height / figure.get_figheight(), 1, inches_above(figure, 0.4)))
    figure.savefig(file, dpi=DPI)
    plt.close(figure)


def _what(rows: Sequence[Row]) -> str:
    title = words.section_title(rows[0].section)
    modes = {f"durability {row.durability}, reads {row.reads}" for row in rows}
    return f"{title}; {modes.pop()}" if len(modes) == 1 else f"{title}; durability differs"


def _workload_title(panel: Axes, workload: str) -> None:
    panel.set_title(f"{workload}\n", fontsize=12, fontweight="bold", loc="left")
    panel.text(0, 1.03, words.workload_title(workload), transform=panel.transAxes, fontsize=9, color="#555")


def _lines(
    panel: Axes, metric: str, rows: Sequence[Row], runs: Sequence[Run], looks: dict[str, Style]
) -> None:
    """A line through the medians of each target, and a pale dot for each round."""
    for name in dict.fromkeys(words.target_name(row) for row in rows):
        of_target = [row for row in rows if words.target_name(row) == name]
        first = of_target[0]
        look = looks[first.target]
        medians = [(row.users, getattr(row, metric)) for row in of_target]
        rounds = [
            (run.users, getattr(run, metric))
            for run in runs
            if (run.target, run.infrastructure) == (first.target, first.infrastructure)
        ]
        panel.plot(
            *zip(*rounds, strict=True), linestyle="", marker=".", markersize=4, color=look.colour, alpha=0.35
        )
        panel.plot(
            *zip(*medians, strict=True),
            linestyle=look.line,
            marker=look.marker,
            markersize=6,
            linewidth=1.8,
            color=look.colour,
            label=name,
        )
    plain(panel, grid="both")


def _users_axis(panel: Axes, users: Sequence[int]) -> None:
    panel.set_xlabel("users")
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(list(users)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.count(value)))


def _for_bars(rows: Sequence[Row]) -> list[Row]:
    """The rows with a ratio at the number of users that the bars show."""
    known = {row.users for row in rows if row.throughput_ratio}
    if not known:
        return []
    users = min(known, key=lambda number: (abs(number - BAR_USERS), number))
    return [row for row in rows if row.users == users and row.throughput_ratio]


def _draw_bars(file: Path, rows: Sequence[Row], looks: dict[str, Style]) -> None:
    """A panel for each ratio, a bar for each workload and target; the bars start at 1, where the yardstick is."""
    workloads = list(dict.fromkeys(row.workload for row in rows))
    places = {id(row): number + workloads.index(row.workload) for number, row in enumerate(rows)}
    figure, axes = plt.subplots(1, len(RATIOS), figsize=(13, 0.3 * (len(rows) + len(workloads)) + 1.5))
    for panel, (title, ratio_of) in zip(axes, RATIOS, strict=True):
        known = [(row, ratio) for row in rows if (ratio := ratio_of(row)) is not None and ratio.low > 0]
        for row, ratio in known:
            look, place = looks[row.target], places[id(row)]
            hatch = "////" if look.line == "--" else ""
            bar = {"height": 0.8, "color": look.colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            panel.barh(place, ratio.median - 1, left=1, **bar)
            panel.plot([ratio.low, ratio.high], [place, place], color="#444", linewidth=1)
            panel.annotate(
                f"{ratio.median:.2f}",
                (max(ratio.high, 1), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        ends = [1.0, *(ratio.low for _, ratio in known), *(ratio.high for _, ratio in known)]
        logarithmic(panel, "x", min(ends), max(ends) * 1.3)
        panel.axvline(1, color="#000", linewidth=1.2)
        panel.set_ylim(max(places.values()) + 0.7, -1.4)
        panel.set_title(title, fontsize=11)
        panel.set_yticks([])
        plain(panel, grid="x")
    axes[0].set_yticks(list(places.values()), [words.target_name(row) for row in rows])
    for workload in workloads:
        top = min(places[id(row)] for row in rows if row.workload == workload)
        axes[0].text(
            0, top - 0.75, workload, fontweight="bold", transform=axes[0].get_yaxis_transform(), va="center"
        )
    figure.suptitle(
        f"{words.section_title(rows[0].section)}: ratios to etcd at {rows[0].users} users, load from {rows[0].tool}",
        x=0.01,
        ha="left",
        fontsize=13,
    )
    figure.tight_layout(rect=(0, 0, 1, inches_above(figure, 0.35)))
    figure.savefig(file, dpi=DPI)
    plt.close(figure)
