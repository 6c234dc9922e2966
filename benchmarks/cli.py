"""The command line: what to measure is read from the flags, measured, written and shown."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import (
    attribution,
    audience,
    environment,
    failover,
    million,
    million_report,
    plan,
    watch,
    watch_report,
)
from benchmarks.arguments import files, many, names, number, numbers, urls
from benchmarks.compare import Measured, Tell, compare
from benchmarks.errors import BenchmarkError
from benchmarks.limits import BESIDE, allow_files, raise_file_limit
from benchmarks.load import locust, wrk
from benchmarks.report import layers, words
from benchmarks.report.html import write_page
from benchmarks.report.plots import write_plots
from benchmarks.report.table import show
from benchmarks.results import Summary, read_summary, write_raw, write_summary
from benchmarks.targets import (
    EMBEDDED,
    INFRASTRUCTURES,
    SERVER_NAMES,
    SERVERS,
    TARGETS,
    YARDSTICK,
    Target,
    available,
    check_available,
    deployment,
    resolve,
    running_elsewhere,
)
from benchmarks.workloads import WORKLOADS

TOOLS = (wrk.NAME, locust.NAME)
USERS = (3, 24, 96, 384)
ROUNDS = 3
SECONDS = 2

QUICK = (YARDSTICK, "v2.reactive")

LAYER_USERS = (3, 96)
LAYER_ROUNDS = 5

KILLS = 20

#: Flags that say what to measure: any of them makes a grid.
SHAPE = ("users", "rounds", "seconds", "tools", "workloads", "targets", "servers")


class Parser(argparse.ArgumentParser):
    """One clear line and status 1 for a bad flag, where argparse prints its usage and ends with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
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


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks", description="Measure the services beside etcd.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _add_compare(commands)
    _add_run(commands)
    _add_attribute(commands)
    _add_failover(commands)
    _add_million(commands)
    _add_watch(commands)
    report = commands.add_parser("report", help="draw the report of an earlier comparison again")
    _add_output(report, "stats", run_report)
    return parser


def _add_compare(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="measure targets side by side",
        description="Start each target's nodes, verify their answers, measure them in turn, write the results. "
        "Without flags that say what to measure: all variants on their fastest servers and etcd, in less than "
        "six minutes. With any of --users, --rounds, --seconds, --tools, --workloads, --targets, "
        "--servers: a grid, every combination.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{' and '.join(QUICK)} alone, the latter on all its servers, in less than four minutes",
    )
    parser.add_argument(
        "--infrastructures",
        type=names(INFRASTRUCTURES),
        default=(EMBEDDED,),
        metavar="I,I",
        help=f"one after another, each beside etcd: {_joined(INFRASTRUCTURES)}; {EMBEDDED} unless given",
    )
    _add_shape(parser)
    add = parser.add_argument
    add("--targets", type=names(TARGETS), default=argparse.SUPPRESS, metavar="T,T", help=_joined(TARGETS))
    _add_servers(parser)
    add(
        "--endpoints",
        type=urls,
        default=(),
        metavar="URL,URL",
        help="measure also the cluster that runs there; it overwrites keys that are named after the workloads",
    )
    _add_output(parser, "stats", run_compare)


def _add_run(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "run",
        help="measure compose deployments",
        description="Bring each compose file up, wait until it is healthy, measure it, take it down, volumes "
        "and all. One alone is published on 127.0.0.1:8001 to 8003; several take turns, on free ports.",
    )
    parser.add_argument(
        "--compose",
        type=files,
        required=True,
        metavar="FILE,FILE",
        help="v1/deployment/servlet/embedded.yaml",
    )
    _add_shape(parser)
    _add_output(parser, "stats/compose", run_compose)


