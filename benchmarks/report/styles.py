"""What the pictures share: a colour for each variant, a line for each server, and where matplotlib draws."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: no display is needed

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.results import is_yardstick
from benchmarks.targets import GRANIAN, HYPERCORN, NATIVE, SERVERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100

# Okabe and Ito's palette: told apart with every kind of colour vision.  The yardstick is black.
BLACK = "#000000"
COLOURS = ("#D55E00", "#E69F00", "#56B4E9", "#0072B2", "#009E73", "#CC79A7", "#8C6D00")
LINES = {NATIVE: ("-.", "s"), GRANIAN: ("-", "o"), HYPERCORN: ("--", "^")}
OTHER_LINE = (":", "D")


@dataclass(frozen=True, slots=True)
class Style:
    colour: str
    line: str
    marker: str


def styles(targets: Iterable[str]) -> dict[str, Style]:
    """A style for each target, the same in every picture: its variant's colour, its server's line and marker."""
    names = list(dict.fromkeys(targets))
    known = dict(zip(SERVERS, COLOURS, strict=False))
    spare = [colour for colour in COLOURS if colour not in known.values()]
    found: dict[str, Style] = {}
    for name in names:
        variant, _, server = name.partition("-")
        if variant not in known and not is_yardstick(name):
            known[variant] = spare[len(known) % len(spare)]
        line, marker = ("-", "X") if is_yardstick(name) else LINES.get(server, OTHER_LINE)
        found[name] = Style(BLACK if is_yardstick(name) else known[variant], line, marker)
    return found


def inches_above(figure: Figure, inches: float) -> float:
    """Where the panels end, as a share of the height, for a title of the whole picture above them."""
    return 1 - inches / float(figure.get_figheight())


def plain(axes: Axes, *, grid: str) -> None:
    axes.grid(visible=True, axis=grid, color="#DDD", linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def logarithmic(axes: Axes, which: str, low: float, high: float) -> None:
    """A logarithmic ``which`` ("x" or "y") from just below ``low`` to just above ``high``, labelled plainly."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low / 1.25, high * 1.25)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1, 3)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
