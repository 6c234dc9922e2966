"""What is asked, as text in which indexes are relative: the same conversation can be held with any server.

``{+7}`` is the index seven writes after the conversation's start, ``{#7}`` the name of the in-order key of that
index, ``{@/a/b}`` the index that the server itself gave the key last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

FORM = "application/x-www-form-urlencoded"
#: The method of what is no request: its target is a number of seconds to wait.
SLEEP = "SLEEP"
#: Stands for the index of a key that there is not: of no key, and not 0, which is no condition.
UNKNOWN = 99_999
#: Names of keys that may be at the top although no listing has them.
HIDDEN = ("_h", "_")
#: The same of those that a listing has, but not as they are.
GARBLED = ("%FF", "%FE", "%FF%FE", "%C3", "%ED%A0%80")
_MARKS = re.compile(r"\{([+#])(-?\d+)\}|\{@([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Request:
    """``target`` as in the request line; ``body``, if there is one, with its content type."""

    method: str
    target: str
    body: str | None = None
    content_type: str | None = FORM
    chunked: bool = False

    def __str__(self) -> str:
        told = f"{self.method} {_short(self.target)}"
        if self.body is not None:
            told += f"  {_short(self.body)}"
        if self.body is not None and self.content_type != FORM:
            told += f"  ({self.content_type})"
        return told + ("  (chunked)" if self.chunked else "")

    @property
    def waits(self) -> bool:
        """It may be answered in pieces, and late."""
        return self.method == "GET" and "wait" in self.target

    @property
    def sorts(self) -> bool:
        """It asks for an order, so that the order counts."""
        return re.findall(r"sorted\b[^&;]*", f"{self.target}&{self.body}") == ["sorted=true"]

    def encoded(self, start: int, known: Mapping[str, int]) -> bytes:
        """The request's bytes to a server whose index was ``start``; ``known`` are the indexes of its keys."""
        body = None if self.body is None else _raw(resolved(self.body, start, known))
        lines = [f"{self.method} {resolved(self.target, start, known)} HTTP/1.1", "Host: localhost"]
        if body is not None and self.content_type is not None:
            lines.append(f"Content-Type: {self.content_type}")
        if self.chunked and body is not None:
            lines.append("Transfer-Encoding: chunked")
            half = len(body) // 2
            body = b"".join(
                b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part
            )
            body += b"0\r\n\r\n"
        elif body is not None or self.method in ("PUT", "POST"):
            lines.append(f"Content-Length: {len(body or b'')}")
        return _raw("\r\n".join(lines)) + b"\r\n\r\n" + (body or b"")


def resolved(text: str, start: int, known: Mapping[str, int]) -> str:
    def mark(match: re.Match[str]) -> str:
        if match[3] is not None:
            return str(known.get(match[3], start + UNKNOWN))
        index = start + int(match[2])
        return str(index) if match[1] == "+" else f"{index:020d}"

    return _MARKS.sub(mark, text)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _short(text: str) -> str:
    shown = ascii(text)[1:-1] if not text.isascii() else text
    return shown if len(shown) < 300 else f"{shown[:100]}...({len(text)} characters)"
