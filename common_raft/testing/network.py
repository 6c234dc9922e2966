"""A simulated network: decides for every message whether, when and how often it arrives."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from random import Random

from common_raft.core import Message

#: Messages to one process that can be replayed: those of some dozens of ticks.
MEMORY = 400


@dataclass(frozen=True, slots=True)
class Conditions:
    """What links do to messages.  Probabilities are per message, delays in ticks."""

    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.2  #: the usual delay is uniform in 0 ... this
    in_order: bool = True  #: as on a TCP connection; else messages overtake each other
    straggle: float = 0.0  #: probability that a message is held up for much longer
    straggle_delay: float = 0.0


CALM = Conditions()


class Network:
    """Links are directed pairs (sender, receiver): each direction can be cut by itself."""

    __slots__ = ("_last_arrival", "_random", "_sent", "conditions", "cut")

    def __init__(self, random: Random, conditions: Conditions) -> None:
        self._random = random
        self.conditions = conditions
        self.cut: set[tuple[int, int]] = set()
        self._last_arrival: dict[tuple[int, int], float] = {}
        self._sent: dict[int, deque[Message]] = {}

    def arrivals(self, sender: int, to: int, now: float) -> list[float]:
        """When the copies of a message sent ``now`` arrive; none if it is lost."""
        if (sender, to) in self.cut:
            return []
        random, conditions = self._random, self.conditions
        if conditions.loss and random.random() < conditions.loss:
            return []
        arrivals = [now + self._delay()]
        if conditions.duplication and random.random() < conditions.duplication:
            arrivals.append(now + self._delay())
        if conditions.in_order:
            last = self._last_arrival.get((sender, to), 0.0)
            arrivals = [max(arrival, last) for arrival in arrivals]
            self._last_arrival[sender, to] = max(arrivals)
        return arrivals

    def _delay(self) -> float:
        """How long one copy takes; a straggler (on an ordered link: all behind it, too) takes much longer."""
        random, conditions = self._random, self.conditions
        if conditions.straggle and random.random() < conditions.straggle:
            return random.random() * conditions.straggle_delay
        return random.random() * conditions.delay

    def remember(self, message: Message) -> None:
        self._sent.setdefault(message.to, deque(maxlen=MEMORY)).append(message)

    def recall(self, to: int, number: int) -> list[Message]:
        """Up to ``number`` messages to ``to`` that were remembered, in any order."""
        sent = self._sent.get(to, ())
        return self._random.sample(list(sent), min(number, len(sent)))

    def split(self, one_side: Iterable[int], nodes: Iterable[int]) -> None:
        """Cuts ``one_side`` off from the other nodes, both ways."""
        side = set(one_side)
        self.cut |= {(a, b) for a, b in permutations(nodes, 2) if (a in side) != (b in side)}

    def cut_one_way(self, sender: int, to: int) -> None:
        self.cut.add((sender, to))

    def heal(self) -> None:
        self.cut.clear()
