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
    if form is None:
        return request(port, method, target, timeout=timeout)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return request(port, method, target, urlencode(form).encode(), headers, timeout=timeout)


def request(
    port: int,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 15.0,
) -> Answer:
    """`ask` with any body."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"{method} {target}: {error!r}") from error
    finally:
        connection.close()


class NodeProcess:
    """One member.  Its data directory and flags stay the same over all its lives."""

    def __init__(
        self, name: str, command: Sequence[str], client_port: int, log: Path, data_dir: Path | None = None
    ) -> None:
        self.name = name
        self.client_port = client_port
        self.log = log
        self.data_dir = data_dir
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

    def ask_json(self, method: str, target: str, body: object, *, timeout: float = 15) -> Answer:
        headers = {"Content-Type": "application/json"}
        return request(self.client_port, method, target, json.dumps(body).encode(), headers, timeout=timeout)

    def member_id(self) -> str:
        """As ``/v2/members`` has it."""
        return str(self.ask("GET", "/v2/stats/self", timeout=2).json["id"])

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

    ``commands``, one for each member, in place of ``command`` where the members differ.  ``proxied``: the members
    are told to dial each other at ``dialled_ports``, where somebody passes on to ``peer_ports`` (`testing.proxy`).
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
        proxied: bool = False,
    ) -> None:
        ports = free_ports(3 * size)
        names = [f"n{number + 1}" for number in range(size)]
        self.peer_ports = dict(zip(names, ports[size : 2 * size], strict=True))
        self.dialled_ports = dict(zip(names, ports[2 * size :], strict=True)) if proxied else self.peer_ports
        self.token = f"test-{ports[0]}"
        peer_urls = {name: f"http://{HOST}:{port}" for name, port in self.dialled_ports.items()}
        self.members = ",".join(f"{name}={url}" for name, url in peer_urls.items())
        self.directory = directory
        self.nodes = []
        self._data, self._flags = data, flags
        commands = commands if commands is not None else [command] * size
        for name, own_command, port in zip(names, commands, ports[:size], strict=True):
            self.nodes.append(
                self._node(name, own_command, port, self.peer_ports[name], peer_urls[name], self.members)
            )

    def _node(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        peer_port: int,
        peer_url: str,
        members: str,
        state: str = "new",
    ) -> NodeProcess:
        """``peer_url`` is where the others dial it, which a proxy makes another port than ``peer_port``."""
        client_url = f"http://{HOST}:{port}"
        data_dir = self.directory / self._data / name
        arguments = {
            "name": name,
            "data-dir": str(data_dir),
            "listen-client-urls": client_url,
            "advertise-client-urls": client_url,
            "listen-peer-urls": f"http://{HOST}:{peer_port}",
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": members,
            "initial-cluster-state": state,
            "initial-cluster-token": self.token,
        }
        node_flags = [part for flag, value in arguments.items() for part in (f"--{flag}", value)]
        log = self.directory / f"{name}.log"
        return NodeProcess(name, [*command, *node_flags, *self._flags], port, log, data_dir)

    def add(self, command: Sequence[str], through: NodeProcess) -> NodeProcess:
        """Another member, told to the cluster by asking ``through``, and yet to be started."""
        name = f"n{len(self.nodes) + 1}"
        client_port, peer_port = free_ports(2)
        url = f"http://{HOST}:{peer_port}"
        answer = through.ask_json("POST", "/v2/members", {"peerURLs": [url]})
        if answer.status != 201:
            raise RuntimeError(f"{through.name} does not add a member: {answer}; logs:\n{self.logs()}")
        known = through.ask("GET", "/v2/members").json["members"]
        members = ",".join(
            f"{member['name'] or name}={each}" for member in known for each in member["peerURLs"]
        )
        node = self._node(name, command, client_port, peer_port, url, members, "existing")
        self.nodes.append(node)
        return node

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            self.wait_ready()
        except BaseException as error:
            self.__exit__(type(error), error, None)  # nobody else would end those that run
            raise
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
