import importlib.util
from pathlib import Path

import pytest

from benchmarks import targets
from benchmarks.errors import BenchmarkError
from benchmarks.targets import (
    EMBEDDED,
    INDEPENDENT,
    LINEARIZABLE,
    SERVERS,
    UNSAFE,
    available,
    bare,
    deployment,
    interface,
    resolve,
    running_elsewhere,
    three,
    variant,
    without_fsync,
    yardstick,
)


@pytest.fixture
def everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "installed", lambda module: True)


def only(*modules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "installed", lambda module: module in modules)


def test_a_target_with_a_choice_of_servers_is_one_row_for_each():
    found = resolve("v2.reactive", EMBEDDED, ["native", "granian"])
    assert [target.name for target in found] == ["v2.reactive-native", "v2.reactive-granian"]
    assert found[0].folder == Path("v2.reactive-native/embedded")
    assert [target.name for target in resolve("etcd", EMBEDDED, ["native", "granian"])] == ["etcd"]


@pytest.mark.usefixtures("everything_is_there")
def test_without_a_choice_each_variant_runs_on_its_fastest_server_alone():
    for name, servers in SERVERS.items():
        assert [target.name for target in resolve(name, EMBEDDED)] == [f"{name}-{servers[0]}"]
    assert resolve("v1.servlet", EMBEDDED, ["native"]) == []


def test_an_unknown_target_is_refused_with_the_known_ones():
    with pytest.raises(
        BenchmarkError, match=r"unknown target 'v9'; there are: etcd, v1\.servlet, .*, v3\.reac"
    ):
        resolve("v9", EMBEDDED, [])


def test_a_variant_is_there_when_python_finds_it(monkeypatch: pytest.MonkeyPatch):
    only("v2.reactive", "v1.servlet", monkeypatch=monkeypatch)
    assert available() == ["etcd", "v1.servlet", "v2.reactive"]
    with pytest.raises(
        BenchmarkError, match=r"v3\.reactive is not part of this version: there is no package v3\.re"
    ):
        resolve("v3.reactive", EMBEDDED)
    with pytest.raises(
        BenchmarkError, match=r"independent is not part of this version: .* common_raft\.independent"
    ):
        resolve("v2.reactive", INDEPENDENT)


def test_a_package_in_a_package_that_is_not_there_is_not_there():
    assert targets.installed("v2.reactive")
    assert not targets.installed("v2.none")
    with pytest.raises(ModuleNotFoundError):
        importlib.util.find_spec("v0.none")
    assert not targets.installed("v0.none")


def test_clusters_are_compared_with_a_cluster_and_standalone_services_with_one_etcd():
    for infrastructure in (EMBEDDED, INDEPENDENT):
        assert (yardstick(infrastructure).infrastructure, yardstick(infrastructure).nodes) == ("cluster", 3)
    for infrastructure in (LINEARIZABLE, UNSAFE):
        assert (yardstick(infrastructure).infrastructure, yardstick(infrastructure).nodes) == (
            "standalone",
            1,
        )


def test_every_row_says_what_a_write_survives():
    assert variant("v1.servlet", EMBEDDED, "granian").durability == "fsync"
    assert variant("v1.servlet", LINEARIZABLE, "granian").durability == "memory"
    cluster = without_fsync(variant("v1.servlet", EMBEDDED, "granian"))
    assert (cluster.durability, cluster.infrastructure) == ("no fsync", "embedded-no-fsync")
    assert cluster.command[-1] == "--unsafe-no-fsync"


def test_what_runs_elsewhere_promises_nothing():
    target = running_elsewhere(["http://10.0.0.1:2379"])
    assert (target.durability, target.reads, target.command) == ("unknown", "unknown", ())


def test_a_bare_server_has_the_interface_of_the_front_that_it_stands_for():
    assert [interface(name) for name in ("v1.servlet", "v1.reactive")] == ["wsgi", "asgi"]
    assert bare("granian", "wsgi").label == "bare-wsgi-granian, bare"
    assert not bare("granian", "wsgi").verified


@pytest.mark.parametrize(
    ("file", "label", "durability"),
    [
        ("v1/deployment/servlet/embedded.yaml", "v1.servlet-compose, embedded", "fsync"),
        ("/somewhere/v2/deployment/reactive/independent.yaml", "v2.reactive-compose, independent", "fsync"),
        ("v3/deployment/reactive/standalone-unsafe.yaml", "v3.reactive-compose, standalone-unsafe", "memory"),
        ("benchmarks/deployment/etcd/cluster.yaml", "etcd-compose, cluster", "fsync"),
        ("mine/three.yaml", "mine-compose, three", "unknown"),
        ("three.yaml", "deployment-compose, three", "unknown"),
    ],
)
def test_a_compose_file_says_by_its_place_what_it_deploys(file: str, label: str, durability: str):
    target = deployment(Path(file))
    assert (target.label, target.durability) == (label, durability)


def test_a_cluster_has_as_many_nodes_as_are_asked_for_and_what_stands_alone_stays_alone():
    assert targets.of_size(targets.yardstick(EMBEDDED), 5).nodes == 5
    assert targets.of_size(targets.yardstick(UNSAFE), 5).nodes == 1


def test_three_that_stand_alone_share_no_keys_and_a_cluster_does():
    alone = variant("v2.servlet", LINEARIZABLE, "granian")
    apart = three(alone)
    assert (apart.nodes, apart.label) == (3, "v2.servlet-granian, three-standalone-linearizable")
    assert apart.command == alone.command
    assert apart.sharing(["a", "b", "c"]) == [["a"], ["b"], ["c"]]
    assert yardstick(EMBEDDED).sharing(["a", "b", "c"]) == [["a", "b", "c"]]
