"""One process: flags are read, logging is set up, the variant serves; what ends it is said in one line."""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from common_raft.core import RaftError
from common_raft.service.cluster import FlagError
from common_raft.service.flags import Settings, parse_flags
from common_raft.service.identity import identify, remember
from common_raft.storage import StorageError, Wal

log = logging.getLogger("raftstacks")


class ServiceStopped(Exception):
    """The node, its server or its store ended by itself; it must be restarted, or replaced."""


class ServiceEnded(ServiceStopped):
    """The node has nothing more to do: it was removed from its cluster."""


class Variant(Protocol):
    """What makes one service differ from the others; `service.reactive` and `service.servlet` have the two kinds."""

    @property
    def name(self) -> str:
        """What follows ``python -m``."""

    @property
    def servers(self) -> Mapping[str, Any]:
        """The HTTP servers to choose from, the default first."""

    @property
    def takes_database(self) -> bool:
        """Whether it has ``--database-url``."""

    def serve(self, settings: Settings) -> None:
        """Until a signal ends it."""


def main(variant: Variant, *, drives_application: bool = False) -> None:
    """Runs a variant until a signal ends it; exits with status 1 and one line on anything that cannot be.

    A member that is removed ends with one line and status 0, as etcd.
    """
    try:
        settings = parse_flags(
            variant.name,
            list(variant.servers),
            sys.argv[1:],
            os.environ,
            takes_database=variant.takes_database,
            drives_application=drives_application,
        )
        logging.basicConfig(
            level=settings.log_level,
            format=f"%(asctime)s %(levelname)s {settings.name} %(message)s",
            stream=sys.stderr,
        )
        _raise_file_limit()
        variant.serve(identify(settings))
    except ServiceEnded as ended:
        print(f"{variant.name}: {one_line(ended)}", file=sys.stderr)
    except (FlagError, StorageError, RaftError, ServiceStopped, OSError) as error:
        sys.exit(f"{variant.name}: {one_line(error)}")


def open_wal(settings: Settings, applied: int) -> Wal:
    """The log of this member, whose state machine has seen its first ``applied`` entries.

    Raises StorageError, and ServiceStopped for a state without its log, before a new log is begun.
    """
    if applied and not settings.data_dir.exists():
        raise ServiceStopped(
            f"--database-url holds what this member applied up to entry {applied}, but --data-dir "
            f"{settings.data_dir} has no log: start with both, or with neither"
        )
    if not settings.fsync:
        log.warning(
            "--unsafe-no-fsync: a crash of this machine will lose acknowledged writes, or the cluster's log"
        )
    wal = Wal.open(
        settings.data_dir,
        cluster_id=settings.cluster.id,
        node_id=settings.cluster.own_id,
        max_wals=settings.max_wals,
        fsync=settings.fsync,
    )
    for flaw in (wal.recovered.torn, *wal.recovered.unusable):
        if flaw is not None:
            log.warning("%s", flaw)
    try:
        remember(settings)
    except BaseException:
        wal.close()
        raise
    return wal


def _raise_file_limit() -> None:
    """Each client holds a file descriptor; the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
