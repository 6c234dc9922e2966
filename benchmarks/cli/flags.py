"""The parser, and the flags that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TypeAlias

from rich.console import Console

from benchmarks.cli.arguments import names, number, numbers
from benchmarks.load import locust, wrk
from benchmarks.targets import SERVER_NAMES, SERVERS
from benchmarks.workloads import WORKLOADS

TOOLS = (wrk.NAME, locust.NAME)
USERS = (3, 24, 96, 384)
ROUNDS = 3
SECONDS = 2

#: The variant that is measured where one is enough.
EXAMPLE = "v2.reactive"


class Parser(argparse.ArgumentParser):
    """One clear line and status 1 for a bad flag, where argparse prints its usage and ends with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message} (see {self.prog} --help)\n")


#: In quotes, because argparse's own class takes no parameter at run time.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_shape(parser: Parser) -> None:
    """What a grid is made of."""

    def add(flag: str, kind: Callable[[str], object], metavar: str, text: str) -> None:
        # Absent from the namespace unless given: what it is then depends on the others (see ``planning``).
        parser.add_argument(flag, type=kind, default=argparse.SUPPRESS, metavar=metavar, help=text)

    add("--users", numbers, "N,N", f"numbers of users; in a grid {joined(USERS)} unless given")
    add("--rounds", number, "N", f"rounds of each cell; in a grid {ROUNDS} unless given")
    add("--seconds", number, "S", f"whole seconds that a run measures; in a grid {SECONDS} unless given")
    add("--tools", names(TOOLS), "T,T", f"load generators: {joined(TOOLS)}")
    add("--workloads", names(WORKLOADS), "W,W", f"workloads: {joined(WORKLOADS)}")


def add_variants(parser: Parser, default: tuple[str, ...] | str = (EXAMPLE,)) -> None:
    """The variants to measure, and their servers."""
    parser.add_argument(
        "--targets", type=names(SERVERS), default=default, metavar="T,T", help=joined(SERVERS)
    )
    add_servers(parser)


def add_servers(parser: Parser) -> None:
    parser.add_argument(
        "--servers",
        type=names(SERVER_NAMES),
        default=argparse.SUPPRESS,
        metavar="S,S",
        help=f"HTTP servers, where there is a choice: {joined(SERVER_NAMES)}; the fastest of each unless given",
    )


def add_number(parser: Parser, flag: str, default: int, what: str = "", metavar: str = "N") -> None:
    text = f"{what}; {default}" if what else f"{default}"
    parser.add_argument(flag, type=number, default=default, metavar=metavar, help=f"{text} unless given")


def add_output(parser: Parser, folder: str, run: Callable[[argparse.Namespace, Console], int]) -> None:
    """Where the results go, and the command's function, which returns the status to end with."""
    parser.add_argument("--output", type=Path, default=Path(folder), help=f"folder of the results ({folder})")
    parser.set_defaults(run=run)


def joined(values: Iterable[object]) -> str:
    return ",".join(str(value) for value in values)
