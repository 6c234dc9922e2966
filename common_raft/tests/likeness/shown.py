"""An answer without what cannot be the same in two clusters: indexes counted from a start, times left out.

What is left out is checked by itself: lengths, times and the ids that a header must have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common_raft.tests.likeness.wire import Answer

#: Headers that say when and in which framing, and not what.
FRAMING = {"date", "server", "connection", "transfer-encoding", "content-length"}
#: Of these it counts that they are there.
OWN = {
    "x-etcd-cluster-id": re.compile(r"[0-9a-f]{1,16}"),
    **dict.fromkeys(("x-raft-index", "x-raft-term"), re.compile(r"\d+")),
}
#: In seconds: how far two conversations may be apart when they come to the same request.
APART = 100.0
#: More than a conversation makes changes.
MANY = 100_000

_INDEX = re.compile(rb'"(modifiedIndex|createdIndex|index)":(\d+)')
_COMPARED = re.compile(rb"(?<=\[)(\d+) != (\d+)(?=\])")
_OLDEST = re.compile(rb"(?<=\[)(\d+)(?=/\d+\])")  #: from before the start, as a rule
_ASKED = re.compile(rb"(?<=Index=)(\d+)")
_IN_ORDER = re.compile(rb"\d{20}")
_TIMES = re.compile(rb'"expiration":"([^"]*)"(?:,"ttl":(-?\d+))?')
_TIME_FORM = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{0,8}[1-9]))?Z")


@dataclass(frozen=True, slots=True)
class Shown:
    """``expirations``: seconds since the conversation's start, for each time in the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    ended: bool
    expirations: tuple[float, ...]

    def like(self, other: Shown) -> bool:
        """Whether these may be two servers' answers to one request."""
        same = (self.status, self.headers, self.body, self.ended)
        pairs = zip(self.expirations, other.expirations, strict=True)
        return same == (other.status, other.headers, other.body, other.ended) and all(
            abs(one - another) < APART for one, another in pairs
        )

    def __str__(self) -> str:
        headers = "  ".join(f"{name}: {value}" for name, value in self.headers.items())
        body = self.body if len(self.body) < 2000 else self.body[:2000] + b"..."
        unended = "" if self.ended else "  (goes on)"
        times = f"  expirations {[round(each) for each in self.expirations]}" if self.expirations else ""
        return f"{self.status}  {headers}\n      {body!r}{unended}{times}"


def shown(answer: Answer, start: int, began: float, *, in_order: bool = True) -> Shown:
    """``start`` and ``began``: the index and the time at the conversation's start.

    ``in_order``: the order of nodes in listings counts; etcd itself has none unless asked for it.
    """
    expirations: list[float] = []

    def counted(number: bytes) -> int:
        """A number that may be an index, or a client's own idea."""
        return int(number) - start if start <= int(number) < start + MANY else int(number)

    def timeless(match: re.Match[bytes]) -> bytes:
        at = _seconds(match[1].decode())
        expirations.append(at - began)
        left, ttl = at - answer.at, int(match[2] or 0)
        # An event of a while ago tells what was left then: never less.
        assert ttl == 0 or left < ttl + 2, f"ttl {ttl} with {left:.2f} s left"
        return b'"expiration":"E"' + (b',"ttl":"T"' if match[2] else b"")

    body = _INDEX.sub(
        lambda match: b'"%s":%d' % (match[1], counted(match[2]) if int(match[2]) else 0), answer.body
    )
    body = _COMPARED.sub(lambda match: b"%d != %d" % (counted(match[1]), counted(match[2])), body)
    body = _OLDEST.sub(lambda match: b"%d" % (int(match[1]) - start), body)
    body = _echoed(body, counted)
    body = _TIMES.sub(timeless, body)
    if not in_order:
        body = _ordered(body)
    headers = _headers(answer, start)
    if "location" in headers:
        headers["location"] = _echoed(headers["location"].encode("latin-1"), counted).decode("latin-1")
    return Shown(answer.head.status, headers, body, answer.ended, tuple(sorted(expirations)))


def _echoed(text: bytes, counted: Callable[[bytes], int]) -> bytes:
    """Indexes in keys, and in requests that are sent elsewhere."""
    text = _ASKED.sub(lambda match: b"%d" % counted(match[0]), text)
    return _IN_ORDER.sub(lambda match: b"<%d>" % counted(match[0]), text)


def _headers(answer: Answer, start: int) -> dict[str, str]:
    told: dict[str, str] = {}
    for name, value in answer.head.headers:
        if name in FRAMING:
            continue
        if name in OWN:
            assert OWN[name].fullmatch(value), f"{name}: {value!r}"
            value = "N"
        if name == "x-etcd-index":
            value = str(int(value) - start if int(value) else 0)
        told[name] = f"{told[name]}, {value}" if name in told else value
    return dict(sorted(told.items()))


def _seconds(text: str) -> float:
    """Since 1970.  As Go's RFC3339Nano: in UTC, as many digits as are needed."""
    match = _TIME_FORM.fullmatch(text)
    assert match is not None, f"a time that Go would not write: {text!r}"
    return datetime.fromisoformat(match[1] + "+00:00").timestamp() + float(f"0.{match[2] or 0}")


def _ordered(body: bytes) -> bytes:
    """The same JSON with the nodes of each listing in the order of their keys."""
    if b'"nodes":[' not in body:
        return body
    return b"\n".join(_ordered_line(line) for line in body.split(b"\n"))


def _ordered_line(line: bytes) -> bytes:
    try:
        tree = json.loads(line)
    except ValueError:
        return line
    if not isinstance(tree, dict) or not isinstance(tree.get("node"), dict):
        return line
    _order(tree["node"])
    ordered = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    # Escapes, which are lost on the way, must be alike too: then the bytes are told by their sum.
    return (
        ordered if sorted(ordered) == sorted(line) else b"%s (%x)" % (ordered, sum(byte**3 for byte in line))
    )


def _order(node: dict[str, Any]) -> None:
    nodes = node.get("nodes")
    if nodes:
        # Names that are no text may look alike.
        nodes.sort(key=lambda each: (each.get("key", ""), each.get("createdIndex", 0)))
        for each in nodes:
            _order(each)
