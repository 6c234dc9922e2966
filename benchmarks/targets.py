"""What can be measured, as data: variants and etcd, each in the infrastructures it has.

A new variant is a row in ``SERVERS``.  Nothing here starts a process (see ``cluster``), and nothing in this package
imports a variant: it is known by its command alone (see ``commands``), and is there when Python can find it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.errors import BenchmarkError

#: Stand-ins for programs, so that a command can be shown as a user would type it.
PYTHON = "python"
ETCD = "etcd"

NATIVE, GRANIAN, HYPERCORN = "native", "granian", "hypercorn"

EMBEDDED, INDEPENDENT = "embedded", "independent"
LINEARIZABLE, UNSAFE = "standalone-linearizable", "standalone-unsafe"
INFRASTRUCTURES = (EMBEDDED, INDEPENDENT, LINEARIZABLE, UNSAFE)
CLUSTER, STANDALONE = "cluster", "standalone"  # etcd's
CLUSTER_NODES = 3

FSYNC, NO_FSYNC, IN_MEMORY, UNKNOWN = "fsync", "no fsync", "memory", "unknown"


@dataclass(frozen=True, slots=True)
class Target:
    """One row of every table: something that serves etcd's v2 API on a few nodes.

    ``command`` starts a node, apart from the flags that tell the nodes of a cluster from each other (``member``: a
    member of a cluster, which takes Raft's flags too).  ``service``, where there is one, starts the key-value service
    that a node drives, a process of its own.  ``compose`` is a deployment's file in place of commands
    (``own_ports``: on free ports, not on 8001 to 8003).  Without any of these the nodes run already, at
    ``endpoints``.  ``apart``: the nodes know nothing of each other.  ``verified``: it must answer as etcd does.
    """

    name: str
    infrastructure: str
    command: tuple[str, ...] = ()
    service: tuple[str, ...] = ()
    compose: str = ""
    own_ports: bool = False
    nodes: int = CLUSTER_NODES
    member: bool = True
    apart: bool = False
    endpoints: tuple[str, ...] = ()
    durability: str = FSYNC
    reads: str = "local"
    verified: bool = True

    @property
    def label(self) -> str:
        """Tells it from every other target, where infrastructures stand side by side."""
        return f"{self.name}, {self.infrastructure}"

    @property
    def folder(self) -> Path:
        """Where its results go, below the output folder."""
        return Path(self.name) / self.infrastructure

    def sharing(self, endpoints: Sequence[str]) -> list[Sequence[str]]:
        """``endpoints`` in groups whose nodes have the same keys."""
        return [[endpoint] for endpoint in endpoints] if self.apart else [endpoints]


YARDSTICK = "etcd"

#: The HTTP servers that each variant can run on, the fastest first.
SERVERS: dict[str, tuple[str, ...]] = {
    "v1.servlet": (GRANIAN, HYPERCORN),
    "v1.reactive": (GRANIAN, HYPERCORN),
    "v2.servlet": (GRANIAN, HYPERCORN),
    "v2.reactive": (NATIVE, GRANIAN, HYPERCORN),
    "v3.reactive": (GRANIAN, HYPERCORN),
}

#: What bounds them all: see ``floor``.  Measured only where it is named.
FLOOR = "floor"

TARGETS = (YARDSTICK, *SERVERS, FLOOR)
SERVER_NAMES = tuple(dict.fromkeys([NATIVE, *(server for each in SERVERS.values() for server in each)]))

RAFT_NODE = "common_raft.independent"


def installed(module: str) -> bool:
    """Whether ``python -m module`` would find something to run."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


def available() -> list[str]:
    """The targets that can be measured here, in the catalogue's order."""
    return [YARDSTICK, *(name for name in SERVERS if installed(name))]


def check_available(name: str, infrastructure: str) -> None:
    """:raises BenchmarkError: what ``name`` needs in ``infrastructure`` is not part of this version."""
    if name == FLOOR and infrastructure != EMBEDDED:
        raise BenchmarkError(f"{FLOOR} is there in {EMBEDDED} alone, not in {infrastructure}")
    if name in (YARDSTICK, FLOOR):
        return
    if not installed(name):
        raise BenchmarkError(f"{name} is not part of this version: there is no package {name}")
    if infrastructure == INDEPENDENT and not installed(RAFT_NODE):
        raise BenchmarkError(f"{INDEPENDENT} is not part of this version: there is no package {RAFT_NODE}")


def resolve(name: str, infrastructure: str, servers: Iterable[str] | None = None) -> list[Target]:
    """The variant ``name``, once for each of ``servers`` that it can run on; on its fastest if none are named.

    For etcd: the one that the variants of ``infrastructure`` are compared with.

    :raises BenchmarkError: no such target, or not in this version.
    """
    if name not in TARGETS:
        raise BenchmarkError(f"unknown target {name!r}; there are: {', '.join(TARGETS)}")
    check_available(name, infrastructure)
    if name == YARDSTICK:
        return [yardstick(infrastructure)]
    if name == FLOOR:
        return [Target(FLOOR, EMBEDDED, (PYTHON, "-m", "benchmarks.floor"), verified=False)]
    chosen = SERVERS[name][:1] if servers is None else servers
    return [variant(name, infrastructure, server) for server in chosen if server in SERVERS[name]]


def variant(name: str, infrastructure: str, server: str) -> Target:
    """``name`` on ``server``, whether or not it is there."""
    service = (PYTHON, "-m", name, "--server", server)
    target = Target(f"{name}-{server}", infrastructure, service)
    if infrastructure == EMBEDDED:
        return target
    if infrastructure == INDEPENDENT:
        return replace(target, command=(PYTHON, "-m", RAFT_NODE), service=service)
    mode = infrastructure.removeprefix(f"{STANDALONE}-")
    command = (*service, "--standalone", mode)
    return replace(target, command=command, nodes=1, member=False, durability=IN_MEMORY)


def yardstick(infrastructure: str) -> Target:
    """Standalone services are compared with one etcd, clusters with a cluster."""
    command = (ETCD, "--enable-v2", "--log-level", "warn")
    if infrastructure in (LINEARIZABLE, UNSAFE):
        return Target(YARDSTICK, STANDALONE, command, nodes=1)
    return Target(YARDSTICK, CLUSTER, command)


def of_size(target: Target, nodes: int) -> Target:
    """A cluster with so many nodes; what stands alone stays alone."""
    return replace(target, nodes=nodes) if target.nodes > 1 else target


def three(alone: Target) -> Target:
    """As many processes as a cluster has, each of which stands alone: an experiment, with results of its own."""
    return replace(alone, infrastructure=f"three-{alone.infrastructure}", nodes=CLUSTER_NODES, apart=True)


def without_fsync(target: Target) -> Target:
    """The same cluster, whose nodes do not wait for their disks: an experiment, with results of its own."""
    return replace(
        target,
        infrastructure=f"{target.infrastructure}-no-fsync",
        command=(*target.command, "--unsafe-no-fsync"),
        durability=NO_FSYNC,
    )


ASGI, WSGI = "asgi", "wsgi"


def interface(name: str) -> str:
    """What the front of the variant ``name`` is to an HTTP server."""
    return WSGI if name.endswith(".servlet") else ASGI


def bare(server: str, kind: str) -> Target:
    """An HTTP server with next to nothing behind it: what a request costs before any front sees it."""
    command = (PYTHON, "-m", "benchmarks.bare", "--server", server, "--interface", kind)
    return Target(
        f"bare-{kind}-{server}",
        "bare",
        command,
        nodes=1,
        member=False,
        durability=IN_MEMORY,
        verified=False,
    )


def running_elsewhere(endpoints: Sequence[str]) -> Target:
    """An existing cluster: its processes cannot be seen, and what it promises is not known here."""
    return Target(
        "endpoints",
        "existing",
        nodes=len(endpoints),
        endpoints=tuple(endpoints),
        durability=UNKNOWN,
        reads=UNKNOWN,
    )


def deployment(file: Path, *, own_ports: bool = False) -> Target:
    """A compose file as a target: ``v1/deployment/servlet/embedded.yaml`` is v1.servlet-compose, embedded."""
    parts = file.with_suffix("").parts
    name, infrastructure = file.parent.name or "deployment", file.stem
    if parts[-3:-2] == ("deployment",) and len(parts) > 3:
        version = parts[len(parts) - 4]
        name = name if version == "benchmarks" else f"{version}.{name}"
    durability = {
        EMBEDDED: FSYNC,
        INDEPENDENT: FSYNC,
        CLUSTER: FSYNC,
        STANDALONE: FSYNC,
        LINEARIZABLE: IN_MEMORY,
        UNSAFE: IN_MEMORY,
    }
    known = name in TARGETS and infrastructure in durability
    return Target(
        f"{name}-compose",
        infrastructure,
        compose=str(file),
        own_ports=own_ports,
        durability=durability[infrastructure] if known else UNKNOWN,
        reads="local" if known else UNKNOWN,
    )
