"""etcd's command line: what it takes, what it refuses, and the one line that it then says."""

import re
from pathlib import Path

import pytest

from common_raft.service.cluster import FlagError, build_cluster, parse_initial_cluster, parse_urls
from common_raft.service.flags import Settings, parse_flags

THREE = "n1=http://127.0.0.1:2381,n2=http://127.0.0.1:2382,n3=http://127.0.0.1:2383"


def parse(*argv: str, **environ: str) -> Settings:
    return parse_flags("v2.reactive", ["native", "hypercorn"], argv, environ)


def test_without_flags_a_node_is_a_cluster_of_its_own_on_etcds_ports() -> None:
    settings = parse()
    assert settings.name == "default"
    assert settings.data_dir == Path("default.raft")
    assert [url.address for url in settings.listen_client_urls] == [("localhost", 2379)]
    assert [url.address for url in settings.listen_peer_urls] == [("localhost", 2380)]
    assert settings.cluster.peers == {}
    assert (settings.heartbeat_interval, settings.election_timeout) == (0.1, 1.0)
    assert settings.fsync
    assert settings.server == "native"


def test_a_member_of_three_knows_the_other_two() -> None:
    settings = parse(
        "--name=n2", "--initial-advertise-peer-urls", "http://127.0.0.1:2382", "--initial-cluster", THREE
    )
    assert sorted(settings.cluster.peers.values()) == [("127.0.0.1", 2381), ("127.0.0.1", 2383)]


def test_ids_are_those_that_etcd_computes() -> None:
    """Seen on etcd 3.5.1 with the same --initial-cluster and --initial-cluster-token."""
    urls = "n1=http://127.0.0.1:2481,n2=http://127.0.0.1:2482,n3=http://127.0.0.1:2483"
    members = parse_initial_cluster(urls)
    cluster = build_cluster("n1", members["n1"], members, "tok")
    assert f"{cluster.own_id:x}" == "62d5d26a1b623fd1"
    assert f"{cluster.id:x}" == "5a3604ddd0135410"


def test_the_environment_sets_flags_and_the_command_line_wins() -> None:
    settings = parse(
        "--name", "b", RAFTSTACKS_NAME="a", RAFTSTACKS_DATA_DIR="/d", RAFTSTACKS_UNSAFE_NO_FSYNC="true"
    )
    assert (settings.name, settings.data_dir, settings.fsync) == ("b", Path("/d"), False)


@pytest.mark.parametrize("mode", ["linearizable", "unsafe"])
def test_a_service_without_raft_takes_clients_flags_alone(mode: str) -> None:
    assert parse("--standalone", mode).standalone == mode
    complaint = (
        f"--standalone {mode} runs without Raft, log and peers: leave out --data-dir, --initial-cluster"
    )
    with pytest.raises(FlagError, match=complaint):
        parse("--standalone", mode, "--data-dir=d", RAFTSTACKS_INITIAL_CLUSTER=THREE)


def test_only_a_variant_with_a_database_takes_a_url_of_one() -> None:
    url = "sqlite:///file"
    assert parse_flags("v1.x", ["s"], ["--database-url", url], {}, takes_database=True).database_url == url
    with pytest.raises(FlagError, match="unrecognized arguments: --database-url"):
        parse("--database-url", url)


