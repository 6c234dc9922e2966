import sys
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.targets import (
    CATALOGUE,
    NodePlace,
    executable,
    node_command,
    resolve,
    running_elsewhere,
)

PLACES = [NodePlace(f"n{number}", 8000 + number, 9000 + number, f"DATA/n{number}") for number in (1, 2, 3)]


def test_a_variant_starts_with_the_same_flags_as_etcd():
    [variant] = resolve("v2.reactive", ["native"])
    etcd = node_command(CATALOGUE["etcd"], PLACES[1], PLACES, "token")
    ours = node_command(variant, PLACES[1], PLACES, "token")
    assert etcd[:4] == ["etcd", "--enable-v2", "--log-level", "warn"]
    assert ours[:5] == ["python", "-m", "v2.reactive", "--server", "native"]
    assert etcd[4:] == ours[5:]


def test_a_node_is_told_where_it_and_the_others_listen():
    command = node_command(CATALOGUE["etcd"], PLACES[1], PLACES, "token")
    flags = dict(zip(command[4::2], command[5::2], strict=True))
    assert flags == {
        "--name": "n2",
        "--data-dir": "DATA/n2",
        "--listen-client-urls": "http://127.0.0.1:8002",
        "--advertise-client-urls": "http://127.0.0.1:8002",
        "--listen-peer-urls": "http://127.0.0.1:9002",
        "--initial-advertise-peer-urls": "http://127.0.0.1:9002",
        "--initial-cluster": "n1=http://127.0.0.1:9001,n2=http://127.0.0.1:9002,n3=http://127.0.0.1:9003",
        "--initial-cluster-state": "new",
        "--initial-cluster-token": "token",
    }


def test_a_target_with_a_choice_of_servers_is_one_row_for_each():
    found = resolve("v2.reactive", ["native", "granian"])
    assert [target.name for target in found] == ["v2.reactive-native", "v2.reactive-granian"]
    assert found[0].folder == Path("v2.reactive-native/embedded")
    assert [target.name for target in resolve("etcd", ["native", "granian"])] == ["etcd"]


def test_an_unknown_target_is_refused_with_the_known_ones():
    with pytest.raises(BenchmarkError, match=r"unknown target 'v9'; there are: etcd, v2\.reactive"):
        resolve("v9", [])


def test_what_runs_elsewhere_promises_nothing():
    target = running_elsewhere(["http://10.0.0.1:2379"])
    assert (target.durability, target.reads, target.command) == ("unknown", "unknown", ())


def test_programs_are_found_beside_this_python():
    assert executable(["python", "-m", "x"]) == [sys.executable, "-m", "x"]
    with pytest.raises(BenchmarkError, match="no-such-program is not installed"):
        executable(["no-such-program"])
