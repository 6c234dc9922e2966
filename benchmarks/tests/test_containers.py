"""Deployments, with a docker and a compose that are a few lines of shell and an HTTP server."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cluster import free_ports
from benchmarks.containers import Deployment, nodes_of, processes
from benchmarks.errors import BenchmarkError
from benchmarks.targets import deployment


def test_an_independent_nodes_services_are_one_node():
    services = ["raft1", "application1", "raft2", "application2", "raft3", "application3"]
    assert nodes_of(services, ["raft3", "raft1", "raft2"]) == {
        "n1": ["raft1", "application1"],
        "n2": ["raft2", "application2"],
        "n3": ["raft3", "application3"],
    }


def test_a_service_alone_is_one_node_and_one_of_no_node_is_left_out():
    assert nodes_of(["service"], ["service"]) == {"n1": ["service"]}
    assert nodes_of(["node1", "metrics9"], ["node1"]) == {"n1": ["node1"]}


COMPOSE = """#!/bin/sh
echo "$PORT1 $*" >> {folder}/told
case "$*" in
*" ps -q"*) echo abc ;;
*" logs "*) echo "node1 | all is lost" ;;
esac
exit $(cat {folder}/status)
"""
DOCKER = """#!/bin/sh
case "$1" in
inspect) cat {folder}/inspected ;;
top) echo "PID COMMAND"; cat {folder}/top ;;
esac
"""
SERVER = [sys.executable, "-m", "benchmarks.bare", "--server", "granian", "--interface", "asgi"]


class Fake:
    """What docker says is in the files of ``folder``."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.file = folder / "v1" / "deployment" / "servlet" / "embedded.yaml"
        self.file.parent.mkdir(parents=True)
        self.file.write_text("services: {}")
        self.write("status", "0")
        self.write("top", f"{os.getpid()} {Path(f'/proc/{os.getpid()}/comm').read_text()}")
        self.publish(port)
        for name, text in (("compose", COMPOSE), ("docker", DOCKER)):
            script = folder / "bin" / name
            script.parent.mkdir(exist_ok=True)
            script.write_text(text.format(folder=folder))
            script.chmod(script.stat().st_mode | stat.S_IXUSR)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def publish(self, port: int | None, *, running: bool = True) -> None:
        places = {"2379/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]} if port else {}
        labels = {"com.docker.compose.service": "node1"}
        state = {
            "State": {"Running": running},
            "HostConfig": {"PortBindings": places},
            "Config": {"Labels": labels},
        }
        self.write("inspected", json.dumps([state]))

    @property
    def told(self) -> list[str]:
        """What compose was told to do, in turn."""
        words = (self.folder / "told").read_text().splitlines()
        return [word for line in words for word in line.split() if word in ("up", "down")]


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def fake(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(tmp_path, port)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("COMPOSE", str(tmp_path / "bin" / "compose"))
    return made


@pytest.fixture
def serving(port: int) -> Iterator[None]:
    with subprocess.Popen([*SERVER, "--listen-client-urls", f"http://127.0.0.1:{port}"]) as process:
        yield
        process.kill()


@pytest.mark.usefixtures("serving")
def test_a_deployment_is_brought_up_found_and_taken_down(fake: Fake, port: int):
    found = Deployment(deployment(fake.file))
    found.start()
    assert found.endpoints == (f"http://127.0.0.1:{port}",)
    assert found.pids == {"n1": [os.getpid()]}
    found.check_alive()
    assert found.commands == [f"{fake.folder}/bin/compose -f embedded.yaml up -d --build"]
    assert fake.told == ["up"]
    found.stop()
    found.stop()
    assert fake.told == ["up", "down"]
    assert found.pids == {}


def test_a_deployment_that_stays_ill_is_quoted_and_still_taken_down(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("benchmarks.containers.HEALTHY_WITHIN", 0.1)
    found = Deployment(deployment(fake.file))
    with pytest.raises(
        BenchmarkError, match=r"v1.servlet-compose, embedded: .*/health is not good; .* all is lost"
    ):
        found.start()
    found.stop()
    assert fake.told == ["up", "down"]


def test_a_compose_that_fails_and_a_deployment_without_ports_are_told(fake: Fake):
    fake.publish(None)
    with pytest.raises(BenchmarkError, match="publishes no port"):
        Deployment(deployment(fake.file)).start()
    fake.write("status", "3")
    with pytest.raises(BenchmarkError, match="ended with status 3"):
        Deployment(deployment(fake.file)).start()


@pytest.mark.usefixtures("serving")
def test_a_container_that_has_ended_is_found(fake: Fake, port: int):
    found = Deployment(deployment(fake.file))
    found.start()
    fake.publish(port, running=False)
    with pytest.raises(BenchmarkError, match="node1 has ended"):
        found.check_alive()


def test_several_deployments_have_ports_of_their_own(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PORT1", raising=False)
    monkeypatch.setattr("benchmarks.containers.HEALTHY_WITHIN", 0.0)
    for own_ports in (False, True):
        with pytest.raises(BenchmarkError):
            Deployment(deployment(fake.file, own_ports=own_ports)).start()
    first = [line.split()[0] for line in (fake.folder / "told").read_text().splitlines() if " up " in line]
    assert not first[0].isdigit()
    assert first[1].isdigit()


def test_processes_of_a_machine_that_is_not_ours_are_not_taken_for_ours(fake: Fake):
    assert processes("abc") == [os.getpid()]
    fake.write("top", f"{os.getpid()} stranger\n")
    assert processes("abc") == []
    fake.write("top", f"{2**22 + 1} python\n")
    assert processes("abc") == []
