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
from pathlib import Path

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.keys import NodeClient
from benchmarks.targets import NodePlace, Target, executable, node_command

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
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._directory: Path | None = None

    @property
    def pids(self) -> list[int]:
        return [node.pid for node in self._nodes]

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
            node.terminate()

    def stop(self) -> None:
        """End the nodes, and what they may have started."""
        family = [process for node in self._nodes for process in _family(node.pid)]
        self.terminate()
        deadline = time.monotonic() + STOPPED_WITHIN
        for node in self._nodes:
            try:
                node.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        for process in family:
            if process.is_running():  # psutil compares the start times: never a stranger with the same number
                process.kill()
        psutil.wait_procs(family, timeout=STOPPED_WITHIN)
        self._nodes.clear()

    def remove(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def check_alive(self) -> None:
        """:raises BenchmarkError: a node has ended by itself."""
        for number, node in enumerate(self._nodes, start=1):
            if node.poll() is not None:
                raise BenchmarkError(
                    f"{self.target.name}: node n{number} ended with status {node.returncode}; "
                    f"it said: {self._last_words(number)}"
                )

    def _start_nodes(self, directory: Path) -> None:
        ports = free_ports(2 * self.target.nodes)
        places = [
            NodePlace(
                f"n{number}", ports[2 * number - 2], ports[2 * number - 1], str(directory / f"n{number}")
            )
            for number in range(1, self.target.nodes + 1)
        ]
        self.endpoints = tuple(place.client_url for place in places)
        for place in places:
            command = node_command(self.target, place, places, directory.name)
            self.commands.append(" ".join(command).replace(str(directory), "DATA"))
            with (directory / f"{place.name}.log").open("wb") as log:
                self._nodes.append(
                    subprocess.Popen(
                        [*_end_with_us(), *executable(command)],
                        cwd=ROOT,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        process_group=0,  # an interrupt from the keyboard is for us; we end the nodes
                    )
                )

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + (HEALTHY_WITHIN if self._nodes else ANSWERING_WITHIN)
        for number, endpoint in enumerate(self.endpoints, start=1):
            with NodeClient(endpoint) as client:
                while not client.healthy():
                    self.check_alive()
                    if time.monotonic() > deadline:
                        said = f"; its log ends: {self._last_words(number)}" if self._nodes else ""
                        raise BenchmarkError(f"{self.target.name}: {endpoint}/health is not good{said}")
                    time.sleep(0.05)

    def _last_words(self, number: int) -> str:
        if self._directory is None:
            return "nothing"
        log = self._directory / f"n{number}.log"
        lines = log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"


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
