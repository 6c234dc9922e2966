"""The command line: ``compare`` measures, ``report`` draws the report of an earlier comparison again."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import environment, plan
from benchmarks.arguments import names, number, numbers, urls
from benchmarks.compare import Measured, Tell, compare
from benchmarks.errors import BenchmarkError
from benchmarks.load import locust, wrk
from benchmarks.report import words
from benchmarks.report.html import write_page
from benchmarks.report.plots import write_plots
from benchmarks.report.table import show
from benchmarks.results import Summary, read_summary, write_raw, write_summary
from benchmarks.targets import CATALOGUE, GRANIAN, HYPERCORN, NATIVE, Target, resolve, running_elsewhere
from benchmarks.workloads import WORKLOADS

TOOLS = (wrk.NAME, locust.NAME)
SERVER_NAMES = (NATIVE, GRANIAN, HYPERCORN)
USERS = (3, 24, 96, 384)
ROUNDS = 3
SECONDS = 2


class Parser(argparse.ArgumentParser):
    """One clear line and status 1 for a bad flag, where argparse prints its usage and ends with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # A file or a pipe has no width: then all columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    signal.signal(
        signal.SIGTERM, _interrupt
    )  # then clusters end as they do at an interrupt from the keyboard
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        status: int = options.run(options, console)
        return status
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; the nodes are stopped, no results written", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks", description="Measure the services beside etcd.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    comparison = commands.add_parser(
        "compare",
        help="measure targets side by side",
        description="Start each target's nodes, verify their answers, measure them in turn, write the results. "
        "Without flags that say what to measure: a plan of less than four minutes. With any of --users, "
        "--rounds, --seconds, --tools, --workloads, --targets, --servers: a grid, every combination.",
    )
    _add_flags(comparison)
    report = commands.add_parser("report", help="draw the report of an earlier comparison again")
    report.add_argument("--output", type=Path, default=Path("stats"), help="folder of the results (stats)")
    report.set_defaults(run=run_report)
    return parser


def _add_flags(parser: argparse.ArgumentParser) -> None:
    def add(flag: str, kind: Callable[[str], object], metavar: str, text: str) -> None:
        # Absent from the namespace unless given: what it is then depends on the others (see ``_plan``).
        parser.add_argument(flag, type=kind, default=argparse.SUPPRESS, metavar=metavar, help=text)

    add("--users", numbers, "N,N", f"numbers of users; in a grid {_joined(USERS)} unless given")
    add("--rounds", number, "N", f"rounds of each cell; in a grid {ROUNDS} unless given")
    add("--seconds", number, "S", f"whole seconds that a run measures; in a grid {SECONDS} unless given")
    add("--tools", names(TOOLS), "T,T", f"load generators: {_joined(TOOLS)}")
    add("--workloads", names(WORKLOADS), "W,W", f"workloads: {_joined(WORKLOADS)}")
    add("--targets", names(CATALOGUE), "T,T", f"targets: {_joined(CATALOGUE)}")
    add(
        "--servers",
        names(SERVER_NAMES),
        "S,S",
        f"HTTP servers, where there is a choice: {_joined(SERVER_NAMES)}",
    )
    parser.add_argument(
        "--endpoints",
        type=urls,
        default=(),
        metavar="URL,URL",
        help="measure also the cluster that runs there; it overwrites keys that are named after the workloads",
    )
    parser.add_argument("--output", type=Path, default=Path("stats"), help="folder for the results (stats)")
    parser.set_defaults(run=run_compare)


def run_compare(options: argparse.Namespace, console: Console) -> int:
    output: Path = options.output
    _check_writable(output)
    _raise_file_limit()
    cells = _plan(options, console)
    facts = environment.describe()
    runs = sum(cell.rounds * len(cell.targets) for cell in cells)
    console.print(f"{runs} runs, about {_minutes(plan.estimate(cells))}; {facts['disk']}")
    with _progress(console, plan.estimate(cells)) as progress:
        measured = compare(cells, progress)
    summary = Summary(facts, _command(), measured.runs, measured.starts, measured.versions)
    _write(output, measured, summary)
    show(summary.rows, console)
    _conclude(summary, output, console)
    return 0


def run_report(options: argparse.Namespace, console: Console) -> int:
    summary = read_summary(options.output)
    write_page(options.output, summary, write_plots(options.output, summary))
    show(summary.rows, console)
    _conclude(summary, options.output, console)
    return 0


def _write(output: Path, measured: Measured, summary: Summary) -> None:
    try:
        write_raw(output, measured.raw)
        write_summary(output, summary)
        write_page(output, summary, write_plots(output, summary))
    except OSError as error:
        raise BenchmarkError(f"the results cannot be written: {error}") from error


def _conclude(summary: Summary, output: Path, console: Console) -> None:
    lost = words.losses(summary.rows)
    if lost:
        console.print("Where etcd is better:", *lost, sep="\n  ")
    console.print(f"Report: {output / 'index.html'}")


def _plan(options: argparse.Namespace, console: Console) -> list[plan.Cell]:
    """The standard plan, or the grid that the flags ask for."""
    targets = _targets(options)
    tools = _tools(getattr(options, "tools", None), console)
    shape = ("users", "rounds", "seconds", "tools", "workloads", "targets", "servers")
    if not any(hasattr(options, name) for name in shape):
        return plan.standard(tools, targets)
    return plan.grid(
        tools,
        [WORKLOADS[name] for name in getattr(options, "workloads", WORKLOADS)],
        getattr(options, "users", USERS),
        getattr(options, "seconds", SECONDS),
        getattr(options, "rounds", ROUNDS),
        targets,
    )


def _targets(options: argparse.Namespace) -> list[Target]:
    names = getattr(options, "targets", tuple(CATALOGUE))
    servers = getattr(options, "servers", SERVER_NAMES)
    targets = [target for name in names for target in resolve(name, servers)]
    if options.endpoints:
        targets.append(running_elsewhere(options.endpoints))
    return targets


def _tools(asked: Sequence[str] | None, console: Console) -> list[str]:
    """The tools to use; wrk only where it is installed.

    :raises BenchmarkError: only wrk was asked for, and it is missing.
    """
    tools = list(asked or TOOLS)
    if wrk.NAME in tools and shutil.which(wrk.PROGRAM) is None:
        tools.remove(wrk.NAME)
        if not tools:
            raise BenchmarkError(f"wrk is not installed; get it by {wrk.HOW_TO_GET}, or use --tools locust")
        console.print(f"wrk is not installed: locust alone measures. To get wrk: {wrk.HOW_TO_GET}")
    return tools


@contextmanager
def _progress(console: Console, seconds: float) -> Iterator[Tell]:
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


def _raise_file_limit() -> None:
    """A connection is a file, in the tools and in the nodes; both inherit our limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _check_writable(output: Path) -> None:
    """Better now than after four minutes of measuring."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchmarkError(
            f"--output {output}: {error.strerror}; name a folder that can be written"
        ) from error
    if not os.access(output, os.W_OK):
        raise BenchmarkError(f"--output {output} cannot be written; name another folder")


def _command() -> str:
    """The command that was given, without this machine's paths."""
    arguments = (Path(each).name if each.startswith("/") else each for each in sys.argv[1:])
    return " ".join(["python -m benchmarks", *arguments])


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _joined(values: Iterable[object]) -> str:
    return ",".join(str(value) for value in values)
