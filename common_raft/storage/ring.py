"""``fdatasync`` beside an event loop and without a thread of Python's: the kernel is asked through io_uring."""

from __future__ import annotations

try:
    from caio.linux_uring import Context, Operation
except ImportError:  # caio is not installed, or this is no Linux, or one without io_uring
    Context = Operation = None  # type: ignore[assignment, misc]


class SyncRing:
    """One ``fdatasync`` at a time.  ``descriptor`` is readable when it has ended."""

    __slots__ = ("_context", "_ended", "descriptor")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ended: int | None = None
        self.descriptor: int = context.fileno

    @classmethod
    def open(cls) -> SyncRing | None:
        """None where there is no io_uring: a container's seccomp profile may forbid it, as Docker's does."""
        if Context is None:
            return None
        try:
            return cls(Context(1))
        except (OSError, SystemError):
            return None

    def begin(self, descriptor: int) -> None:
        """Have the file synced.  Raises SystemError when the kernel does not take the order."""
        operation = Operation.fdsync(descriptor)
        operation.set_callback(self._end)
        self._context.submit(operation)
        self._context.flush()

    def _end(self, result: int) -> None:
        # It may have ended even before ``flush`` has: its caller is told when it asks.
        self._ended = result

    def take(self) -> int | None:
        """0 when the file is durable, an error's number with a minus sign when it is not, None before that."""
        try:
            self._context.poll()
        except BlockingIOError:
            pass  # it was readable for what was taken before
        self._context.process_events()
        ended, self._ended = self._ended, None
        return ended
