"""What a signal does to a service: the first one asks it to stop, another one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

STOPPING = (signal.SIGTERM, signal.SIGINT)


def on_signals(stop: Callable[[signal.Signals], None]) -> None:
    """``stop`` is called with the first one, in a thread of its own.

    Call it in the main thread before there are others, which inherit that these signals are not theirs.  A handler
    would only run once the main thread looks, and a process with hundreds of threads may have the signal delivered to
    one that does not wake it.

    Whoever sends another signal does not want to wait: what is acknowledged is on the disk, and the rest is as after
    a crash.  The default action would not do, since it does nothing to a container's first process.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    threading.Thread(target=_wait, args=(stop,), name="signals", daemon=True).start()


def _wait(stop: Callable[[signal.Signals], None]) -> None:
    stop(signal.Signals(signal.sigwait(STOPPING)))
    number = signal.Signals(signal.sigwait(STOPPING))
    os.write(2, f"{number.name} again: stopped at once\n".encode())
    os._exit(128 + number)  # what a shell says of a process that was ended by this signal
