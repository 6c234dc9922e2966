"""``python -m v1.servlet``: the wiring of front, driver and store."""

from collections.abc import Iterator
from contextlib import contextmanager

from common_raft.keyspace import Keyspace, ThreadsSharedReads
from common_raft.service import main
from common_raft.service.databases import blocking_store
from common_raft.service.flags import Settings
from common_raft.service.servlet import ServletVariant, State
from common_raft.web.flask_servers import FLASK_SERVERS


@contextmanager
def open_state(settings: Settings) -> Iterator[State]:
    with blocking_store(settings) as store:
        keyspace = Keyspace(store)
        yield State(keyspace, ThreadsSharedReads(keyspace))


if __name__ == "__main__":
    main(ServletVariant("v1.servlet", FLASK_SERVERS, open_state, takes_database=True))
