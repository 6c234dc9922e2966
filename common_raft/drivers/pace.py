"""How fast a node that is behind takes in what the others have: not so fast that they cannot serve meanwhile."""

from __future__ import annotations

import time

#: Bytes of a snapshot in a second, on its way here and again on its way into the state machine.  A dict takes ten
#: times as many, and then has a processor for itself; what is in SQL is slower than this in any case.
BYTES_PER_SECOND = 16 << 20


class Pace:
    """Of one flow of bytes.  Time that one piece took too long is not made up for by the next."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due = time.monotonic()

    def keep(self, size: int) -> None:
        """``size`` bytes were taken: sleeps until the next may be."""
        self._due += size / BYTES_PER_SECOND
        now = time.monotonic()
        if self._due > now:
            time.sleep(self._due - now)
        else:
            self._due = now
