"""Threads for what the disk takes long for, so that whoever owns the core need not wait for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

from common_raft.drivers.transfers import RunError
from common_raft.storage import StorageError

#: Called where the core lives, with the outcome or with why there is none.
Then: TypeAlias = Callable[[Any, RunError | None], None]


class Beside:
    """Two threads that do one thing after another: one long ones, the other short ones that must not wait for those.

    See `transfers.Run`.  What no disk can be blamed for is raised where the core lives, and ends the node.
    """

    def __init__(self, post: Callable[[Callable[[Any], None], Any], None]) -> None:
        """``post``, called in any thread, gets something called where the core lives."""
        self._post = post
        self._long, self._short = ThreadPoolExecutor(1, "snapshots"), ThreadPoolExecutor(1, "transfers")
        self._stopped = False

    def run_long(self, call: Callable[[], Any], then: Then) -> None:
        """What takes as long as the state is large."""
        self._run(self._long, call, then)

    def run_short(self, call: Callable[[], Any], then: Then) -> None:
        """A piece of it."""
        self._run(self._short, call, then)

    def _run(self, pool: ThreadPoolExecutor, call: Callable[[], Any], then: Then) -> None:
        def ended(future: Future[Any]) -> None:
            if not future.cancelled():
                self._post(_take, (future, then))

        if not self._stopped:
            pool.submit(call).add_done_callback(ended)

    def no_long_one_runs(self) -> Future[None]:
        """Done when all long ones that have been asked for until now are."""
        return self._long.submit(lambda: None)

    def stop(self) -> None:
        """Nothing more begins."""
        self._stopped = True

    def close(self) -> None:
        """Waits for what runs; what has not begun will not."""
        for pool in (self._long, self._short):
            pool.shutdown(cancel_futures=True)


def _take(outcome: tuple[Future[Any], Then]) -> None:
    future, then = outcome
    error = future.exception()
    if error is None:
        then(future.result(), None)
    elif isinstance(error, StorageError | ConnectionError):
        then(None, error)
    else:
        raise error
