"""Where ``python -m benchmarks`` begins: which commands there are, and how each may end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console

from benchmarks.cli.comparisons import add_attribute, add_compare, add_report, add_run
from benchmarks.cli.experiments import add_failover, add_million, add_watch
from benchmarks.cli.flags import Parser
from benchmarks.cli.guarding import add_guard
from benchmarks.errors import BenchmarkError

COMMANDS = (add_compare, add_run, add_attribute, add_failover, add_million, add_watch, add_guard, add_report)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    # A file or a pipe has no width: then all columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    # Then clusters end as they do at an interrupt from the keyboard.
    signal.signal(signal.SIGTERM, _interrupt)
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


def parser() -> Parser:
    """Its namespace's ``run`` takes the namespace and a console, and returns the status to end with."""
    found = Parser(prog="python -m benchmarks", description="Measure the services beside etcd.")
    commands = found.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for add in COMMANDS:
        add(commands)
    return found
