"""``python -m v3.reactive``: the wiring of front, driver and store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common_raft.keyspace import Keyspace, SharedReads
from common_raft.service import main
from common_raft.service.databases import blocking_store
from common_raft.service.flags import Settings
from common_raft.service.reactive import ReactiveVariant, State
from common_raft.stores import PooledKeyspace
from common_raft.web.servers import STARLETTE_SERVERS


@asynccontextmanager
async def open_state(settings: Settings) -> AsyncIterator[State]:
    with blocking_store(settings) as store:
        keyspace = PooledKeyspace(Keyspace(store))
        yield State(keyspace, SharedReads(keyspace))


if __name__ == "__main__":
    main(ReactiveVariant("v3.reactive", STARLETTE_SERVERS, open_state, takes_database=True))
