"""What nodes say of their snapshots in their logs: etcd 3.5's, which are lines of JSON, and the services' own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

#: A snapshot is begun, and finished; both nodes' words.
_BEGUN = re.compile(r"^(triggering snapshot$|taking a snapshot )")
_TAKEN = re.compile(r"^(saved snapshot$|took a snapshot )")
#: Another node's has come.
_RECEIVED = re.compile(r"^(applied snapshot$|received the snapshot )")

_OWN = re.compile(r"^(\S+ \S+) [A-Z]+ \S+ (.*)")


class Line(NamedTuple):
    """``at``: seconds since 1970."""

    at: float
    text: str


class Taking(NamedTuple):
    """A snapshot that was taken: seconds since 1970."""

    began: float
    ended: float


def lines(path: Path) -> Iterator[Line]:
    """All that have a time."""
    for text in path.read_text(errors="replace").splitlines():
        found = _etcd_line(text) if text.startswith("{") else _own_line(text)
        if found is not None:
            yield found


def taken(path: Path) -> list[Taking]:
    """The snapshots that the node whose log this is has taken and finished."""
    found = []
    began: float | None = None
    for line in lines(path):
        if _BEGUN.match(line.text):
            began = line.at
        elif began is not None and _TAKEN.match(line.text):
            found.append(Taking(began, line.at))
            began = None
    return found


def received(path: Path, since: float) -> int:
    """How many snapshots have come from other nodes since a moment."""
    return sum(1 for line in lines(path) if line.at >= since and _RECEIVED.match(line.text))


def _etcd_line(text: str) -> Line | None:
    try:
        said = json.loads(text)
        return Line(datetime.fromisoformat(said["ts"]).timestamp(), said["msg"])
    except (ValueError, KeyError, TypeError):
        return None


def _own_line(text: str) -> Line | None:
    found = _OWN.match(text)
    if found is None:
        return None
    try:
        return Line(datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp(), found[2])
    except ValueError:
        return None
