"""What has expired is removed by a command in the log that says what time it is: on all replicas, the leader's clock.

Source: etcd 3.5, ``server/etcdserver/server.go``, sync: every half second, while there are keys with a ttl.  Here,
only once the first of them is due.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from common_raft.keyspace import Expire

#: Seconds between two looks at the clock.
INTERVAL = 0.5

Clock = Callable[[], int]


class Leading(Protocol):
    """A node, as far as this goes."""

    @property
    def id(self) -> int: ...
    @property
    def leader(self) -> int: ...
    def propose(self, command: Any, done: Callable[[Any], None], /) -> None: ...


class Expiring(Protocol):
    """A keyspace, as far as this goes."""

    @property
    def expires(self) -> int | None:
        """No node expires before this, in nanoseconds since 1970; None: none has a ttl."""


def what_is_due(node: Leading, keyspace: Expiring, clock: Clock) -> Expire | None:
    """The command that this node has to propose now, if it leads."""
    expires = keyspace.expires
    if node.leader != node.id or expires is None:
        return None
    now = clock()
    return Expire(now) if expires <= now else None


async def expire_keys(
    node: Leading, keyspace: Expiring, interval: float = INTERVAL, clock: Clock = time.time_ns
) -> None:
    """Until it is cancelled.  What comes of a command does not matter: if need be, the next is proposed."""
    while True:
        await asyncio.sleep(interval)
        command = what_is_due(node, keyspace, clock)
        if command is not None:
            outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            node.propose(command, outcome.set_result)
            await asyncio.shield(outcome)  # the node, too, ends it some time


class ExpiryThread:
    """`expire_keys` for a node whose ``propose`` returns when the outcome is there."""

    def __init__(
        self, node: Leading, keyspace: Expiring, interval: float = INTERVAL, clock: Clock = time.time_ns
    ) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(node, keyspace, interval, clock), name="expiry", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """It proposes nothing more; a command under way is ended by the node."""
        self._stopped.set()

    def _run(self, node: Leading, keyspace: Expiring, interval: float, clock: Clock) -> None:
        while not self._stopped.wait(interval):
            command = what_is_due(node, keyspace, clock)
            if command is not None:
                node.propose(command, lambda _: None)
