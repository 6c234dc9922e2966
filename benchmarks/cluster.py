"""A target's nodes as processes on this machine: free ports, fresh data directories, a certain end."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.commands import NodePlace, executable, node_commands
from benchmarks.errors import BenchmarkError
from benchmarks.keys import NodeClient
from benchmarks.targets import Target

#: Where `benchmarks`, `v1`, `v2` and `v3` are: commands and the scripts' paths are relative to it.
ROOT = Path(__file__).resolve().parent.parent

HEALTHY_WITHIN = 30.0  # s from the start of the processes
ANSWERING_WITHIN = 3.0  # s, for nodes that are said to run already
STOPPED_WITHIN = 5.0  # s from SIGTERM; then SIGKILL

# Below Linux's range for outgoing connections (from 32768), or a client of one node could take another's port.
PORTS = range(20_000, 32_000)

MEMORY_FILESYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now; all are held until the last is found, so that they differ."""
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.sample(PORTS, len(PORTS)):
            held = stack.enter_context(socket.socket())
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == number:
                return found
    raise BenchmarkError(f"no {number} free ports from {PORTS.start} to {PORTS.stop}")


def filesystem(directory: Path) -> str:
    """The type of the file system that ``directory`` is on."""
    path = directory.resolve()
    mounts: dict[Path, str] = {
        Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)
    }
    for parent in (path, *path.parents):
        if parent in mounts:
            return mounts[parent]
    return "unknown"


def disk_directory() -> Path:
    """A directory for temporary files that is on a disk: fsync in memory costs nothing and would prove nothing."""
    for directory in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()):
        if directory.is_dir() and filesystem(directory) not in MEMORY_FILESYSTEMS:
            return directory
    raise BenchmarkError("the temporary directories are in memory; set TMPDIR to a directory on a disk")


class Cluster:
    """The nodes of a target, from ``start()`` to ``stop()``; for a cluster elsewhere, only its endpoints.

    ``remove()`` takes their data away.  It is apart from ``stop()`` because the removal of large files can keep a
    disk busy for seconds: not while another cluster is measured.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.endpoints: tuple[str, ...] = target.endpoints
        self.version = ""
        self.commands: list[str] = []
        self._nodes: list[_Process] = []
        self._directory: Path | None = None

    @property
    def pids(self) -> dict[str, list[int]]:
        """The processes of each node; empty where they cannot be seen."""
        found: dict[str, list[int]] = {}
        for node in self._nodes:
            found.setdefault(node.node, []).append(node.process.pid)
        return found

    def start(self) -> None:
        """Start the nodes and wait until each knows a leader."""
        if self.target.command:
            self._directory = Path(tempfile.mkdtemp(prefix="raftstacks-", dir=disk_directory()))
            self._start_nodes(self._directory)
        self._wait_until_healthy()
        with NodeClient(self.endpoints[0]) as client:
            self.version = client.version()

    def settle(self) -> None:
        """New nodes preallocate their logs: let that reach the disk now and not during the first run."""
        if self._directory is None:
            return
        for file in self._directory.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())

    def terminate(self) -> None:
        """Ask the nodes to end; do not wait."""
        for node in self._nodes:
            node.process.terminate()

    def stop(self) -> None:
        """End the nodes, and what they may have started."""
        family = [process for node in self._nodes for process in _family(node.process.pid)]
        self.terminate()
        deadline = time.monotonic() + STOPPED_WITHIN
        for node in self._nodes:
            try:
                node.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                node.process.kill()
                node.process.wait()
        for process in family:
            if process.is_running():  # psutil compares the start times: never a stranger with the same number
                process.kill()
        psutil.wait_procs(family, timeout=STOPPED_WITHIN)
        self._nodes.clear()

    def remove(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def leader(self) -> str | None:
        """The endpoint of the node that says it leads; None while none does."""
        for endpoint in self.endpoints:
            with NodeClient(endpoint) as client:
                if client.leads():
                    return endpoint
        return None

    def kill(self, endpoint: str) -> None:
        """SIGKILL for the node at ``endpoint``; returns when it is gone."""
        for node in self._nodes_at(endpoint):
            node.process.kill()
            node.process.wait()

    def restart(self, endpoint: str) -> None:
        """Start the node at ``endpoint`` again, with its data; returns when every node knows a leader."""
        self.launch(endpoint)
        self._wait_until_healthy()

    def launch(self, endpoint: str) -> None:
        """The same, and returns at once."""
        for node in self._nodes_at(endpoint):
            place = self._nodes.index(node)
            self._nodes[place] = _start(node.node, node.command, node.log)

    def log(self, endpoint: str) -> Path:
        """What the node at ``endpoint`` has said, since its first start."""
        [node] = self._nodes_at(endpoint)
        return node.log

    def check_alive(self) -> None:
        """:raises BenchmarkError: a process of a node has ended by itself."""
        for node in self._nodes:
            if node.process.poll() is not None:
                raise BenchmarkError(
                    f"{self.target.name}: node {node.node} ended with status {node.process.returncode}; "
                    f"it said: {node.last_words()}"
                )

    def _start_nodes(self, directory: Path) -> None:
        ports = iter(free_ports(3 * self.target.nodes))
        names = [f"n{number}" for number in range(1, self.target.nodes + 1)]
        places = [
            NodePlace(name, next(ports), next(ports), next(ports), str(directory / name)) for name in names
        ]
        self.endpoints = tuple(place.client_url for place in places)
        for place in places:
            for part, command in enumerate(node_commands(self.target, place, places, directory.name)):
                self.commands.append(" ".join(command).replace(str(directory), "DATA"))
                self._nodes.append(_start(place.name, command, directory / f"{place.name}-{part}.log"))

    def _nodes_at(self, endpoint: str) -> list[_Process]:
        name = f"n{self.endpoints.index(endpoint) + 1}"
        return [node for node in self._nodes if node.node == name]

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + (HEALTHY_WITHIN if self._nodes else ANSWERING_WITHIN)
        for number, endpoint in enumerate(self.endpoints, start=1):
            with NodeClient(endpoint) as client:
                while not client.healthy():
                    self.check_alive()
                    if time.monotonic() > deadline:
                        said = self._last_words(f"n{number}")
                        raise BenchmarkError(f"{self.target.name}: {endpoint}/health is not good{said}")
                    time.sleep(0.05)

    def _last_words(self, name: str) -> str:
        said = " / ".join(node.last_words() for node in self._nodes if node.node == name)
        return f"; its log ends: {said}" if said else ""


@dataclass(frozen=True, slots=True)
class _Process:
    """A process of the node that is called ``node``, and what it has said so far."""

    node: str
    command: Sequence[str]
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"


def _start(node: str, command: Sequence[str], log: Path) -> _Process:
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*_end_with_us(), *executable(command)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # an interrupt from the keyboard is for us; we end the nodes
        )
    return _Process(node, command, process, log)


def _end_with_us() -> list[str]:
    """A prefix by which Linux kills a node whose parent was killed before it could end it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _family(pid: int) -> Sequence[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
