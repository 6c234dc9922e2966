"""etcd v2's plain keys as a model for the linearizability checker, and their histories as files.

Values ought to differ from write to write: then each answer says which write it saw.  Where answers tell
``modifiedIndex``, it is checked as well: a key's index only grows, and a read tells that of the write that it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from common_raft.testing.linearizability import Operation


class Get(Struct, frozen=True, tag="get"):
    """GET quorum=true."""


class Put(Struct, frozen=True, tag="put"):
    value: str


class Create(Struct, frozen=True, tag="create"):
    """PUT prevExist=false."""

    value: str


class Update(Struct, frozen=True, tag="update"):
    """PUT prevExist=true."""

    value: str


class Delete(Struct, frozen=True, tag="delete"):
    pass


Input: TypeAlias = Get | Put | Create | Update | Delete


class Told(Struct, frozen=True):
    """An answer.  ``done``: not etcd's error 100 (no such key) or 105 (there is one).

    ``value`` is what the key held, for a get; before, for the others; None: nothing.  ``index`` is the node's
    modifiedIndex, 0 if that was not told.
    """

    done: bool
    value: str | None = None
    index: int = 0


class Register(NamedTuple):
    """One key.  ``modified`` is its modifiedIndex; where that is not known (not ``exact``), the last one known."""

    value: str | None
    modified: int
    exact: bool


KeyOperation: TypeAlias = Operation[Input, Told]


class KeyValueModel:
    """A single key, as etcd v2 serves it without directories and TTLs."""

    def initial(self) -> Register:
        return Register(None, 0, False)

    def step(self, state: Register, asked: Input, told: Told | None) -> Register | None:
        return _STEPS[type(asked)](state, asked, told)


def _get(state: Register, _: Get, told: Told | None) -> Register | None:
    if told is None:
        return state
    if told.value != state.value or told.done != (state.value is not None):
        return None
    if not told.index:
        return state
    right = told.index == state.modified if state.exact else told.index > state.modified
    return Register(state.value, told.index, True) if right else None


def _put(state: Register, asked: Put, told: Told | None) -> Register | None:
    return _written(state, asked.value, told)


def _create(state: Register, asked: Create, told: Told | None) -> Register | None:
    return _if(state.value is None, state, asked.value, told)


def _update(state: Register, asked: Update, told: Told | None) -> Register | None:
    return _if(state.value is not None, state, asked.value, told)


def _delete(state: Register, _: Delete, told: Told | None) -> Register | None:
    return _if(state.value is not None, state, None, told)


def _if(possible: bool, state: Register, value: str | None, told: Told | None) -> Register | None:
    """A write that changes nothing where it is not possible, and says so."""
    if told is not None and told.done != possible:
        return None
    return _written(state, value, told) if possible else state


def _written(state: Register, value: str | None, told: Told | None) -> Register | None:
    if told is None or (told.value == state.value and not told.index):
        return Register(value, state.modified, False)
    if told.value != state.value or told.index <= state.modified:
        return None
    return Register(value, told.index, True)


_STEPS: dict[type[Any], Callable[[Register, Any, Told | None], Register | None]] = {
    Get: _get,
    Put: _put,
    Create: _create,
    Update: _update,
    Delete: _delete,
}

_decoder = msgspec.json.Decoder(KeyOperation)


def save_history(path: Path, history: Iterable[KeyOperation]) -> None:
    """An operation a line, as JSON.  Raises OSError."""
    path.write_bytes(b"".join(msgspec.json.encode(operation) + b"\n" for operation in history))


def load_history(path: Path) -> list[KeyOperation]:
    """What `save_history` wrote.  Raises OSError, and ValueError for anything else."""
    return [_decoder.decode(line) for line in path.read_bytes().splitlines()]
