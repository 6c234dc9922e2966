"""The compose files agree with each other, with the flags, and with both versions of compose; no daemon is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.cluster import ROOT
from common_raft.service.flags import parse_flags

VARIANTS = ("v1.servlet", "v1.reactive", "v2.servlet", "v2.reactive", "v3.reactive")
MODEL = "v2.reactive"
FILES = ("embedded", "independent", "standalone-linearizable", "standalone-unsafe")
SHARED = ROOT / "common_raft" / "deployment"
ETCD = ROOT / "benchmarks" / "deployment" / "etcd"
CLUSTERS = {
    "node": SHARED / "embedded.yaml",
    "raft": SHARED / "independent.yaml",
    "etcd": ETCD / "cluster.yaml",
}
STANDALONE = [SHARED / "standalone.yaml", ETCD / "standalone.yaml"]

#: Words of today's compose that docker-compose 1.29 refuses or does not know.
TOO_NEW = {"name", "include", "required", "start_interval", "develop", "post_start", "pre_stop", "attach"}


def folder(variant: str) -> Path:
    version, _, stack = variant.partition(".")
    return ROOT / version / "deployment" / stack


def load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


def all_files() -> list[Path]:
    return [*ROOT.glob("v*/deployment/*/*.yaml"), *SHARED.glob("*.yaml"), *ETCD.glob("*.yaml")]


def merged(file: Path, name: str) -> dict[str, Any]:
    """A service with what it extends, near enough to what compose makes of it."""
    service = load(file)["services"][name]
    if "extends" not in service:
        return dict(service)
    target = (file.parent / service["extends"]["file"]).resolve()
    below = merged(target, service["extends"]["service"])
    environment = {**below.get("environment", {}), **service.get("environment", {})}
    return {**below, **service, "environment": environment}


def defaults(text: str) -> str:
    """What compose puts in place of ``${NAME:-default}`` when nothing is set."""
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_has_each_infrastructure_and_differs_in_its_name_alone(variant: str) -> None:
    assert sorted(file.stem for file in folder(variant).glob("*.yaml")) == sorted(FILES)
    for name in FILES:
        model = (folder(MODEL) / f"{name}.yaml").read_text()
        assert (folder(variant) / f"{name}.yaml").read_text() == model.replace(MODEL, variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_is_a_project_of_its_own(variant: str) -> None:
    """Compose would take the folder's name, which two versions share: one would take over the other's volumes."""
    assert (folder(variant) / ".env").read_text() == f"COMPOSE_PROJECT_NAME={variant.replace('.', '-')}\n"


def test_there_are_no_other_variants() -> None:
    assert {file.parent for file in ROOT.glob("v*/deployment/**/*.yaml")} == {
        folder(name) for name in VARIANTS
    }


@pytest.mark.parametrize("prefix", CLUSTERS)
def test_each_node_of_a_cluster_has_its_own_place(prefix: str) -> None:
    file = CLUSTERS[prefix]
    for number in (1, 2, 3):
        node = merged(file, f"{prefix}{number}")
        assert node["ports"] == [f"127.0.0.1:${{PORT{number}:-800{number}}}:2379"]
        assert node["networks"] == ["mesh", f"edge{number}"]
        assert node["volumes"] == [f"{prefix}{number}:/data"]
        settings = {key.partition("_")[2]: value for key, value in node["environment"].items()}
        assert settings["NAME"] == f"{prefix}{number}"
        assert settings["INITIAL_ADVERTISE_PEER_URLS"] == f"http://{prefix}{number}:2380"
        assert settings["DATA_DIR"] == "/data/log"
    loaded = load(file)
    assert list(loaded["networks"]) == ["mesh", "edge1", "edge2", "edge3"]
    assert loaded["networks"]["mesh"] == {"internal": True}
    assert list(loaded["volumes"]) == [f"{prefix}{number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("name", ["embedded", "independent"])
def test_a_variant_has_the_services_networks_and_volumes_of_what_it_extends(name: str) -> None:
    ours, shared = load(folder(MODEL) / f"{name}.yaml"), load(SHARED / f"{name}.yaml")
    assert set(ours["services"]) == set(shared["services"])
    assert ours["networks"] == shared["networks"]
    assert ours["volumes"] == shared["volumes"]
    for service, content in ours["services"].items():
        assert content["extends"]["service"] == service


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_raft_node_and_its_service_share_a_network_that_no_other_node_has(number: int) -> None:
    file = SHARED / "independent.yaml"
    assert f"http://application{number}:7001" in merged(file, f"raft{number}")["command"]
    application = merged(file, f"application{number}")
    assert application["networks"] == [f"edge{number}"]
    assert "7001" in application["healthcheck"]["test"]
    assert "ports" not in application


def test_a_single_service_is_published_as_a_first_node_is() -> None:
    for file in STANDALONE:
        assert merged(file, "standalone")["ports"] == ["127.0.0.1:${PORT1:-8001}:2379"]


def test_etcd_has_the_same_limits_and_rights() -> None:
    ours, etcds = (merged(place / "service.yaml", "service") for place in (SHARED, ETCD))
    different = {"build", "image", "healthcheck", "command"}
    assert {key: ours[key] for key in ours.keys() - different} == {
        key: etcds[key] for key in etcds.keys() - different
    }
    for service in (ours, etcds):
        assert {"healthcheck", "restart", "mem_limit", "cpus", "pids_limit", "cap_drop"} <= set(service)
        service["healthcheck"].pop("test")
    assert ours["healthcheck"] == etcds["healthcheck"]


@pytest.mark.parametrize("service", ["node1", "node2", "node3", "standalone"])
def test_the_environment_is_made_of_flags_that_exist(service: str) -> None:
    file = "standalone-unsafe.yaml" if service == "standalone" else "embedded.yaml"
    environment = merged(folder(MODEL) / file, service)["environment"]
    settings = parse_flags(
        MODEL, ["native"], [], {key: defaults(value) for key, value in environment.items()}
    )
    if service == "standalone":
        assert settings.standalone == "unsafe"
    else:
        assert settings.name == service
        assert len(settings.cluster.members) == 3


def keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield str(key)
            yield from keys(below)


@pytest.mark.parametrize("file", all_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_both_versions_of_compose_know_every_word(file: Path) -> None:
    assert not TOO_NEW & set(keys(load(file)))
    assert "version" not in load(file)  # today's compose warns of it


@pytest.mark.parametrize("file", [ROOT / "Dockerfile", ETCD / "Dockerfile"])
def test_the_classic_builder_can_build_the_image_and_it_does_not_run_as_root(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"^# *syntax|<<|--mount|--chmod|--link", text, re.MULTILINE)
    bases = {line.split()[1] for line in text.splitlines() if line.startswith("FROM ")}
    assert bases <= {"python:3.11-slim-bookworm", "debian:bookworm-slim"}
    assert re.findall(r"^USER (\w+)$", text, re.MULTILINE) in (["raftstacks"], ["etcd"])
