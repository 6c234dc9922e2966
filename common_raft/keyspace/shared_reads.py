"""Clients' reads of a store that takes time: all that come while one request is under way share the next one."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from common_raft.keyspace.decide import Result
from common_raft.keyspace.node import Query
from common_raft.keyspace.stats import StoreStats
from common_raft.keyspace.store import StoreUnavailable
from common_raft.keyspace.watchers import Watchers

#: Under load a request waits so long for others to share it: a thread that reads gives the interpreter away at each
#: step, so that two requests cost twice as much as one for both.
GATHER_SECONDS = 0.0005

ReadDone = Callable[[Result | StoreUnavailable], None]


class _Watched(Protocol):
    """What a keyspace shows besides what it holds."""

    @property
    def watchers(self) -> Watchers: ...
    @property
    def stats(self) -> StoreStats: ...


class _Beside:
    """What is asked of the keyspace itself."""

    def __init__(self, keyspace: _Watched) -> None:
        self._watched = keyspace

    @property
    def watchers(self) -> Watchers:
        return self._watched.watchers

    @property
    def stats(self) -> StoreStats:
        return self._watched.stats


class Readable(_Watched, Protocol):
    """What is read from: an ``AsyncKeyspace``, or what stands for one."""

    async def get_many(self, queries: Sequence[Query | str]) -> list[Result]:
        """Raises StoreUnavailable."""
        ...


class SharedReads(_Beside):
    """What the web layer reads from, in the running loop.

    ``at_once`` requests to the store may be under way; the reads of one more wait.  Each waits with a client's
    connection, and those are bounded.
    """

    def __init__(self, keyspace: Readable, at_once: int = 1) -> None:
        super().__init__(keyspace)
        self._keyspace = keyspace
        self._at_once = at_once
        self._waiting: list[tuple[Query | str, ReadDone]] = []
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly

    def read(self, query: Query | str, done: ReadDone) -> None:
        """Calls ``done`` later, in the loop, with what was found, or with why nothing can be read."""
        self._waiting.append((query, done))
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
                results = await self._keyspace.get_many([query for query, _ in waiting])
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


class BlockingReadable(_Watched, Protocol):
    """What is read from: a ``Keyspace``."""

    def get_many(self, queries: Sequence[Query | str]) -> list[Result]:
        """Raises StoreUnavailable."""
        ...


class _Call:
    """One thread's read.  ``turn`` is released when there is an outcome, or when the thread is to read for others."""

    __slots__ = ("outcome", "query", "turn")

    def __init__(self, query: Query | str) -> None:
        self.query = query
        self.outcome: Result | StoreUnavailable | None = None
        self.turn = threading.Lock()
        self.turn.acquire()


class ThreadsSharedReads(_Beside):
    """`SharedReads` for threads, each of which waits for its own read.

    Whoever finds no request under way makes one.  The first of those that came meanwhile makes the next, for all of
    them: so each thread makes at most one request, which its own read is part of.
    """

    def __init__(self, keyspace: BlockingReadable) -> None:
        super().__init__(keyspace)
        self._keyspace = keyspace
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []
        self._running = False
        self._shared = False  #: whether the last request served several threads

    def read(self, query: Query | str, done: ReadDone) -> None:
        """Calls ``done``, before it returns, with what was found, or with why nothing can be read."""
        call = _Call(query)
        with self._lock:
            self._waiting.append(call)
            waits, self._running = self._running, True
        if waits:
            call.turn.acquire()
        if call.outcome is None:
            self._read_waiting()
        assert call.outcome is not None
        done(call.outcome)

    def _read_waiting(self) -> None:
        """Reads for all that wait, this thread among them, and lets the next go on."""
        if self._shared:
            time.sleep(GATHER_SECONDS)
        with self._lock:
            calls, self._waiting = self._waiting, []
        self._shared = len(calls) > 1
        try:
            outcomes: Sequence[Result | StoreUnavailable]
            outcomes = self._keyspace.get_many([call.query for call in calls])
        except StoreUnavailable as error:
            outcomes = [error] * len(calls)
        except BaseException as error:
            outcomes = [StoreUnavailable(f"{type(error).__name__}: {error}")] * len(calls)
            raise
        finally:
            with self._lock:
                self._running = bool(self._waiting)
                following = self._waiting[:1]
            for call, outcome in zip(calls, outcomes, strict=True):
                call.outcome = outcome
                call.turn.release()
            for call in following:
                call.turn.release()