@pytest.mark.parametrize(("flag", "fsync"), [("--unsafe-no-fsync", False), ("--unsafe-no-fsync=false", True)])
def test_a_boolean_flag_stands_alone_or_with_a_value(flag: str, fsync: bool) -> None:
    assert parse(flag).fsync is fsync


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--nmae", "x"], "unrecognized arguments: --nmae x"),
        (["--heartbeat", "5"], "unrecognized arguments: --heartbeat 5"),
        (["--name"], "--name: expected one argument"),
        (["--name", ""], "must be a name"),
        (["--server", "gunicorn"], "invalid choice: 'gunicorn'"),
        (["--heartbeat-interval", "-5"], "--heartbeat-interval"),
        (["--heartbeat-interval", "0"], "'0' must be a whole number above 0"),
        (["--heartbeat-interval", "300"], "--election-timeout 1000 ms must be at least 5 times"),
        (["--election-timeout", "60000"], "60000 ms is too long"),
        (["--max-request-bytes", "16777217"], "16777217 is too large: at most 16777216"),
        (["--initial-cluster-state", "old"], "invalid choice: 'old'"),
        (["--strict-reconfig-check=maybe"], "'maybe' must be true or false"),
        (["--unsafe-no-fsync=maybe"], "'maybe' must be true or false"),
        (["--listen-client-urls", "http://127.0.0.1:1"], "--advertise-client-urls is required"),
        (["--listen-peer-urls", "127.0.0.1:2380"], "'127.0.0.1:2380' must start with http://"),
        (["--listen-peer-urls", "https://127.0.0.1:2380"], "TLS is not served yet"),
        (["--listen-peer-urls", "http://127.0.0.1"], "must name a host and a port"),
        (["--listen-peer-urls", "http://127.0.0.1:99999"], "is no URL"),
        (["--listen-peer-urls", "http://127.0.0.1:1/x"], "nothing more"),
        (["--listen-peer-urls", ","], "no URL given"),
        (["--initial-cluster", THREE], "does not name this member: --name is 'default'"),
        (
            ["--name", "n1", "--initial-cluster", THREE],
            "--initial-advertise-peer-urls is http://localhost:2380",
        ),
        (["--initial-cluster", "default"], "'default' must be name=http://host:port"),
        (["--initial-cluster", "a=http://h:1,b=http://h:1"], "http://h:1 is given twice, for a and b"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_it(argv: list[str], complaint: str) -> None:
    with pytest.raises(FlagError, match=re.escape(complaint)) as refused:
        parse(*argv)
    assert "\n" not in str(refused.value)


URL = "http://127.0.0.1:7001"


def test_a_service_that_a_node_drives_listens_for_it_alone() -> None:
    settings = parse("--listen-application-urls", URL, "--name", "s1", "--server", "hypercorn")
    assert [url.text for url in settings.listen_application_urls] == [URL]
    assert parse().listen_application_urls == ()


@pytest.mark.parametrize(
    "flag",
    [
        "--standalone=unsafe",
        "--data-dir=x",
        "--initial-cluster=default=http://localhost:2380",
        "--heartbeat-interval=10",
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:1",
        "--max-request-bytes=5",
    ],
)
def test_a_service_that_a_node_drives_has_neither_raft_nor_clients(flag: str) -> None:
    with pytest.raises(FlagError) as refused:
        parse("--listen-application-urls", URL, flag)
    name = flag.partition("=")[0]
    assert str(refused.value) == (
        f"--listen-application-urls {URL} runs without Raft, log and clients of its own: leave out {name}"
    )


def parse_driver(*argv: str, **environ: str) -> Settings:
    return parse_flags("common_raft.independent", ["native"], argv, environ, drives_application=True)


def test_a_node_that_drives_a_service_is_told_where_that_is() -> None:
    settings = parse_driver(
        "--application", URL + "/", "--name", "n1", RAFTSTACKS_INITIAL_CLUSTER="n1=http://localhost:2380"
    )
    assert settings.application is not None
    assert settings.application.text == URL
    assert parse_driver(RAFTSTACKS_APPLICATION=URL).application is not None


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "the following arguments are required: --application"),
        (["--application", "127.0.0.1:7001"], "--application: '127.0.0.1:7001' must start with http://"),
        (["--application", "http://a:1,http://b:1"], "must be one URL"),
        (["--application", URL, "--standalone", "unsafe"], "unrecognized arguments: --standalone unsafe"),
        (["--application", URL, "--listen-application-urls", URL], "unrecognized arguments"),
    ],
)
def test_a_node_that_drives_a_service_needs_one(argv: list[str], complaint: str) -> None:
    with pytest.raises(FlagError, match=re.escape(complaint)):
        parse_driver(*argv)


def test_an_unknown_variable_of_ours_in_the_environment_is_refused() -> None:
    with pytest.raises(FlagError, match="RAFTSTACKS_NMAE"):
        parse(RAFTSTACKS_NMAE="x")


def test_urls_are_lists() -> None:
    assert [url.address for url in parse_urls("x", "http://a:1, http://[::1]:2/")] == [("a", 1), ("::1", 2)]
