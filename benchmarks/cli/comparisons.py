"""The commands that compare targets cell by cell, and the one that draws an earlier comparison again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import environment, plan
from benchmarks.cli import planning, running
from benchmarks.cli.arguments import cluster_size, files, names, numbers, urls
from benchmarks.cli.flags import (
    SECONDS,
    TOOLS,
    Commands,
    add_number,
    add_output,
    add_servers,
    add_shape,
    add_variants,
    joined,
)
from benchmarks.limits import raise_file_limit
from benchmarks.report import layers, words
from benchmarks.report.html import write_page
from benchmarks.report.plots import write_plots
from benchmarks.report.table import show
from benchmarks.results import Summary, read_summary, write_raw, write_summary
from benchmarks.targets import CLUSTER_NODES, EMBEDDED, INFRASTRUCTURES, TARGETS, YARDSTICK, deployment

LAYER_USERS = (3, 96)
LAYER_ROUNDS = 5


def add_compare(commands: Commands) -> None:
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
        help=f"{' and '.join(planning.QUICK)} alone, the latter on all its servers, in less than four minutes",
    )
    parser.add_argument(
        "--infrastructures",
        type=names(INFRASTRUCTURES),
        default=(EMBEDDED,),
        metavar="I,I",
        help=f"one after another, each beside etcd: {joined(INFRASTRUCTURES)}; {EMBEDDED} unless given",
    )
    add_shape(parser)
    parser.add_argument(
        "--targets", type=names(TARGETS), default=argparse.SUPPRESS, metavar="T,T", help=joined(TARGETS)
    )
    add_servers(parser)
    parser.add_argument(
        "--nodes",
        type=cluster_size,
        default=CLUSTER_NODES,
        metavar="N",
        help=f"of each cluster; {CLUSTER_NODES} unless given",
    )
    parser.add_argument(
        "--endpoints",
        type=urls,
        default=(),
        metavar="URL,URL",
        help="measure also the cluster that runs there; it overwrites keys that are named after the workloads",
    )
    add_output(parser, "stats", run_compare)


def add_run(commands: Commands) -> None:
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
    add_shape(parser)
    add_output(parser, "stats/compose", run_compose)


def add_attribute(commands: Commands) -> None:
    parser = commands.add_parser(
        "attribute",
        help="measure what each layer costs",
        description="Measure PUTs and GETs of each variant with one layer taken away after another: fsync, Raft, "
        "the SQL store, the front. What a request costs less is the layer's share.",
    )
    add_variants(parser, argparse.SUPPRESS)
    parser.add_argument(
        "--users",
        type=numbers,
        default=LAYER_USERS,
        metavar="N,N",
        help=f"{joined(LAYER_USERS)} unless given",
    )
    add_number(parser, "--rounds", LAYER_ROUNDS)
    add_number(parser, "--seconds", SECONDS, metavar="S")
    parser.add_argument(
        "--tools",
        type=names(TOOLS),
        default=argparse.SUPPRESS,
        metavar="T",
        help="the first that is installed",
    )
    add_output(parser, "stats/layers", run_attribute)


def add_report(commands: Commands) -> None:
    parser = commands.add_parser("report", help="draw the report of an earlier comparison again")
    add_output(parser, "stats", run_report)


def run_compare(options: argparse.Namespace, console: Console) -> int:
    return _measure(planning.planned(options, console), options.output, console)


def run_compose(options: argparse.Namespace, console: Console) -> int:
    found = options.compose
    targets = [deployment(file, own_ports=len(found) > 1) for file in found]
    return _measure(planning.grid(options, console, targets, "compose"), options.output, console)


def run_attribute(options: argparse.Namespace, console: Console) -> int:
    chains = planning.chains(options)
    [tool, *_] = planning.tools_for(options, console)
    cells = plan.switches(tool, chains, options.users, options.seconds, options.rounds)
    return _measure(cells, options.output, console)


def run_report(options: argparse.Namespace, console: Console) -> int:
    summary = read_summary(options.output)
    _report(options.output, summary)
    _show(summary, options.output, console)
    return 0


def _measure(cells: Sequence[plan.Cell], output: Path, console: Console) -> int:
    running.check_writable(output)
    raise_file_limit(cells)
    facts = environment.describe()
    measured = running.measure(cells, facts, console)
    summary = Summary(facts, running.command(), measured.runs, measured.starts, measured.versions)
    with running.writing():
        write_raw(output, measured.raw)
        write_summary(output, summary)
        _report(output, summary)
    _show(summary, output, console)
    return 0


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
