"""``python -m common_raft.independent``: etcd's flags and API, and ``--application``, the service that it drives."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

from common_raft.independent.remote import RemoteKeyspace
from common_raft.keyspace import SharedReads
from common_raft.service import main
from common_raft.service.flags import Settings
from common_raft.service.reactive import ReactiveVariant, State
from common_raft.web.servers import SERVERS

#: Seconds without a write after which the service is asked whether it is there.
IDLE_CHECK = 1.0


@asynccontextmanager
async def open_application(settings: Settings) -> Any:
    """The state that the service keeps."""
    assert settings.application is not None
    remote = RemoteKeyspace(settings.application.text, settings.cluster.id, settings.cluster.own_id)
    try:
        yield State(remote, SharedReads(remote), IDLE_CHECK)
    finally:
        await remote.close()


if __name__ == "__main__":
    main(ReactiveVariant("common_raft.independent", SERVERS, open_application), drives_application=True)
