"""etcd's command line: the same names, defaults and checks; each flag also as ``RAFTSTACKS_NAME`` in the environment.

A flag on the command line wins over the environment (as in etcd).  What is wrong is said in one line, and ends the
process with exit status 1 before anything is touched.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from common_raft.service.cluster import (
    Cluster,
    FlagError,
    Url,
    build_cluster,
    parse_initial_cluster,
    parse_urls,
)

LOG_LEVELS = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR", "panic": "CRITICAL"}
CLIENT_URL = "http://localhost:2379"
PEER_URL = "http://localhost:2380"
#: etcd's own bounds (embed.Config.Validate).
MAX_ELECTION_MS = 50_000
ELECTION_PER_HEARTBEAT = 5
#: etcd's.  An entry of ours holds many commands, so that there are fewer snapshots for as many writes; however few
#: entries there are, their bytes make one due as well: `drivers.snapshotting.MIN_LOG_BYTES`.
SNAPSHOT_COUNT = 100_000
#: Without Raft: operations one after another, or with nothing that keeps them apart.
LINEARIZABLE, UNSAFE = "linearizable", "unsafe"
#: Whether the members of ``--initial-cluster`` begin it, or this one was added to it.
NEW, EXISTING = "new", "existing"
#: How a leader makes sure that it leads before a linearizable read.
QUORUM, LEASE = "quorum", "lease"
#: What only a member of a cluster has.
_RAFT_FLAGS = (
    "data-dir", "listen-peer-urls", "initial-advertise-peer-urls", "initial-cluster", "initial-cluster-state",
    "initial-cluster-token", "strict-reconfig-check", "linearizable-reads", "heartbeat-interval", "election-timeout",
    "snapshot-count", "max-snapshots", "max-wals", "unsafe-no-fsync",
)  # fmt: skip
#: What only a service that clients ask has.
_CLIENT_FLAGS = ("listen-client-urls", "advertise-client-urls", "max-request-bytes")
#: A request becomes part of one entry, and an entry travels in one frame (transport.codec.MAX_BODY_BYTES).
MAX_REQUEST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What the flags say, checked.  Times are in seconds, sizes in bytes."""

    name: str
    data_dir: Path
    listen_client_urls: Sequence[Url]
    advertise_client_urls: Sequence[Url]
    listen_peer_urls: Sequence[Url]
    cluster: Cluster
    initial_cluster_state: str  #: NEW or EXISTING
    strict_reconfig_check: bool
    lease_reads: bool
    heartbeat_interval: float
    election_timeout: float
    max_request_bytes: int
    snapshot_count: int
    max_snapshots: int  #: 0: all are kept
    max_wals: int  #: 0: all are kept
    fsync: bool
    server: str
    log_level: str
    standalone: str | None  #: LINEARIZABLE or UNSAFE; None for a member of a cluster
    listen_application_urls: Sequence[
        Url
    ]  #: where a Raft node drives this service; empty: it answers clients itself
    application: Url | None  #: the service that this Raft node drives; None for one that has its own state
    database_url: str | None  #: None for the variant's own default, and for a variant without a database


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FlagError(f"{message}; see --help")


