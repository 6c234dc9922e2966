"""Every compose file, for real: it is brought up, used, hurt, and taken down without a trace.

Needs a Docker daemon: ``tox -e deploy``. ``COMPOSE="docker compose" tox -e deploy`` takes that one.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from benchmarks import compose
from benchmarks.cluster import ROOT, free_ports
from benchmarks.compose import Composition, docker, endpoint, inspect
from benchmarks.errors import BenchmarkError
from benchmarks.keys import NodeClient
from benchmarks.verify import verify

# The first test may have to build the image. `processes` keeps these tests out where others say "not processes".
pytestmark = [pytest.mark.deploy, pytest.mark.processes, pytest.mark.timeout(900)]

WITHIN = 30.0  # s, for what a deployment takes to serve, or to serve again
WRITERS = 3
PAUSE = 0.02  # s between a writer's requests: all that it wrote is read again, from every node


@dataclass(frozen=True)
class Place:
    """A compose file, and what in it can be hurt; ``needs`` are the modules that its containers run."""

    file: Path
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join([*self.file.parent.relative_to(ROOT).parts, self.file.stem]).replace(
            "deployment-", ""
        )

    @property
    def exists(self) -> bool:
        return all(_found(name) for name in self.needs)


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(f"{module}.__main__") is not None
    except ModuleNotFoundError:
        return False


def places() -> Iterator[Place]:
    for infrastructure in ("standalone", "cluster"):
        yield Place(ROOT / "benchmarks" / "deployment" / "etcd" / f"{infrastructure}.yaml")
    for folder in sorted(ROOT.glob("v[123]/deployment/*")):
        variant = f"{folder.parent.parent.name}.{folder.name}"
        for name in ("embedded", "standalone-linearizable", "standalone-unsafe"):
            yield Place(folder / f"{name}.yaml", (variant,))
        yield Place(folder / "independent.yaml", (variant, "common_raft.independent"))


@pytest.fixture(scope="module", autouse=True)
def _daemon() -> None:
    if reason := compose.why_not():
        pytest.skip(f"nothing can be deployed here: {reason}")


class Deployment:
    """A composition that runs: its containers and the places of its nodes, by the names of the services."""

    def __init__(self, composition: Composition) -> None:
        self.composition = composition
        self.containers = composition.containers()
        places = {service: endpoint(container) for service, container in self.containers.items()}
        self.endpoints = {service: place for service, place in places.items() if place}

    @property
    def all_endpoints(self) -> list[str]:
        return list(self.endpoints.values())

    def wait_until_it_serves(self) -> None:
        for service, place in self.endpoints.items():
            with NodeClient(place) as client:
                until(client.healthy, f"{service} serves")

    def leader(self) -> str:
        until(lambda: self.leader_among(self.endpoints) is not None, "somebody leads")
        leader = self.leader_among(self.endpoints)
        assert leader is not None
        return leader

    def leader_among(self, services: Iterable[str]) -> str | None:
        return next((service for service in services if self._state(service) == "StateLeader"), None)

    def _state(self, service: str) -> str | None:
        try:
            with NodeClient(self.endpoints[service]) as client:
                return str(client.request("GET", "/v2/stats/self").body.get("state"))
        except BenchmarkError:
            return None


def until(condition: Callable[[], bool], what: str, seconds: float = WITHIN) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s it is still not so that {what}"
        time.sleep(0.1)


@pytest.mark.parametrize("place", [place for place in places() if place.exists], ids=str)
def test_a_deployment_serves_survives_and_leaves_nothing(place: Place) -> None:
    ports = {f"PORT{number}": str(port) for number, port in enumerate(free_ports(3), start=1)}
    composition = Composition(place.file, f"test-{place}".lower(), ports)
    try:
        composition.up()
        deployment = Deployment(composition)
        deployment.wait_until_it_serves()
        verify(str(place), deployment.all_endpoints)
        check_linearizable_reads(deployment)
        check_containers_are_healthy_and_confined(deployment)
        check_a_crash_is_followed_by_a_start(deployment)
        if len(deployment.endpoints) > 1:
            check_a_leader_without_peers_is_replaced_and_comes_back(deployment)
            check_kills_under_load_lose_nothing(deployment)
        if "etcd" not in str(place):  # a leader of etcd that nobody is left to follow waits longer than we do
            check_it_ends_when_asked(deployment)
    except BaseException:
        print(composition.logs())
        raise
    finally:
        composition.down()
    assert composition.leftovers() == []


def check_linearizable_reads(deployment: Deployment) -> None:
    for number, place in enumerate(deployment.all_endpoints):
        with NodeClient(place) as writer:
            assert writer.put("linearizable", str(number)).status in (200, 201)
        for other in deployment.all_endpoints:
            with NodeClient(other) as reader:
                assert reader.get("linearizable?quorum=true").body["node"]["value"] == str(number)
    with NodeClient(deployment.all_endpoints[0]) as client:
        assert client.delete("linearizable").status == 200
    for place in deployment.all_endpoints:
        with NodeClient(place) as client:
            assert client.get("linearizable?quorum=true").status == 404


def check_containers_are_healthy_and_confined(deployment: Deployment) -> None:
    for service, container in deployment.containers.items():
        until(partial(is_healthy, container), f"{service} is healthy")
        seen = inspect(container)
        host = seen["HostConfig"]
        assert seen["Config"]["User"] in ("raftstacks", "etcd")
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["PidsLimit"] > 0
        assert host["ReadonlyRootfs"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert all(
            binding["HostIp"] == "127.0.0.1" for each in host["PortBindings"].values() for binding in each
        )


def is_healthy(container: str) -> bool:
    return bool(inspect(container)["State"]["Health"]["Status"] == "healthy")


def check_a_crash_is_followed_by_a_start(deployment: Deployment) -> None:
    container = next(iter(deployment.containers.values()))
    before = inspect(container)["RestartCount"]
    docker("exec", container, "bash", "-c", "kill -KILL -1")  # all but the container's init
    until(lambda: inspect(container)["RestartCount"] > before, "it was started again")
    deployment.wait_until_it_serves()


def check_a_leader_without_peers_is_replaced_and_comes_back(deployment: Deployment) -> None:
    cut = deployment.leader()
    others = [name for name in deployment.endpoints if name != cut]
    container, mesh = deployment.containers[cut], f"{deployment.composition.project}_mesh"
    with (
        NodeClient(deployment.endpoints[cut]) as client,
        NodeClient(deployment.endpoints[others[0]]) as other,
    ):
        assert client.put("before", "1").status in (200, 201)
        docker("network", "disconnect", mesh, container)
        assert (
            client.get("before").body["node"]["value"] == "1"
        )  # clients still reach it, over its own network
        until(lambda: deployment.leader_among(others) is not None, "the others have a leader")
        assert other.put("meanwhile", "2").status in (200, 201)
        docker("network", "connect", "--alias", cut, mesh, container)
        until(lambda: client.get("meanwhile").status == 200, f"{cut} has what it missed")
        until(lambda: client.put("after", "3").status in (200, 201), f"{cut} takes writes")
    deployment.wait_until_it_serves()


class Writer(threading.Thread):
    """Writes key after key, each once and through another node; remembers what was acknowledged."""

    def __init__(self, name: str, endpoints: list[str], stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self._prefix, self._endpoints, self._stopping = name, endpoints, stopping

    def run(self) -> None:
        number = 0
        while not self._stopping.wait(PAUSE):
            number += 1
            key = f"{self._prefix}-{number}"
            with NodeClient(self._endpoints[number % len(self._endpoints)]) as client:
                try:
                    if client.put(key, key).status == 201:
                        self.acknowledged.append(key)
                except BenchmarkError:
                    pass  # the node is down, or went down: nothing was promised


def check_kills_under_load_lose_nothing(deployment: Deployment) -> None:
    stopping = threading.Event()
    endpoints = deployment.all_endpoints
    writers = [Writer(f"writer-{number}", endpoints, stopping) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        time.sleep(0.5)
        leader = deployment.leader()
        # In an independent deployment, the key-value service of another node as well.
        beside = [name for name in deployment.containers if name not in deployment.endpoints]
        victims = [leader, *[name for name in beside if name[-1] != leader[-1]][:1]]
        for victim in victims:
            docker("kill", deployment.containers[victim])
            time.sleep(2.0)
            docker("start", deployment.containers[victim])  # unless-stopped leaves a kill as it is
            deployment.wait_until_it_serves()
        time.sleep(0.5)
    finally:
        stopping.set()
    for writer in writers:
        writer.join(WITHIN)
        assert not writer.is_alive()
    keys = [key for writer in writers for key in writer.acknowledged]
    assert len(keys) > 10
    for place in endpoints:
        with NodeClient(place) as client:
            until(lambda: client.get("any?quorum=true").status == 404, f"{place} reads linearizably")
            lost = [key for key in keys if client.get(key).body.get("node", {}).get("value") != key]
            assert lost == [], f"{place} has lost {len(lost)} of {len(keys)} acknowledged writes"


def check_it_ends_when_asked(deployment: Deployment) -> None:
    deployment.composition.stop()
    for service, container in deployment.containers.items():
        assert inspect(container)["State"]["ExitCode"] == 0, f"{service} did not end by itself"
