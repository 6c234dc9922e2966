"""What every command does around its measuring: the checks before, the bar meanwhile, the command as it was typed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.compare import Measured, Tell, compare
from benchmarks.errors import BenchmarkError
from benchmarks.plan import Cell, estimate


def measure(cells: Sequence[Cell], facts: Mapping[str, str], console: Console) -> Measured:
    """Compare, after a line that says how long it will take."""
    runs = sum(cell.rounds * len(cell.targets) for cell in cells)
    seconds = estimate(cells)
    console.print(f"{runs} runs, about {_minutes(seconds)}; {facts['disk']}")
    with progress(console, seconds) as tell:
        return compare(cells, tell)


@contextmanager
def progress(console: Console, seconds: float) -> Iterator[Tell]:
    """A bar with the time left; where the output is no terminal, a line for each change instead."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=seconds)

        def tell(text: str, done: float) -> None:
            if text and not console.is_terminal and text != bar.tasks[0].description:
                console.print(text)
            bar.update(task, description=text or None, advance=done)

        yield tell


def check_writable(output: Path) -> None:
    """Better now than after four minutes of measuring."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchmarkError(
            f"--output {output}: {error.strerror}; name a folder that can be written"
        ) from error
    if not os.access(output, os.W_OK):
        raise BenchmarkError(f"--output {output} cannot be written; name another folder")


@contextmanager
def writing() -> Iterator[None]:
    """:raises BenchmarkError: what is written in the block cannot be."""
    try:
        yield
    except OSError as error:
        raise BenchmarkError(f"the results cannot be written: {error}") from error


def command() -> str:
    """The command that was given, without this machine's paths."""
    arguments = (Path(each).name if each.startswith("/") else each for each in sys.argv[1:])
    return " ".join(["python -m benchmarks", *arguments])


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