def parse_flags(
    prog: str,
    servers: Sequence[str],
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    takes_database: bool = False,
    drives_application: bool = False,
) -> Settings:
    """Reads the command line and the environment.  Raises FlagError; ``--help`` and ``--version`` exit.

    ``drives_application``: for a Raft node without a state of its own, which must be told where that is.
    """
    parser = _make_parser(prog, servers, takes_database=takes_database, drives_application=drives_application)
    arguments = [*_from_environment(parser, environ), *argv]
    values = vars(parser.parse_args(arguments))
    standalone, driven_at = values.get("standalone"), values.get("listen_application_urls")
    if standalone:
        _check_without_raft(f"--standalone {standalone}", _RAFT_FLAGS, arguments)
    if driven_at:
        others = ("standalone", *_RAFT_FLAGS, *_CLIENT_FLAGS)
        _check_without_raft(f"--listen-application-urls {driven_at}", others, arguments)
    name = values["name"]
    client_urls, peer_urls = values["listen_client_urls"], values["initial_advertise_peer_urls"]
    if client_urls and not values["advertise_client_urls"]:
        raise FlagError("--advertise-client-urls is required when --listen-client-urls is set explicitly")
    advertised = parse_urls("initial-advertise-peer-urls", peer_urls or PEER_URL)
    members = parse_initial_cluster(values["initial_cluster"] or f"{name}={peer_urls or PEER_URL}")
    if values["max_request_bytes"] > MAX_REQUEST_BYTES:
        raise FlagError(
            f"--max-request-bytes {values['max_request_bytes']} is too large: at most {MAX_REQUEST_BYTES}"
        )
    heartbeat, election = _check_times(values["heartbeat_interval"], values["election_timeout"])
    return Settings(
        name=name,
        data_dir=Path(values["data_dir"] or f"{name}.raft"),
        listen_client_urls=parse_urls("listen-client-urls", client_urls or CLIENT_URL),
        advertise_client_urls=parse_urls(
            "advertise-client-urls", values["advertise_client_urls"] or CLIENT_URL
        ),
        listen_peer_urls=parse_urls("listen-peer-urls", values["listen_peer_urls"] or PEER_URL),
        cluster=build_cluster(name, advertised, members, values["initial_cluster_token"]),
        initial_cluster_state=values["initial_cluster_state"],
        strict_reconfig_check=values["strict_reconfig_check"],
        lease_reads=values["linearizable_reads"] == LEASE,
        heartbeat_interval=heartbeat,
        election_timeout=election,
        max_request_bytes=values["max_request_bytes"],
        snapshot_count=values["snapshot_count"] or SNAPSHOT_COUNT,
        max_snapshots=values["max_snapshots"],
        max_wals=values["max_wals"],
        fsync=not values["unsafe_no_fsync"],
        server=values["server"],
        log_level=LOG_LEVELS[values["log_level"]],
        standalone=standalone,
        listen_application_urls=parse_urls("listen-application-urls", driven_at) if driven_at else (),
        application=_one_url("application", values["application"]) if drives_application else None,
        database_url=values.get("database_url"),
    )


def _check_without_raft(mode: str, others: Sequence[str], arguments: Sequence[str]) -> None:
    given = {argument.partition("=")[0] for argument in arguments}
    contradicting = [f"--{flag}" for flag in others if f"--{flag}" in given]
    if contradicting:
        what = "clients of its own" if set(others) > set(_RAFT_FLAGS) else "peers"
        raise FlagError(f"{mode} runs without Raft, log and {what}: leave out {', '.join(contradicting)}")


def _one_url(flag: str, text: str) -> Url:
    urls = parse_urls(flag, text)
    if len(urls) > 1:
        raise FlagError(f"--{flag}: {text!r} must be one URL")
    return urls[0]


def _make_parser(
    prog: str, servers: Sequence[str], *, takes_database: bool, drives_application: bool
) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"python -m {prog}",
        allow_abbrev=False,
        description=f"{prog}: a key-value service on Raft that speaks etcd's v2 API. Flags are etcd's; each can "
        "also be set in the environment, as RAFTSTACKS_DATA_DIR for --data-dir.",
    )
    add = parser.add_argument
    add("--name", default="default", type=_not_empty, help="this member's name (default: %(default)s)")
    add("--data-dir", metavar="DIR", help="where the log is kept (default: NAME.raft)")
    add("--listen-client-urls", metavar="URLS", help=f"where clients are answered (default: {CLIENT_URL})")
    add("--advertise-client-urls", metavar="URLS", help="client URLs to tell others")
    add("--listen-peer-urls", metavar="URLS", help=f"where peers are answered (default: {PEER_URL})")
    add("--initial-advertise-peer-urls", metavar="URLS", help="peer URLs as --initial-cluster has them")
    add("--initial-cluster", metavar="NAME=URL,...", help="all members (default: this one alone)")
    add(
        "--initial-cluster-state",
        default=NEW,
        choices=[NEW, EXISTING],
        help="whether this member begins a cluster, or was added to one (default: %(default)s)",
    )
    add("--initial-cluster-token", default="etcd-cluster", help="keeps clusters apart (default: %(default)s)")
    _boolean_flag(
        add, "--strict-reconfig-check", "refuse changes of members that cost the quorum", default=True
    )
    add(
        "--linearizable-reads",
        default=QUORUM,
        choices=[QUORUM, LEASE],
        help="how a leader knows that it still leads before a GET with quorum=true: it asks a majority each time, or "
        "trusts that for two thirds of an election timeout nobody else can. A lease assumes that no member's clock "
        "goes 1.5 times as fast as another's, and none stands still, as a suspended virtual machine's may; else a "
        "read may miss what was written. The same for all members (default: %(default)s)",
    )
    _add_limits(add)
    _add_place_of_state(add, drives_application=drives_application)
    if takes_database:
        add(
            "--database-url",
            metavar="URL",
            type=_not_blank,
            help="SQLAlchemy's URL (default: SQLite in memory)",
        )
    add("--server", default=servers[0], choices=servers, help="the HTTP server (default: %(default)s)")
    add("--log-level", default="info", choices=list(LOG_LEVELS), help="default: %(default)s")
    return parser


