"""Whether a history of concurrent operations could have come from one thing, used by one client at a time.

The algorithm is Wing and Gong's ("Testing and verifying concurrent objects", JPDC 1993) with Lowe's memoisation
("Testing for linearizability", CCPE 2017): a depth-first search for an order of all operations that respects real
time (what had returned before another began comes first) and in which each answer is what the model would have said.
What was done already and the state that it led to are remembered, so that no such place is searched from twice.

Keys are searched one by one, since a history is linearizable if and only if it is for each object (Herlihy and Wing,
"Linearizability: a correctness condition for concurrent objects", TOPLAS 1990, theorem 1).

An operation whose outcome is not known (a timeout, a node that died) may take effect at any time from its beginning
on, or never.  Such operations are what makes the search large, and two things keep it small.  They are tried last,
the shortest chains of them first; and a place that was reached by taking some of them is not searched again after
taking these and more, because whatever can follow there could follow here as well.  A history that is *wrong* still
costs, for each operation on a key, the square of the number of unknown ones on it: change keys from time to time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from msgspec import Struct

Input = TypeVar("Input")
Output = TypeVar("Output")
_InputOf = TypeVar("_InputOf", contravariant=True)
_OutputOf = TypeVar("_OutputOf", contravariant=True)
State = TypeVar("State", bound=Hashable)

#: Places that may be looked at for one key: some 1 GB and a minute.  Histories that are right need little more of
#: them than they have operations.
LIMIT = 2_000_000

#: Operations of the longest prefix that a message shows.
SHOWN = 12


class Operation(Struct, Generic[Input, Output], frozen=True):
    """What one client asked and was told; times are in seconds on one clock for all clients.

    ``returned`` and ``output`` are None when the outcome is not known.  Operations that had certainly no effect (a
    connection that was refused) and reads without an answer say nothing, and may be left out.
    """

    client: str
    key: str
    input: Input
    invoked: float
    returned: float | None = None
    output: Output | None = None

    def __str__(self) -> str:
        end = "         ?" if self.returned is None else f"{self.returned:10.4f}"
        told = "outcome unknown" if self.returned is None else f"-> {self.output}"
        return f"{self.invoked:10.4f} {end}  {self.client}: {self.input} {told}"


class Model(Protocol[State, _InputOf, _OutputOf]):
    """What one key does when it is used by one client at a time."""

    def initial(self) -> State:
        """The state of a key that nobody has used yet."""

    def step(self, state: State, asked: _InputOf, told: _OutputOf | None, /) -> State | None:
        """The state after ``asked`` was answered in ``state`` with ``told``; None: it would not have been.

        ``told`` is None when the answer is not known: then any will do.  A state is hashable and never None.
        """


class Undecided(Exception):
    """The search has become too large; this says nothing about the history."""


class Violation(Struct, Generic[Input, Output], frozen=True):
    """No order explains what was answered for ``key``.

    ``prefix`` is an order of as much as can be explained, up to the first answer that cannot: no order of what began
    before ``misfit`` returned includes it.  After ``prefix`` the key is in ``state``; ``open`` are the other
    operations that had begun by then and could come next.
    """

    key: str
    prefix: list[Operation[Input, Output]]
    state: Any
    misfit: Operation[Input, Output]
    open: list[Operation[Input, Output]]

    def __str__(self) -> str:
        left_out = len(self.prefix) - SHOWN
        lines = [f"not linearizable: key {self.key}", "  in this order all is as it was answered:"]
        lines += [f"    ... {left_out} operations"] if left_out > 0 else []
        lines += [f"    {operation}" for operation in self.prefix[-SHOWN:]]
        lines += [f"  which leads to {self.state}, and this does not fit in any order:", f"    {self.misfit}"]
        lines += ["  under way at the same time:"] if self.open else []
        lines += [f"    {operation}" for operation in self.open[:SHOWN]]
        return "\n".join(lines)


def check(
    history: Iterable[Operation[Input, Output]], model: Model[State, Input, Output], *, limit: int = LIMIT
) -> Violation[Input, Output] | None:
    """None if ``history`` is linearizable, else why not, for one of the keys.

    :param limit: places to look at for each key
    :raises Undecided: the limit was reached
    """
    keys: dict[str, list[Operation[Input, Output]]] = defaultdict(list)
    for operation in history:
        keys[operation.key].append(operation)
    for operations in keys.values():
        violation = _Search(operations, model, limit).run()
        if violation is not None:
            return violation
    return None


class _Path(NamedTuple):
    """The operations so far, the last first: shared by all that goes on from here."""

    operation: int  #: position among the known operations, or -1 - position among the unknown
    before: _Path | None


class _Place(NamedTuple, Generic[State]):
    """Which operations are in order already, and the state that they lead to.

    The known ones are all before ``low``, and from there on those with a bit in ``window``: as they were invoked in
    their order, those few are near each other.  ``taken`` has a bit for each unknown one.
    """

    low: int
    window: int
    taken: int
    state: State
    path: _Path | None


class _Search(Generic[State, Input, Output]):
    """One key's operations."""

    def __init__(
        self, operations: Sequence[Operation[Input, Output]], model: Model[State, Input, Output], limit: int
    ) -> None:
        ordered = sorted(operations, key=lambda each: each.invoked)
        self._known = [each for each in ordered if each.returned is not None]
        self._returned = [each.returned for each in ordered if each.returned is not None]
        self._unknown = [each for each in ordered if each.returned is None]
        self._model = model
        self._limit = limit
        self._looked_at = 0
        self._seen: dict[tuple[int, int, State], list[int]] = {}
        self._farthest: tuple[float, _Place[State]] | None = None

    def run(self) -> Violation[Input, Output] | None:
        start = _Place(0, 0, 0, self._model.initial(), None)
        stack = [self._next_places(start)]
        while stack:
            place = next(stack[-1], None)
            if place is None:
                stack.pop()
            elif place.low == len(self._known):
                return None
            elif self._is_new(place):
                stack.append(self._next_places(place))
        return self._violation() if self._known else None

    def _is_new(self, place: _Place[State]) -> bool:
        """Whether this place was not reached before with the same unknown operations taken, or fewer."""
        key = (place.low, place.window, place.state)
        others = self._seen.setdefault(key, [])
        if any(other & place.taken == other for other in others):
            return False
        others.append(place.taken)
        self._count()
        return True

    def _count(self) -> None:
        self._looked_at += 1
        if self._looked_at > self._limit:
            key = self._known[0].key
            raise Undecided(f"key {key}: {self._limit} places looked at, and no answer; record less")

    def _next_places(self, place: _Place[State]) -> Iterator[_Place[State]]:
        """What one more known operation leads to, alone, and behind a chain of unknown ones."""
        open_, bound = self._open(place)
        if self._farthest is None or bound > self._farthest[0]:
            self._farthest = bound, place
        for here in self._with_unknown(place, bound):
            for position in open_:
                operation = self._known[position]
                state = self._model.step(here.state, operation.input, operation.output)
                if state is not None:
                    yield _taken(here, position, state)

    def _open(self, place: _Place[State]) -> tuple[list[int], float]:
        """The known operations that may come next, the first to return first, and when that one returned."""
        found: list[int] = []
        bound = float("inf")
        window, position = place.window, place.low
        while position < len(self._known) and self._known[position].invoked <= bound:
            if not window & 1:
                found.append(position)
                bound = min(bound, self._returned[position])
            window >>= 1
            position += 1
        found.sort(key=self._returned.__getitem__)
        return found, bound

    def _with_unknown(self, place: _Place[State], bound: float) -> Iterator[_Place[State]]:
        """``place``, and what chains of unknown operations lead to that began by ``bound``, short ones first.

        The last to begin comes first: most take effect soon, or never.
        """
        yield place
        begun = list(takewhile(lambda each: each[1].invoked <= bound, enumerate(self._unknown)))[::-1]
        reached: dict[State, list[int]] = {place.state: [place.taken]}
        frontier = [place]
        while frontier:
            farther: list[_Place[State]] = []
            for here in frontier:
                for position, operation in begun:
                    taken = here.taken | 1 << position
                    state = self._model.step(here.state, operation.input, None)
                    if taken == here.taken or state is None:
                        continue
                    others = reached.setdefault(state, [])
                    if any(other & taken == other for other in others):
                        continue
                    others.append(taken)
                    self._count()
                    path = _Path(-1 - position, here.path)
                    farther.append(_Place(here.low, here.window, taken, state, path))
                    yield farther[-1]
            frontier = farther

    def _violation(self) -> Violation[Input, Output]:
        assert self._farthest is not None
        place = self._farthest[1]
        (misfit, *others), bound = self._open(place)
        open_ = [self._known[position] for position in others]
        open_ += [
            operation
            for position, operation in enumerate(self._unknown)
            if operation.invoked <= bound and not place.taken >> position & 1
        ]
        prefix: list[Operation[Input, Output]] = []
        path = place.path
        while path is not None:
            position = path.operation
            prefix.append(self._known[position] if position >= 0 else self._unknown[-1 - position])
            path = path.before
        return Violation(self._known[misfit].key, prefix[::-1], place.state, self._known[misfit], open_)


def _taken(place: _Place[State], position: int, state: State) -> _Place[State]:
    """``place`` with the known operation at ``position`` in order too."""
    low, window = place.low, place.window | 1 << position - place.low
    while window & 1:
        low += 1
        window >>= 1
    return _Place(low, window, place.taken, state, _Path(position, place.path))
