"""Real nodes as real processes, to be killed, stopped and started again: for end-to-end tests of a service.

Nothing here knows a variant: a cluster is told the command that starts a node, and adds etcd's flags to it.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

HOST = "127.0.0.1"

#: Below Linux's range for outgoing connections (from 32768): one of those could take a port there between the look at
#: it and its use.
PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all are held until the last is found, so that they differ."""
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.sample(PORTS, len(PORTS)):
            held = stack.enter_context(socket.socket())
            try:
                held.bind((HOST, port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports from {PORTS.start} to {PORTS.stop}")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; ``headers`` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    method: str,
    target: str,
    form: Mapping[str, object] | None = None,
    *,
    timeout: float = 15.0,
) -> Answer:
    """One request on a connection of its own; ``form`` becomes an urlencoded body.  Raises OSError."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
        connection.request(method, target, urlencode(form) if form is not None else None, headers)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"{method} {target}: {error!r}") from error
    finally:
        connection.close()


class NodeProcess:
    """One member.  Its data directory and flags stay the same over all its lives."""

    def __init__(self, name: str, command: Sequence[str], client_port: int, log: Path) -> None:
        self.name = name
        self.client_port = client_port
        self.log = log
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    def add_flags(self, *flags: str) -> None:
        """Flags for this member alone, from its next start on."""
        self._command += flags

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def alive_or_raise(self) -> bool:
        """Whether it was started and runs; raises RuntimeError, with its log, when it ended by itself."""
        if self._process is not None and not self.running and self._process.returncode > 0:
            raise RuntimeError(f"{self.name} ended; its log:\n{self.log.read_text()}")
        return self.running

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the process and waits for it; returns its exit status (negative: the signal)."""
        assert self._process is not None
        if self.running:
            self.send_signal(number)
        return self._process.wait(30)

    def stop_by_itself(self, seconds: float = 30) -> int:
        """Waits for the process to end; returns its exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def ask(
        self, method: str, target: str, form: Mapping[str, object] | None = None, *, timeout: float = 15
    ) -> Answer:
        return ask(self.client_port, method, target, form, timeout=timeout)

    def state(self) -> str | None:
        """StateLeader or StateFollower; None when it does not answer."""
        try:
            return str(self.ask("GET", "/v2/stats/self", timeout=2).json["state"])
        except OSError:
            return None

    def knows_leader(self) -> bool:
        try:
            return bool(self.ask("GET", "/health", timeout=2).status == 200)
        except OSError:
            return False


class ProcessCluster:
    """Several members on loopback.  Use it in a ``with``: it ends what it started.

    ``commands``, one for each member, in place of ``command`` where the members differ.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        size: int = 3,
        flags: Sequence[str] = (),
        data: str = "data",
        *,
        commands: Sequence[Sequence[str]] | None = None,
    ) -> None:
        ports = free_ports(2 * size)
        names = [f"n{number + 1}" for number in range(size)]
        peer_urls = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports[size:], strict=True)}
        members = ",".join(f"{name}={url}" for name, url in peer_urls.items())
        self.directory = directory
        self.nodes = []
        commands = commands if commands is not None else [command] * size
        for name, own_command, port in zip(names, commands, ports[:size], strict=True):
            client_url = f"http://{HOST}:{port}"
            arguments = {
                "name": name,
                "data-dir": str(directory / data / name),
                "listen-client-urls": client_url,
                "advertise-client-urls": client_url,
                "listen-peer-urls": peer_urls[name],
                "initial-advertise-peer-urls": peer_urls[name],
                "initial-cluster": members,
                "initial-cluster-token": f"test-{ports[0]}",
            }
            node_flags = [part for flag, value in arguments.items() for part in (f"--{flag}", value)]
            self.nodes.append(
                NodeProcess(name, [*own_command, *node_flags, *flags], port, directory / f"{name}.log")
            )

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start()
        self.wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            if node.running:
                node.send_signal(signal.SIGCONT)
                node.kill()

    def wait_ready(self, seconds: float = 30) -> None:
        """Until every running member can serve a linearizable read."""
        deadline = time.monotonic() + seconds
        for node in self.nodes:
            while node.alive_or_raise() and not node.knows_leader():
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{node.name} knows no leader after {seconds} s; its log:\n{self.logs()}"
                    )
                time.sleep(0.05)

    def leader(self, seconds: float = 30) -> NodeProcess:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for node in self.nodes:
                if node.running and node.state() == "StateLeader":
                    return node
            time.sleep(0.05)
        raise TimeoutError(f"no leader after {seconds} s; logs:\n{self.logs()}")

    def followers(self) -> list[NodeProcess]:
        leader = self.leader()
        return [node for node in self.nodes if node is not leader and node.running]

    def logs(self) -> str:
        return "\n".join(
            f"--- {node.name}\n{node.log.read_text()}" for node in self.nodes if node.log.exists()
        )


class DrivenCluster(ProcessCluster):
    """Members that each drive a service in a process of its own: ``services`` go with ``nodes``."""

    def __init__(
        self,
        command: Sequence[str],
        services: Sequence[Sequence[str]],
        directory: Path,
        flags: Sequence[str] = (),
    ) -> None:
        """``services``: for each member the command of its service."""
        super().__init__(command, directory, len(services), flags)
        self.services = []
        ports = free_ports(len(services))
        for node, service, port in zip(self.nodes, services, ports, strict=True):
            url = f"http://{HOST}:{port}"
            node.add_flags("--application", url)
            name = f"{node.name}-service"
            arguments = [*service, "--name", name, "--listen-application-urls", url]
            self.services.append(NodeProcess(name, arguments, port, directory / f"{name}.log"))

    def __enter__(self) -> Self:
        for service in self.services:
            service.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for service in self.services:
            if service.running:
                service.send_signal(signal.SIGCONT)
                service.kill()

    def service_of(self, node: NodeProcess) -> NodeProcess:
        return self.services[self.nodes.index(node)]

    def logs(self) -> str:
        services = (f"--- {each.name}\n{each.log.read_text()}" for each in self.services if each.log.exists())
        return "\n".join([super().logs(), *services])