def _add_limits(add: Callable[..., object]) -> None:
    """How a member keeps time and how much it keeps."""
    add("--heartbeat-interval", default=100, type=_positive, metavar="MS", help="default: %(default)s ms")
    add("--election-timeout", default=1000, type=_positive, metavar="MS", help="default: %(default)s ms")
    add("--max-request-bytes", default=1_572_864, type=_positive, metavar="N", help="default: %(default)s")
    add(
        "--snapshot-count",
        default=SNAPSHOT_COUNT,
        type=_count,
        metavar="N",
        help="entries from one snapshot to the next; 0 is the default (default: %(default)s)",
    )
    add(
        "--max-snapshots",
        default=5,
        type=_count,
        metavar="N",
        help="files kept; 0: all (default: %(default)s)",
    )
    add(
        "--max-wals",
        default=5,
        type=_count,
        metavar="N",
        help="log files kept; 0: all (default: %(default)s)",
    )
    _boolean_flag(
        add,
        "--unsafe-no-fsync",
        "do not wait for the disk: a crash of the machine loses acknowledged writes",
        default=False,
    )


def _add_place_of_state(add: Callable[..., object], *, drives_application: bool) -> None:
    """Whether Raft and what it replicates are in this process, in two, or whether there is no Raft."""
    if drives_application:
        add("--application", metavar="URL", required=True, help="the service that this node drives")
    else:
        add(
            "--standalone",
            choices=[LINEARIZABLE, UNSAFE],
            help="one process without Raft: operations one after another, or with nothing that keeps them apart",
        )
        add(
            "--listen-application-urls",
            metavar="URLS",
            type=_not_blank,
            help="no Raft here: python -m common_raft.independent drives this service at these URLs",
        )


def _from_environment(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> list[str]:
    """Flags set in the environment, as arguments.  An unknown RAFTSTACKS_ variable is refused, as a flag would be."""
    names = {
        "RAFTSTACKS_" + option[2:].replace("-", "_").upper(): option
        for option in parser._option_string_actions
        if option.startswith("--") and option != "--help"
    }
    arguments = []
    for variable, value in environ.items():
        if variable in names:
            arguments.append(f"{names[variable]}={value}")
        elif variable.startswith("RAFTSTACKS_"):
            raise FlagError(f"environment variable {variable} is no flag; see --help")
    return arguments


def _check_times(heartbeat_ms: int, election_ms: int) -> tuple[float, float]:
    if election_ms < ELECTION_PER_HEARTBEAT * heartbeat_ms:
        raise FlagError(
            f"--election-timeout {election_ms} ms must be at least {ELECTION_PER_HEARTBEAT} times "
            f"--heartbeat-interval {heartbeat_ms} ms"
        )
    if election_ms > MAX_ELECTION_MS:
        raise FlagError(f"--election-timeout {election_ms} ms is too long: at most {MAX_ELECTION_MS} ms")
    return heartbeat_ms / 1000, election_ms / 1000


def _not_empty(text: str) -> str:
    if not text or "," in text or "=" in text:
        raise argparse.ArgumentTypeError(f"{text!r} must be a name without ',' and '='")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it must be a URL")
    return text


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 0 or more")
    return int(text)


def _boolean_flag(add: Callable[..., object], name: str, what: str, *, default: bool) -> None:
    """As Go's: without a value it is true."""
    said = f"{what} (default: {str(default).lower()})"
    add(name, type=_boolean, nargs="?", const=True, default=default, metavar="BOOL", help=said)


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} must be true or false")
