"""Requests asked one after another, and what the answers were."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from common_raft.tests.likeness.requests import GARBLED, HIDDEN, SLEEP, Request
from common_raft.tests.likeness.shown import Shown, shown
from common_raft.tests.likeness.wire import Answer, Broken, Connection, Head

#: etcd keeps so many events.
HISTORY = 1000
#: So many requests go to one node of a cluster, then as many to the next.
STAYS = 50
#: What has not come by then of an answer that goes on, in seconds after the last request, will not come.
GRACE = 0.2
#: The same where another server had something to say.
PATIENCE = 10.0
#: A conversation with a pause comes to it in so many seconds.
SOON = 0.9
INDEX = Request("GET", "/v2/keys/no-such-key?quorum=true").encoded(0, {})
VERSION = Request("GET", "/version").encoded(0, {})


class TooSlow(Exception):
    """So much time has passed before a pause that the conversation proves nothing: hold it again."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a server answered to a whole conversation: an answer for each request, None for a pause, and what it
    counted meanwhile."""

    answers: Sequence[Shown | None]
    counted: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Watch:
    """An answer that may go on: its end is looked for when the conversation is over."""

    place: int
    connection: Connection
    head: Head


class Conversation:
    """With the nodes at ``ports``, one after another: ``stays`` requests with each.  Use it in a ``with``."""

    def __init__(self, ports: Sequence[int], stays: int = STAYS) -> None:
        self._ports, self._stays = ports, stays
        self._stack = ExitStack()
        self._connections: dict[int, Connection] = {}
        self._known: dict[str, int] = {}
        self._start, self._began = 0, 0.0

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def hold(
        self,
        requests: Sequence[Request],
        like: Told | None = None,
        *,
        fill: bool = True,
    ) -> Told:
        """Asks all of ``requests``, of a keyspace that is emptied first.

        ``fill``: with a history that is full, where it may count what that held before.
        ``like``: what another server told; where that said more, this one is given time for it.
        Raises Broken, naming the request.
        """
        self._empty()
        if fill:
            self._fill_history()
        self._start, self._began = self._index(self._ports[0]), time.time()
        counts = self._counts()
        answers: dict[int, Shown] = {}
        watches: list[_Watch] = []
        for place, request in enumerate(requests):
            port = self._ports[place // self._stays % len(self._ports)]
            if place % self._stays == 0 and len(self._ports) > 1:
                self._index(port)
            if request.method == SLEEP:
                self._sleep(float(request.target))
                if len(self._ports) > 1:
                    self._index(port)
                continue
            try:
                if request.waits:
                    watches.append(self._watch(place, request, port))
                else:
                    answer = self._ask(port, request.encoded(self._start, self._known), request.method)
                    learn(self._known, answer.body)
                    answers[place] = self._shown(request, answer)
            except (OSError, ValueError, AssertionError) as error:
                raise Broken(f"request {place}, {request}: {error!r}") from error
        for port in self._ports:
            self._index(port)
        counted = {name: count - counts[name] for name, count in self._counts().items()}
        time.sleep(GRACE if watches else 0)
        for watch in watches:
            answers[watch.place] = self._so_far(watch, requests[watch.place], like)
        return Told([answers.get(place) for place in range(len(requests))], counted)

    def _fill_history(self) -> None:
        """With as many events as it holds, so that it, too, begins as far from the start in every server."""
        data = Request("PUT", "/v2/keys/fill", "value=").encoded(0, {})
        batch = 50
        connection = self._connection(self._ports[0])
        for _ in range(HISTORY // batch + 1):
            connection.send(data * batch)
            for _ in range(batch):
                connection.answer("PUT")
        self._ask(self._ports[0], Request("DELETE", "/v2/keys/fill").encoded(0, {}), "DELETE")

    def _sleep(self, seconds: float) -> None:
        """What was to happen in the pause must not have begun before it."""
        if time.time() - self._began > SOON:
            raise TooSlow
        time.sleep(seconds)

    def _shown(self, request: Request, answer: Answer) -> Shown:
        return shown(answer, self._start, self._began, in_order=request.sorts)

    def _connection(self, port: int) -> Connection:
        if port not in self._connections:
            self._connections[port] = self._connect(port)
        return self._connections[port]

    def _connect(self, port: int) -> Connection:
        """etcd finds out by the first request line what is spoken, and hangs up if it is longer than 4096 bytes."""
        connection = self._stack.enter_context(Connection(port))
        connection.send(VERSION)
        connection.answer("GET")
        return connection

    def _ask(self, port: int, data: bytes, method: str) -> Answer:
        connection = self._connection(port)
        connection.send(data)
        answer = connection.answer(method)
        if (answer.head.get("connection") or "").lower() == "close":
            self._connections.pop(port).close()
        return answer

    def _watch(self, place: int, request: Request, port: int) -> _Watch:
        connection = self._connect(port)
        connection.send(request.encoded(self._start, self._known))
        return _Watch(place, connection, connection.head())

    def _so_far(self, watch: _Watch, request: Request, like: Told | None) -> Shown:
        expected = None if like is None else like.answers[watch.place]
        if expected is None or not (expected.ended or expected.body):
            lines, patience = 0, 0.01
        else:
            lines, patience = 0 if expected.ended else expected.body.count(b"\n"), PATIENCE
        body, ended = watch.connection.so_far(watch.head, lines, patience)
        return self._shown(request, Answer(watch.head, body, ended, time.time()))

    def _index(self, port: int) -> int:
        """The store's index; from then on the node knows all that was written before."""
        return int(self._ask(port, INDEX, "GET").head.get("x-etcd-index") or 0)

    def _empty(self) -> None:
        listed = self._ask(self._ports[0], Request("GET", "/v2/keys?quorum=true").encoded(0, {}), "GET")
        keys = [node["key"][1:] for node in json.loads(listed.body)["node"].get("nodes", [])]
        names = [*HIDDEN, *(quote(key, safe="") for key in keys if "\ufffd" not in key)]
        if any("\ufffd" in key for key in keys):
            names += GARBLED
        for name in names:
            request = Request("DELETE", f"/v2/keys/{name}?recursive=true")
            self._ask(self._ports[0], request.encoded(0, {}), "DELETE")

    def _counts(self) -> dict[str, int]:
        """What the store counts, where one node answers everything."""
        if len(self._ports) > 1:
            return {}
        answer = self._ask(self._ports[0], Request("GET", "/v2/stats/store").encoded(0, {}), "GET")
        return {} if answer.head.status != 200 else json.loads(answer.body)


def learn(known: dict[str, int], body: bytes) -> None:
    """The indexes of the keys that an answer names."""
    try:
        told = json.loads(body)
    except ValueError:
        return
    if isinstance(told, dict) and isinstance(told.get("node"), dict):
        _learn_from(known, told["node"])


def _learn_from(known: dict[str, int], node: Mapping[str, Any]) -> None:
    if "key" in node and "modifiedIndex" in node:
        known[node["key"]] = node["modifiedIndex"]
    for each in node.get("nodes") or ():
        _learn_from(known, each)
