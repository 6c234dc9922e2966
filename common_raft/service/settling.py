"""A node finds out by itself, once it takes part, whether the cluster has authentication on.

Until it knows, each request passes the guard (``web/auth/guard.py``): a client's first write would find out as well,
but a node may be one that is only read from.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

#: Seconds until the cluster is asked again, where it did not answer.
PAUSE = 0.5


class Settling(Protocol):
    """The API, as far as this goes."""

    def settle(self, done: Callable[[bool], None], /) -> None: ...


async def settle(api: Settling, pause: float = PAUSE) -> None:
    """Until it is known, or this is cancelled."""
    while True:
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        api.settle(outcome.set_result)
        if await asyncio.shield(outcome):  # the node ends it some time, also after a cancellation
            return
        await asyncio.sleep(pause)


class SettlingThread:
    """`settle` for an API that calls back before it returns."""

    def __init__(self, api: Settling, pause: float = PAUSE) -> None:
        self._stopped = threading.Event()
        threading.Thread(target=self._run, args=(api, pause), name="settling", daemon=True).start()

    def stop(self) -> None:
        """It asks no more; a question under way is ended by the node."""
        self._stopped.set()

    def _run(self, api: Settling, pause: float) -> None:
        outcomes: list[bool] = []
        while not self._stopped.is_set():
            api.settle(outcomes.append)
            if outcomes.pop():
                return
            self._stopped.wait(pause)
