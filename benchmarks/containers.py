"""A compose deployment as something to measure: brought up, found through its published ports, taken down."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from benchmarks.cluster import free_ports
from benchmarks.compose import Composition, compose_command, docker, endpoint, inspect
from benchmarks.errors import BenchmarkError
from benchmarks.keys import NodeClient
from benchmarks.targets import Target

HEALTHY_WITHIN = 60.0  # s from the end of `up`

PORT_VARIABLES = ("PORT1", "PORT2", "PORT3")  # in the compose files, with 8001 to 8003 as their defaults


def nodes_of(services: Iterable[str], published: Iterable[str]) -> dict[str, list[str]]:
    """The services of each node, n1, n2 and so on: one that is published, and those that share its number.

    An independent node is two services, raft1 and application1, of which only the first is published.
    """
    first = sorted(published)
    nodes = {f"n{place}": [service] for place, service in enumerate(first, start=1)}
    numbers = {_number(service): node for node, [service] in nodes.items()}
    for service in services:
        node = numbers.get(_number(service))
        if node is not None and service not in first:
            nodes[node].append(service)
    return nodes


def _number(service: str) -> str:
    """What a service's name ends with: "1" of raft1; nothing of a service that is alone."""
    found = re.search(r"\d*$", service)
    return found.group() if found else ""


class Deployment:
    """The containers of a compose file, in a project of their own, so that nobody else's are touched."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.endpoints: tuple[str, ...] = ()
        self.version = ""
        self.commands: list[str] = []
        self._file = Path(target.compose).resolve()
        project = re.sub(r"[^a-z0-9]+", "-", target.label.lower())
        ports = free_ports(len(PORT_VARIABLES)) if target.own_ports else []
        self._environment = dict(zip(PORT_VARIABLES, map(str, ports), strict=False))
        self._composition = Composition(self._file, f"raftstacks-bench-{project}", self._environment)
        self._containers: dict[str, str] = {}
        self._nodes: dict[str, list[str]] = {}
        self._up = False

    @property
    def pids(self) -> dict[str, list[int]]:
        """The processes of each node; empty where docker runs them on another machine, or in a virtual one."""
        found = {
            node: [pid for service in services for pid in processes(self._containers[service])]
            for node, services in self._nodes.items()
        }
        return found if all(found.values()) else {}

    def start(self) -> None:
        if not self._file.is_file():
            raise BenchmarkError(f"{self.target.compose}: no such compose file")
        self.commands = [_command(self._environment, self.target.compose)]
        self._up = True  # before it is: what is up in part is taken down too
        self._composition.up()
        self._containers = self._composition.containers()
        places = {service: endpoint(container) for service, container in self._containers.items()}
        published = {service: place for service, place in places.items() if place}
        if not published:
            raise BenchmarkError(f"{self.target.compose} publishes no port: nothing can be asked")
        self._nodes = nodes_of(self._containers, published)
        self.endpoints = tuple(published[services[0]] for services in self._nodes.values())
        self._wait_until_healthy()
        with NodeClient(self.endpoints[0]) as client:
            self.version = client.version()

    def settle(self) -> None:
        """Its files are in docker's volumes, which are not ours to open: all that the machine wrote goes to disk."""
        os.sync()

    def check_alive(self) -> None:
        for service, container in self._containers.items():
            if not inspect(container)["State"]["Running"]:
                raise BenchmarkError(f"{self.target.label}: {service} has ended; {self._last_words()}")

    def terminate(self) -> None:
        """Containers end in ``stop``."""

    def stop(self) -> None:
        """Takes the deployment down, volumes and all."""
        self._nodes, self._containers = {}, {}
        if self._up:
            self._up = False
            self._composition.down()

    def remove(self) -> None:
        """``stop`` has left nothing."""

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + HEALTHY_WITHIN
        for url in self.endpoints:
            with NodeClient(url) as client:
                while not client.healthy():
                    if time.monotonic() > deadline:
                        raise BenchmarkError(
                            f"{self.target.label}: {url}/health is not good; {self._last_words()}"
                        )
                    time.sleep(0.1)

    def _last_words(self) -> str:
        said = self._composition.logs().strip().splitlines()
        return f"its log ends: {said[-1]}" if said else "it said nothing"


def _command(environment: Mapping[str, str], file: str) -> str:
    """As a user would type it; without this machine's places."""
    shown = Path(file).name if Path(file).is_absolute() else file
    words = [f"{name}={value}" for name, value in environment.items()]
    return " ".join([*words, *compose_command(), "-f", shown, "up", "-d", "--build"])


def processes(container: str) -> list[int]:
    """The container's processes as this machine numbers them; none if any cannot be seen.

    Where docker runs in a virtual machine its numbers mean nothing here, or strangers: the names must agree.
    """
    found = []
    for line in docker("top", container, "-eo", "pid,comm").splitlines()[1:]:
        pid, _, name = line.strip().partition(" ")
        try:
            seen = psutil.Process(int(pid)).name()
        except (psutil.Error, ValueError):
            return []
        if seen[:15] != name.strip()[:15]:
            return []
        found.append(int(pid))
    return found
