"""What the layers of the services cost: a table, a list of what each figure is made of, and stacked bars."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.attribution import COSTS, LAYERS, MEASURED, Attribution, Share, attributions
from benchmarks.report import words
from benchmarks.report.styles import DPI, plain
from benchmarks.results import Summary

from matplotlib import pyplot as plt  # isort: skip  (after styles, which says where matplotlib draws)
from matplotlib.patches import Patch  # isort: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = dict(zip(LAYERS, ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#D55E00"), strict=True))
#: Of a panel's width, what a percentage needs.
LABELLED = 0.055
HIDDEN, HIDDEN_COLOUR = "not told apart", "#CFCFCF"
LEGEND = (
    "A layer's share is what a request costs less without it: the median of the rounds' differences between two "
    "targets that took turns. Where the rounds disagree on the sign, or agree that it is negative, there is none. "
    "Below 0, what is not told apart says that the layers cost more by themselves than the whole. "
    "Raft holds the other two replicas' part of a write and the hops between nodes; the store is that of all three."
)


def write_bars(output: Path, summary: Summary) -> list[Path]:
    """Write ``layers-<cost>.png`` for each cost that was attributed."""
    for old in output.glob("layers-*.png"):
        old.unlink()
    found = attributions(summary.runs)
    files = []
    for cost in dict.fromkeys(each.cost for each in found):
        files.append(output / f"layers-{cost}.png")
        _draw(files[-1], cost, [each for each in found if each.cost == cost])
    return files


def _draw(file: Path, cost: str, found: Sequence[Attribution]) -> None:
    """A panel for each number of users and operation, a bar for each chain."""
    panels = list(dict.fromkeys((each.users, each.operation) for each in found))
    chains = list(dict.fromkeys(each.chain for each in found))
    rows, columns = -(-len(panels) // 2), min(2, len(panels))
    figure, axes = plt.subplots(
        rows, columns, figsize=(13, rows * (0.5 * len(chains) + 1.3) + 0.9), squeeze=False, sharey=True
    )
    for panel, (users, operation) in zip(axes.flat, panels, strict=False):
        shown = [each for each in found if (each.users, each.operation) == (users, operation)]
        narrowest = max(each.total for each in shown) * LABELLED
        for each in shown:
            _stack(panel, chains.index(each.chain), each, narrowest)
        panel.set_title(f"{operation}, {users} users", fontsize=11, loc="left")
        panel.set_yticks(range(len(chains)), chains)
        panel.set_ylim(len(chains) - 0.4, -0.6)
        panel.set_xlabel(COSTS[cost][0])
        plain(panel, grid="x")
    for spare in list(axes.flat)[len(panels) :]:
        spare.remove()
    used = [layer for layer in LAYERS if any(share.layer == layer for each in found for share in each.shares)]
    handles = [Patch(color=colour) for colour in (*(COLOURS[layer] for layer in used), HIDDEN_COLOUR)]
    figure.legend(handles, [*used, HIDDEN], loc="lower center", ncols=len(handles), frameon=False)
    figure.tight_layout(rect=(0, 0.4 / figure.get_figheight(), 1, 1))
    figure.savefig(file, dpi=DPI)
    plt.close(figure)


def _stack(panel: Axes, place: int, each: Attribution, narrowest: float) -> None:
    """The layers that have a share, then what is left of the total; a line where the total is.

    What costs less than ``narrowest`` has no room for its percentage.
    """
    parts = [(COLOURS[share.layer], share.share or 0.0) for share in _from_server_to_disk(each)]
    left = 0.0
    for colour, part in [*parts, (HIDDEN_COLOUR, max(each.unexplained, 0.0))]:
        panel.barh(place, part * each.total, left=left, height=0.62, color=colour)
        if part * each.total > narrowest:
            panel.text(
                left + part * each.total / 2, place, f"{part:.0%}", ha="center", va="center", fontsize=8
            )
        left += part * each.total
    panel.plot([each.total, each.total], [place - 0.38, place + 0.38], color="#000", linewidth=1.5)


def _from_server_to_disk(each: Attribution) -> list[Share]:
    return sorted(each.shares, key=lambda share: LAYERS.index(share.layer))


def show_layers(summary: Summary, console: Console) -> None:
    """The shares, in the terminal."""
    found = attributions(summary.runs)
    for cost in dict.fromkeys(each.cost for each in found):
        table = Table(title=f"Shares of {COSTS[cost][0]}", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("chain", "operation"):
            table.add_column(heading, no_wrap=True)
        for heading in ("users", "in all", *LAYERS, HIDDEN):
            table.add_column(heading, justify="right")
        for each in (one for one in found if one.cost == cost):
            table.add_row(each.chain, each.operation, *_figures(each))
        console.print(table)
    if found:
        console.print(LEGEND, style="dim")


def _figures(each: Attribution) -> list[str]:
    by_layer = {share.layer: share for share in each.shares}
    shares = [_told(by_layer[layer]) if layer in by_layer else "" for layer in LAYERS]
    return [str(each.users), _amount(each.cost, each.total), *shares, f"{each.unexplained:.0%}"]


def _told(share: Share) -> str:
    return share.verdict if share.share is None else f"{share.share:.0%}"


def _amount(cost: str, value: float) -> str:
    return words.count(value) if cost == "cpu" else words.milliseconds(value)


def section(summary: Summary) -> str:
    """The tables of the page; nothing where nothing was attributed."""
    found = attributions(summary.runs)
    if not found:
        return ""
    tables = [
        _table(cost, [each for each in found if each.cost == cost])
        for cost in dict.fromkeys(each.cost for each in found)
    ]
    return (
        f'<h2>What the layers cost</h2><p class="quiet">{LEGEND}</p>{"".join(tables)}'
        f"<details><summary>Every figure, and the two targets it is the difference of</summary>"
        f"{_sources(found)}</details>"
    )


def _table(cost: str, found: Sequence[Attribution]) -> str:
    names = ("chain", "operation", "users", "in all", *LAYERS, HIDDEN)
    head = "".join(f"<th{' class=left' if place < 2 else ''}>{name}</th>" for place, name in enumerate(names))
    body = "".join(
        f'<tr><td class="left">{escape(each.chain)}</td><td class="left">{each.operation}</td>'
        + "".join(f"<td>{figure}</td>" for figure in _figures(each))
        + "</tr>"
        for each in found
    )
    return (
        f'<h3>{COSTS[cost][0]}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _sources(found: Sequence[Attribution]) -> str:
    lines = []
    for each in found:
        lines.append(f"{each.chain}, {each.operation}, {each.users} users, {COSTS[each.cost][0]}")
        lines += [f"  {_source(each.cost, share)}" for share in each.shares]
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def _source(cost: str, share: Share) -> str:
    above = f"{share.above} {_amount(cost, share.above_cost)}"
    if not share.below:
        return f"{share.layer}: all that is left: {above}"
    told = f"{share.layer}: {above} - {share.below} {_amount(cost, share.below_cost)}; of the rounds' differences "
    span = f"{share.low:,.2f} to {share.high:,.2f}, median {share.cost:,.2f}"
    return told + span + ("" if share.verdict == MEASURED else f": {share.verdict}")