def _add_attribute(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "attribute",
        help="measure what each layer costs",
        description="Measure PUTs and GETs of each variant with one layer taken away after another: fsync, Raft, "
        "the SQL store, the front. What a request costs less is the layer's share.",
    )
    add = parser.add_argument
    add("--targets", type=names(SERVERS), default=argparse.SUPPRESS, metavar="T,T", help=_joined(SERVERS))
    _add_servers(parser)
    add(
        "--users",
        type=numbers,
        default=LAYER_USERS,
        metavar="N,N",
        help=f"{_joined(LAYER_USERS)} unless given",
    )
    add("--rounds", type=number, default=LAYER_ROUNDS, metavar="N", help=f"{LAYER_ROUNDS} unless given")
    add("--seconds", type=number, default=SECONDS, metavar="S", help=f"{SECONDS} unless given")
    add(
        "--tools",
        type=names(TOOLS),
        default=argparse.SUPPRESS,
        metavar="T",
        help="the first that is installed",
    )
    _add_output(parser, "stats/layers", run_attribute)


def _add_failover(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "failover",
        help="measure how long a cluster takes no writes when its leader is killed",
        description="Kill the leader of three nodes of etcd and of each variant in turn, and measure the time from "
        "SIGKILL to the next acknowledged write through a node that is left.",
    )
    add = parser.add_argument
    add("--targets", type=names(SERVERS), default=(QUICK[-1],), metavar="T,T", help=_joined(SERVERS))
    _add_servers(parser)
    add("--kills", type=number, default=KILLS, metavar="N", help=f"for each target; {KILLS} unless given")
    add("--heartbeat-interval", type=number, default=100, metavar="MS", help="100 unless given")
    add("--election-timeout", type=number, default=1000, metavar="MS", help="1000 unless given")
    _add_output(parser, "stats/failover", run_failover)


def _add_million(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "million",
        help="measure what many keys ask of a node",
        description="Fill three nodes of etcd and of each variant with values of 100 bytes, and measure a restart, "
        "the memory that a key takes, what users wait for while snapshots are taken, and what a follower that missed "
        "all of it costs the others when it comes back. About twelve minutes with a million keys.",
    )
    size = million.Size()
    add = parser.add_argument
    add("--targets", type=names(SERVERS), default=(QUICK[-1],), metavar="T,T", help=_joined(SERVERS))
    _add_servers(parser)
    add(
        "--parts",
        type=names(million.PARTS),
        default=million.PARTS,
        metavar="P,P",
        help=f"{_joined(million.PARTS)}; all unless given",
    )
    add("--keys", type=many, default=size.keys, metavar="N", help=f"{size.keys} unless given")
    add("--restarts", type=number, default=size.restarts, metavar="N", help=f"{size.restarts} unless given")
    add("--users", type=number, default=size.users, metavar="N", help=f"{size.users} unless given")
    add(
        "--seconds",
        type=number,
        default=int(size.seconds),
        metavar="S",
        help="of each throughput; 10 unless given",
    )
    add("--snapshot-count", type=number, metavar="N", help="for all nodes; each its own default unless given")
    _add_output(parser, "stats/million", run_million)


def _add_watch(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "watch",
        help="measure how soon those who watch a key hear of a write",
        description="Let clients watch one key of three nodes of etcd and of each variant in turn, write it, and "
        "measure the time from the PUT until each has its event. About a minute.",
    )
    size = watch.Size()
    add = parser.add_argument
    add("--targets", type=names(SERVERS), default=(QUICK[-1],), metavar="T,T", help=_joined(SERVERS))
    _add_servers(parser)
    add(
        "--watchers",
        type=number,
        default=size.watchers,
        metavar="N",
        help=f"spread over the nodes; {size.watchers} unless given",
    )
    add(
        "--kinds",
        type=names(audience.QUERIES),
        default=tuple(audience.QUERIES),
        metavar="K,K",
        help=f"of watchers, by what they ask for: {_joined(audience.QUERIES)}; both unless given",
    )
    add("--rounds", type=number, default=size.rounds, metavar="N", help=f"{size.rounds} unless given")
    add(
        "--events",
        type=number,
        default=size.events,
        metavar="N",
        help=f"in a round; {size.events} unless given",
    )
    _add_output(parser, "stats/watch", run_watch)


