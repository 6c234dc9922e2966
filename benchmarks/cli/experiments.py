"""The commands that measure one thing beside etcd, each in its own way: failover, many keys, watchers."""

from __future__ import annotations

import argparse

from rich.console import Console

from benchmarks import audience, environment, failover, million, million_report, watch, watch_report
from benchmarks.cli.arguments import many, names, number
from benchmarks.cli.flags import Commands, add_number, add_output, add_variants, joined
from benchmarks.cli.running import check_writable, command, progress
from benchmarks.limits import BESIDE, allow_files
from benchmarks.targets import EMBEDDED, YARDSTICK, Target, resolve

KILLS = 20


def add_failover(commands: Commands) -> None:
    parser = commands.add_parser(
        "failover",
        help="measure how long a cluster takes no writes when its leader is killed",
        description="Kill the leader of three nodes of etcd and of each variant in turn, and measure the time from "
        "SIGKILL to the next acknowledged write through a node that is left.",
    )
    add_variants(parser)
    add_number(parser, "--kills", KILLS, "for each target")
    add_number(parser, "--heartbeat-interval", 100, metavar="MS")
    add_number(parser, "--election-timeout", 1000, metavar="MS")
    add_output(parser, "stats/failover", run_failover)


def add_million(commands: Commands) -> None:
    parser = commands.add_parser(
        "million",
        help="measure what many keys ask of a node",
        description="Fill three nodes of etcd and of each variant with values of 100 bytes, and measure a restart, "
        "the memory that a key takes, what users wait for while snapshots are taken, and what a follower that missed "
        "all of it costs the others when it comes back. About twelve minutes with a million keys.",
    )
    size = million.Size()
    add_variants(parser)
    parser.add_argument(
        "--parts",
        type=names(million.PARTS),
        default=million.PARTS,
        metavar="P,P",
        help=f"{joined(million.PARTS)}; all unless given",
    )
    parser.add_argument("--keys", type=many, default=size.keys, metavar="N", help=f"{size.keys} unless given")
    add_number(parser, "--restarts", size.restarts)
    add_number(parser, "--users", size.users)
    add_number(parser, "--seconds", int(size.seconds), "of each throughput", "S")
    parser.add_argument(
        "--snapshot-count", type=number, metavar="N", help="for all nodes; each its own default unless given"
    )
    add_output(parser, "stats/million", run_million)


def add_watch(commands: Commands) -> None:
    parser = commands.add_parser(
        "watch",
        help="measure how soon those who watch a key hear of a write",
        description="Let clients watch one key of three nodes of etcd and of each variant in turn, write it, and "
        "measure the time from the PUT until each has its event. About a minute.",
    )
    size = watch.Size()
    add_variants(parser)
    add_number(parser, "--watchers", size.watchers, "spread over the nodes")
    parser.add_argument(
        "--kinds",
        type=names(audience.QUERIES),
        default=tuple(audience.QUERIES),
        metavar="K,K",
        help=f"of watchers, by what they ask for: {joined(audience.QUERIES)}; both unless given",
    )
    add_number(parser, "--rounds", size.rounds)
    add_number(parser, "--events", size.events, "in a round")
    add_output(parser, "stats/watch", run_watch)


def run_failover(options: argparse.Namespace, console: Console) -> int:
    check_writable(options.output)
    targets = [
        failover.with_times(target, options.heartbeat_interval, options.election_timeout)
        for target in _beside_etcd(options)
    ]
    facts = environment.describe()
    with progress(console, failover.estimate(targets, options.kills)) as tell:
        outages = failover.measure(targets, options.kills, tell)
    failover.write(options.output, facts, command(), outages)
    failover.show(outages, console)
    return 0


def run_million(options: argparse.Namespace, console: Console) -> int:
    check_writable(options.output)
    size = million.Size(options.keys, options.restarts, options.users, seconds=options.seconds)
    targets = [million.prepared(target, options.snapshot_count) for target in _beside_etcd(options)]
    facts = environment.describe()
    with progress(console, million.estimate(targets, size, options.parts)) as tell:
        found = million.measure(targets, size, options.parts, tell)
    million_report.write(options.output, facts, command(), found)
    million_report.show(found, size, console)
    return 0


def run_watch(options: argparse.Namespace, console: Console) -> int:
    check_writable(options.output)
    size = watch.Size(options.watchers, options.rounds, options.events)
    allow_files(size.watchers + BESIDE, size.watchers, "watchers")
    targets = _beside_etcd(options)
    facts = environment.describe()
    with progress(console, watch.estimate(targets, options.kinds, size)) as tell:
        before = environment.load()
        found, starts = watch.measure(targets, options.kinds, size, tell)
    facts["load"] = f"load average {before:.1f} before, {environment.load():.1f} after"
    watch_report.write(options.output, facts, command(), size, found, starts)
    watch_report.show(found, size, console)
    return 0


def _beside_etcd(options: argparse.Namespace) -> list[Target]:
    """etcd, and the variants that are named."""
    servers = getattr(options, "servers", None)
    variants = [target for name in options.targets for target in resolve(name, EMBEDDED, servers)]
    return [*resolve(YARDSTICK, EMBEDDED), *variants]
