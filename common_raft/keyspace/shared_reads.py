"""Clients' reads of an asynchronous store: all that come while one request is under way share the next one."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from common_raft.keyspace.decide import Result
from common_raft.keyspace.store import StoreUnavailable

ReadDone = Callable[[Result | StoreUnavailable], None]


class Readable(Protocol):
    """What is read from: an ``AsyncKeyspace``, or what stands for one."""

    @property
    def index(self) -> int: ...
    async def get_many(self, keys: Sequence[str]) -> list[Result]:
        """Raises StoreUnavailable."""
        ...


class SharedReads:
    """What the web layer reads from, in the running loop.

    ``at_once`` requests to the store may be under way; the reads of one more wait.  Each waits with a client's
    connection, and those are bounded.
    """

    def __init__(self, keyspace: Readable, at_once: int = 1) -> None:
        self._keyspace = keyspace
        self._at_once = at_once
        self._waiting: list[tuple[str, ReadDone]] = []
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly

    @property
    def index(self) -> int:
        return self._keyspace.index

    def read(self, key: str, done: ReadDone) -> None:
        """Calls ``done`` later, in the loop, with what the key holds, or with why that cannot be read."""
        self._waiting.append((key, done))
        if self._running < self._at_once:
            self._running += 1
            # A task starts at the end of the loop's turn: what else is read in this turn comes along.
            task = asyncio.get_running_loop().create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        try:
            await self._read_waiting()
        finally:
            # In the same moment in which nothing waited any more: the next read starts a new task.
            self._running -= 1

    async def _read_waiting(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                results = await self._keyspace.get_many([key for key, _ in waiting])
            except StoreUnavailable as error:
                for _, done in waiting:
                    done(error)
            except BaseException as error:
                for _, done in waiting:
                    done(StoreUnavailable(f"{type(error).__name__}: {error}"))
                raise
            else:
                for (_, done), result in zip(waiting, results, strict=True):
                    done(result)
