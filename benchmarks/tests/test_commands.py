import sys

import pytest

from benchmarks.commands import NodePlace, executable, node_commands
from benchmarks.errors import BenchmarkError
from benchmarks.targets import (
    EMBEDDED,
    INDEPENDENT,
    LINEARIZABLE,
    SERVERS,
    UNSAFE,
    bare,
    variant,
    without_fsync,
    yardstick,
)

PLACES = [
    NodePlace(f"n{number}", 8000 + number, 9000 + number, 7000 + number, f"DATA/n{number}")
    for number in (1, 2, 3)
]
ALL = [(name, server) for name, servers in SERVERS.items() for server in servers]
CLUSTER_FLAGS = (
    "--name n2 --data-dir DATA/n2 --listen-client-urls http://127.0.0.1:8002 "
    "--advertise-client-urls http://127.0.0.1:8002 --listen-peer-urls http://127.0.0.1:9002 "
    "--initial-advertise-peer-urls http://127.0.0.1:9002 "
    "--initial-cluster n1=http://127.0.0.1:9001,n2=http://127.0.0.1:9002,n3=http://127.0.0.1:9003 "
    "--initial-cluster-state new --initial-cluster-token token"
)
CLIENT_FLAGS = (
    "--name n2 --listen-client-urls http://127.0.0.1:8002 --advertise-client-urls http://127.0.0.1:8002"
)


def commands(target) -> list[str]:
    return [" ".join(command) for command in node_commands(target, PLACES[1], PLACES, "token")]


def test_a_member_of_etcd_is_told_where_it_and_the_others_listen():
    assert commands(yardstick(EMBEDDED)) == [f"etcd --enable-v2 --log-level warn {CLUSTER_FLAGS}"]


@pytest.mark.parametrize(("name", "server"), ALL)
def test_an_embedded_variant_starts_with_the_same_flags_as_etcd(name: str, server: str):
    target = variant(name, EMBEDDED, server)
    assert commands(target) == [f"python -m {name} --server {server} {CLUSTER_FLAGS}"]
    assert commands(without_fsync(target)) == [
        f"python -m {name} --server {server} --unsafe-no-fsync {CLUSTER_FLAGS}"
    ]


@pytest.mark.parametrize(("name", "server"), ALL)
def test_an_independent_node_is_a_service_and_a_raft_node_that_drives_it(name: str, server: str):
    assert commands(variant(name, INDEPENDENT, server)) == [
        f"python -m {name} --server {server} --listen-application-urls http://127.0.0.1:7002",
        f"python -m common_raft.independent --application http://127.0.0.1:7002 {CLUSTER_FLAGS}",
    ]


@pytest.mark.parametrize(("name", "server"), ALL)
@pytest.mark.parametrize("infrastructure", [LINEARIZABLE, UNSAFE])
def test_a_standalone_service_is_one_process_without_any_flag_of_raft(
    name: str, server: str, infrastructure: str
):
    mode = infrastructure.split("-")[1]
    target = variant(name, infrastructure, server)
    assert target.nodes == 1
    assert commands(target) == [f"python -m {name} --server {server} --standalone {mode} {CLIENT_FLAGS}"]


def test_a_bare_server_takes_a_standalone_services_flags():
    assert commands(bare("hypercorn", "wsgi")) == [
        f"python -m benchmarks.bare --server hypercorn --interface wsgi {CLIENT_FLAGS}"
    ]


def test_programs_are_found_beside_this_python():
    assert executable(["python", "-m", "x"]) == [sys.executable, "-m", "x"]
    with pytest.raises(BenchmarkError, match="no-such-program is not installed"):
        executable(["no-such-program"])
