"""Snapshots in pieces: which one is next, and what was answered to the last."""

from __future__ import annotations


class Pieces:
    """The pieces of one snapshot, by the name that the other end gave it.

    Each is carried out once and in its order: 0, 1, and so on.  The answer to the last is kept for whoever did not
    get it and asks again.
    """

    __slots__ = ("_answer", "_done", "_open", "name")

    def __init__(self) -> None:
        self.name = ""  #: "": there was none
        self._done = -1
        self._answer = b""
        self._open = False

    def answered(self, name: str, number: int) -> bytes | None:
        """The answer, if this is the piece that was carried out last."""
        return self._answer if (name, number) == (self.name, self._done) and self._answer else None

    def begins(self, name: str, number: int) -> bool:
        """Whether this is the first piece, and that snapshot is another one, or was not begun with success."""
        return number == 0 and name != "" and (name != self.name or self._done < 0)

    def goes_on(self, name: str, number: int) -> bool:
        """Whether this is the next piece of this snapshot, behind its first."""
        return self._open and number > 0 and (name, number) == (self.name, self._done + 1)

    def begin(self, name: str) -> None:
        self.name, self._done, self._answer, self._open = name, -1, b"", True

    def carried_out(self, answer: bytes, *, last: bool) -> None:
        """The next piece was; ``answer`` is not empty."""
        self._done += 1
        self._answer = answer
        self._open = not last

    def give_up(self) -> None:
        """No further piece is taken, and the last is not answered again."""
        self.begin("")
        self._open = False