def _add_shape(parser: argparse.ArgumentParser) -> None:
    def add(flag: str, kind: Callable[[str], object], metavar: str, text: str) -> None:
        # Absent from the namespace unless given: what it is then depends on the others (see ``_plan``).
        parser.add_argument(flag, type=kind, default=argparse.SUPPRESS, metavar=metavar, help=text)

    add("--users", numbers, "N,N", f"numbers of users; in a grid {_joined(USERS)} unless given")
    add("--rounds", number, "N", f"rounds of each cell; in a grid {ROUNDS} unless given")
    add("--seconds", number, "S", f"whole seconds that a run measures; in a grid {SECONDS} unless given")
    add("--tools", names(TOOLS), "T,T", f"load generators: {_joined(TOOLS)}")
    add("--workloads", names(WORKLOADS), "W,W", f"workloads: {_joined(WORKLOADS)}")


def _add_servers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--servers",
        type=names(SERVER_NAMES),
        default=argparse.SUPPRESS,
        metavar="S,S",
        help=f"HTTP servers, where there is a choice: {_joined(SERVER_NAMES)}; the fastest of each unless given",
    )


def _add_output(
    parser: argparse.ArgumentParser, folder: str, run: Callable[[argparse.Namespace, Console], int]
) -> None:
    parser.add_argument("--output", type=Path, default=Path(folder), help=f"folder of the results ({folder})")
    parser.set_defaults(run=run)


def run_compare(options: argparse.Namespace, console: Console) -> int:
    return _measure(_plan(options, console), options.output, console)


def run_compose(options: argparse.Namespace, console: Console) -> int:
    found = options.compose
    targets = [deployment(file, own_ports=len(found) > 1) for file in found]
    return _measure(_grid(options, console, targets, "compose"), options.output, console)


def run_attribute(options: argparse.Namespace, console: Console) -> int:
    chains = _chains(options)
    [tool, *_] = _tools(getattr(options, "tools", None), console)
    cells = plan.switches(tool, chains, options.users, options.seconds, options.rounds)
    return _measure(cells, options.output, console)


def run_failover(options: argparse.Namespace, console: Console) -> int:
    _check_writable(options.output)
    targets = [
        failover.with_times(target, options.heartbeat_interval, options.election_timeout)
        for target in _beside_etcd(options)
    ]
    facts = environment.describe()
    with _progress(console, failover.estimate(targets, options.kills)) as progress:
        outages = failover.measure(targets, options.kills, progress)
    failover.write(options.output, facts, _command(), outages)
    failover.show(outages, console)
    return 0


def run_million(options: argparse.Namespace, console: Console) -> int:
    _check_writable(options.output)
    size = million.Size(options.keys, options.restarts, options.users, seconds=options.seconds)
    targets = [million.prepared(target, options.snapshot_count) for target in _beside_etcd(options)]
    facts = environment.describe()
    with _progress(console, million.estimate(targets, size, options.parts)) as progress:
        found = million.measure(targets, size, options.parts, progress)
    million_report.write(options.output, facts, _command(), found)
    million_report.show(found, size, console)
    return 0


def run_watch(options: argparse.Namespace, console: Console) -> int:
    _check_writable(options.output)
    size = watch.Size(options.watchers, options.rounds, options.events)
    allow_files(size.watchers + BESIDE, size.watchers, "watchers")
    targets = _beside_etcd(options)
    facts = environment.describe()
    with _progress(console, watch.estimate(targets, options.kinds, size)) as progress:
        before = environment.load()
        found, starts = watch.measure(targets, options.kinds, size, progress)
    facts["load"] = f"load average {before:.1f} before, {environment.load():.1f} after"
    watch_report.write(options.output, facts, _command(), size, found, starts)
    watch_report.show(found, size, console)
    return 0


def _beside_etcd(options: argparse.Namespace) -> list[Target]:
    """etcd, and the variants that are named."""
    servers = getattr(options, "servers", None)
    variants = [target for name in options.targets for target in resolve(name, EMBEDDED, servers)]
    return [*resolve(YARDSTICK, EMBEDDED), *variants]


def run_report(options: argparse.Namespace, console: Console) -> int:
    summary = read_summary(options.output)
    _report(options.output, summary)
    _show(summary, options.output, console)
    return 0


