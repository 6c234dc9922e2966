"""What the flags of a comparison ask for, as cells to measure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from benchmarks import attribution, plan
from benchmarks.cli.flags import EXAMPLE, ROUNDS, SECONDS, TOOLS, USERS, joined
from benchmarks.errors import BenchmarkError
from benchmarks.load import wrk
from benchmarks.targets import (
    EMBEDDED,
    SERVER_NAMES,
    SERVERS,
    YARDSTICK,
    Target,
    available,
    check_available,
    of_size,
    resolve,
    running_elsewhere,
)
from benchmarks.workloads import USUAL, WORKLOADS

QUICK = (YARDSTICK, EXAMPLE)

#: Flags that say what to measure: any of them makes a grid.
SHAPE = ("users", "rounds", "seconds", "tools", "workloads", "targets", "servers")


def planned(options: argparse.Namespace, console: Console) -> list[plan.Cell]:
    """The standard or the quick plan, or the grid that the flags ask for; for each infrastructure."""
    shape = [f"--{name}" for name in SHAPE if hasattr(options, name)]
    if options.quick and shape:
        raise BenchmarkError(f"--quick is a plan of its own: leave out {', '.join(shape)}, or --quick")
    tools = tools_for(options, console)
    cells = []
    for place, infrastructure in enumerate(options.infrastructures):
        targets = [of_size(target, options.nodes) for target in _targets(options, infrastructure)]
        if options.endpoints and place == 0:
            targets.append(running_elsewhere(options.endpoints))
        if options.quick:
            cells += plan.quick(tools, targets, infrastructure)
        elif shape:
            cells += grid(options, console, targets, infrastructure)
        else:
            cells += plan.standard(tools, targets, infrastructure)
    return cells


def grid(
    options: argparse.Namespace, console: Console, targets: Sequence[Target], section: str
) -> list[plan.Cell]:
    return plan.grid(
        tools_for(options, console),
        [WORKLOADS[name] for name in getattr(options, "workloads", USUAL)],
        getattr(options, "users", USERS),
        getattr(options, "seconds", SECONDS),
        getattr(options, "rounds", ROUNDS),
        targets,
        section,
    )


def _targets(options: argparse.Namespace, infrastructure: str) -> list[Target]:
    """What is named; else all that is there, or what is quick."""
    check_available(EXAMPLE, infrastructure)
    if options.quick:
        return [target for name in QUICK for target in resolve(name, infrastructure, SERVER_NAMES)]
    servers = getattr(options, "servers", None)
    found = []
    for name in getattr(options, "targets", available()):
        on_servers = resolve(name, infrastructure, servers)
        if hasattr(options, "targets") and not on_servers:
            raise BenchmarkError(
                f"{name} does not run on {joined(servers or ())}; it does on {joined(SERVERS[name])}"
            )
        found += on_servers
    return found


def chains(options: argparse.Namespace) -> list[attribution.Chain]:
    """A chain for each variant and server.

    :raises BenchmarkError: a variant that is named, or the one that it is compared with, is not there.
    """
    there = available()
    variants = getattr(options, "targets", [name for name in SERVERS if name in there])
    servers = getattr(options, "servers", None)
    found = []
    for name in variants:
        check_available(name, EMBEDDED)
        check_available(attribution.WITH_HASH_MAP.get(name, name), EMBEDDED)
        chosen = SERVERS[name][:1] if servers is None else servers
        found += [attribution.chain(name, server) for server in chosen if server in SERVERS[name]]
    if not found:
        raise BenchmarkError(f"none of {joined(variants)} runs on {joined(servers or ())}")
    return found


def tools_for(options: argparse.Namespace, console: Console) -> list[str]:
    """The tools that are named, or all; wrk only where it is installed.

    :raises BenchmarkError: only wrk was asked for, and it is missing.
    """
    tools = list(getattr(options, "tools", TOOLS))
    if wrk.NAME in tools and not wrk.installed():
        tools.remove(wrk.NAME)
        if not tools:
            raise BenchmarkError(f"{wrk.MISSING}, or use --tools locust")
        console.print(f"wrk is not installed: locust alone measures. To get wrk: {wrk.HOW_TO_GET}")
    return tools
