"""Concurrent clients of a cluster, and what they were told: the history that is judged.

A client asks one thing after another, each of any node.  What its answer leaves open is recorded as not known; what
certainly did not happen (no connection was made, or the node had no room for it), and a read without an answer, is
not recorded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from urllib.parse import urlencode

from common_raft.drivers.proposals import TOO_MANY
from common_raft.testing.key_values import Create, Delete, Get, Input, KeyOperation, Put, Told, Update
from common_raft.testing.linearizability import Operation
from common_raft.testing.processes import Answer, NodeProcess

NOT_FOUND, EXISTS, NOT_DONE = 100, 105, 300  # etcd's error codes

#: What is asked, and how often: reads see what writes have done, and the rest tells what it found by its outcome.
WEIGHTS: dict[type[Any], int] = {Get: 8, Put: 6, Delete: 2, Create: 2, Update: 2}

#: Between two requests of a client, in seconds at most: on average some hundred requests a second from six clients.
PAUSE = 0.02
TIMEOUT = 2.0  # s; long enough for elections, short enough not to sit out a stopped node


def request(asked: Input, key: str, quorum: bool) -> tuple[str, str, dict[str, str] | None]:
    """Method, target and form."""
    target = f"/v2/keys/{key}"
    match asked:
        case Get():
            return "GET", target + ("?quorum=true" if quorum else ""), None
        case Delete():
            return "DELETE", target, None
        case Put(value):
            return "PUT", target, {"value": value}
        case Create(value):
            return "PUT", f"{target}?{urlencode({'prevExist': 'false'})}", {"value": value}
        case Update(value):
            return "PUT", f"{target}?{urlencode({'prevExist': 'true'})}", {"value": value}


#: Causes of error 300 that say that a command was in no log, and never will be.
CERTAIN = frozenset([TOO_MANY])


class UnexpectedAnswer(Exception):
    """An answer that etcd would not give."""


class Refused(Exception):
    """What was asked was certainly not done."""


def read_answer(asked: Input, answer: Answer) -> Told | None:
    """What was told; None: the outcome is not known.

    :raises Refused: nothing was done
    :raises UnexpectedAnswer: it is none of the answers that there are
    """
    if answer.status == 503 and not answer.body.startswith(b"{"):
        raise Refused(
            answer.body.decode()
        )  # a front with as many connections as it may have reads no request
    body = answer.json
    if answer.status in (200, 201):
        node = body["node"] if isinstance(asked, Get) else body.get("prevNode")
        return Told(True, node["value"] if node else None, body["node"]["modifiedIndex"])
    code = body.get("errorCode")
    if (answer.status, code) == (404, NOT_FOUND) and isinstance(asked, Get | Update | Delete):
        return Told(False)
    if (answer.status, code) == (412, EXISTS) and isinstance(asked, Create):
        return Told(False)
    if answer.status >= 500 and code == NOT_DONE:
        if body["cause"] in CERTAIN:
            raise Refused(body["cause"])
        return None
    raise UnexpectedAnswer(f"{asked}: {answer.status} {answer.body!r}")


def ask(
    client: str, node: NodeProcess, key: str, asked: Input, *, quorum: bool = True, timeout: float = TIMEOUT
) -> KeyOperation | None:
    """Asks a node and says what is to be recorded of it, if anything.

    :param quorum: false: a get is answered by the node from its own state, which is not linearizable

    :raises UnexpectedAnswer: see `read_answer`
    """
    method, target, form = request(asked, key, quorum)
    invoked = time.monotonic()
    try:
        answer = node.ask(method, target, form, timeout=timeout)
    except ConnectionRefusedError:
        return None  # nobody was there to hear it
    except OSError:
        told = None
    else:
        try:
            told = read_answer(asked, answer)
        except Refused:
            return None
    if told is not None:
        return Operation(client, key, asked, invoked, time.monotonic(), told)
    return None if isinstance(asked, Get) else Operation(client, key, asked, invoked)


class Client(threading.Thread):
    """Asks until it is told to stop; ``history`` is complete then.

    ``problem`` is what it was told that nobody may be told; it stops there.

    :param keys: the keys to use at the moment
    """

    def __init__(
        self,
        name: str,
        nodes: Sequence[NodeProcess],
        keys: Callable[[], Sequence[str]],
        rng: Random,
    ) -> None:
        super().__init__(name=name)
        self.history: list[KeyOperation] = []
        self.problem: Exception | None = None
        self._nodes = nodes
        self._keys = keys
        self._rng = rng
        self._asked = 0
        self._stopping = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopping.wait(self._rng.uniform(0, PAUSE)):
                node, key = self._rng.choice([*self._nodes]), self._rng.choice(self._keys())
                done = ask(self.name, node, key, self._next_input())
                if done is not None:
                    self.history.append(done)
        except Exception as error:
            self.problem = error

    def stop(self) -> None:
        self._stopping.set()

    def _next_input(self) -> Input:
        self._asked += 1
        kind = self._rng.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
        asked: Input = kind() if kind in (Get, Delete) else kind(f"{self.name}-{self._asked}")
        return asked