def _measure(cells: Sequence[plan.Cell], output: Path, console: Console) -> int:
    _check_writable(output)
    raise_file_limit(cells)
    facts = environment.describe()
    runs = sum(cell.rounds * len(cell.targets) for cell in cells)
    console.print(f"{runs} runs, about {_minutes(plan.estimate(cells))}; {facts['disk']}")
    with _progress(console, plan.estimate(cells)) as progress:
        measured = compare(cells, progress)
    summary = Summary(facts, _command(), measured.runs, measured.starts, measured.versions)
    _write(output, measured, summary)
    _show(summary, output, console)
    return 0


def _write(output: Path, measured: Measured, summary: Summary) -> None:
    try:
        write_raw(output, measured.raw)
        write_summary(output, summary)
        _report(output, summary)
    except OSError as error:
        raise BenchmarkError(f"the results cannot be written: {error}") from error


def _report(output: Path, summary: Summary) -> None:
    write_page(output, summary, write_plots(output, summary), layers.write_bars(output, summary))


def _show(summary: Summary, output: Path, console: Console) -> None:
    show(summary.rows, console)
    layers.show_layers(summary, console)
    for title, told in (
        (f"Where {YARDSTICK} is better:", words.losses(summary.rows)),
        ("Where the load generator may be what was measured:", words.limited(summary.rows)),
    ):
        if told:
            console.print(title, *told, sep="\n  ")
    console.print(f"Report: {output / 'index.html'}")


def _plan(options: argparse.Namespace, console: Console) -> list[plan.Cell]:
    """The standard or the quick plan, or the grid that the flags ask for; for each infrastructure."""
    shape = [f"--{name}" for name in SHAPE if hasattr(options, name)]
    if options.quick and shape:
        raise BenchmarkError(f"--quick is a plan of its own: leave out {', '.join(shape)}, or --quick")
    tools = _tools(getattr(options, "tools", None), console)
    cells = []
    for place, infrastructure in enumerate(options.infrastructures):
        targets = _targets(options, infrastructure)
        if options.endpoints and place == 0:
            targets.append(running_elsewhere(options.endpoints))
        if options.quick:
            cells += plan.quick(tools, targets, infrastructure)
        elif shape:
            cells += _grid(options, console, targets, infrastructure)
        else:
            cells += plan.standard(tools, targets, infrastructure)
    return cells


def _grid(
    options: argparse.Namespace, console: Console, targets: Sequence[Target], section: str
) -> list[plan.Cell]:
    return plan.grid(
        _tools(getattr(options, "tools", None), console),
        [WORKLOADS[name] for name in getattr(options, "workloads", WORKLOADS)],
        getattr(options, "users", USERS),
        getattr(options, "seconds", SECONDS),
        getattr(options, "rounds", ROUNDS),
        targets,
        section,
    )


def _targets(options: argparse.Namespace, infrastructure: str) -> list[Target]:
    """What is named; else all that is there, or what is quick."""
    check_available(QUICK[-1], infrastructure)
    if options.quick:
        return [target for name in QUICK for target in resolve(name, infrastructure, SERVER_NAMES)]
    servers = getattr(options, "servers", None)
    found = []
    for name in getattr(options, "targets", available()):
        on_servers = resolve(name, infrastructure, servers)
        if hasattr(options, "targets") and not on_servers:
            raise BenchmarkError(
                f"{name} does not run on {_joined(servers or ())}; it does on {_joined(SERVERS[name])}"
            )
        found += on_servers
    return found


def _chains(options: argparse.Namespace) -> list[attribution.Chain]:
    """A chain for each variant and server.

    :raises BenchmarkError: a variant that is named, or the one that it is compared with, is not there.
    """
    there = available()
    variants = getattr(options, "targets", [name for name in SERVERS if name in there])
    servers = getattr(options, "servers", None)
    chains = []
    for name in variants:
        check_available(name, EMBEDDED)
        check_available(attribution.WITH_HASH_MAP.get(name, name), EMBEDDED)
        chosen = SERVERS[name][:1] if servers is None else servers
        chains += [attribution.chain(name, server) for server in chosen if server in SERVERS[name]]
    if not chains:
        raise BenchmarkError(f"none of {_joined(variants)} runs on {_joined(servers or ())}")
    return chains


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
