"""The routes of etcd's client API that this service answers, over a Raft node and a keyspace.

Nothing here knows how bytes reach it: a front calls ``EtcdV2.handle`` and is called back with a ``Response``.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Protocol

from common_raft.keyspace import Code, Command, EtcdError, Event, Result, Set
from common_raft.web.api import Respond
from common_raft.web.golang import clean_path, escape_path
from common_raft.web.request import (
    FORM,
    KEYS,
    BadTargetError,
    Read,
    Target,
    Write,
    not_served,
    parse_key_request,
    parse_target,
)
from common_raft.web.response import (
    BAD_REQUEST,
    BAD_STAR,
    EMPTY,
    HEALTHY,
    NOT_FOUND,
    KeyResponses,
    json_response,
    method_not_allowed,
    redirect,
    unhealthy,
)
from common_raft.web.stats import NodeStats, SelfStats

_VERSION = json_response(b'{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}')
_GET_ONLY = method_not_allowed(b"GET")
_KEYS_ONLY = method_not_allowed(b"HEAD,GET,PUT,POST,DELETE")
_KEYS_METHODS = frozenset(("HEAD", "GET", "PUT", "POST", "DELETE"))
_NOT_SERVED_YET = re.compile(
    r"/v2/(?:members(?:/.*)?|machines|stats/(?:leader|store)|auth/(?:roles|users)(?:/.*)?|auth/enable)|/metrics",
    re.DOTALL,
)

# Nearly all requests look like these; the general parser gives the same result for them, more slowly.
_PLAIN_TARGET = re.compile(rb"/v2/keys(/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)(\?quorum=true)?").fullmatch
_PLAIN_BODY = re.compile(rb"value=([A-Za-z0-9_.~-]*)").fullmatch


class Failure(Protocol):
    """Why the driver has no result, in etcd's words where etcd has any."""

    @property
    def cause(self) -> str: ...


class Node(NodeStats, Protocol):
    """What is asked of the Raft driver. A ``done`` is called exactly once, on the caller's loop or thread."""

    @property
    def cluster_id(self) -> int: ...
    @property
    def term(self) -> int: ...
    @property
    def applied(self) -> int:
        """The Raft index of the last entry that the keyspace has seen."""

    @property
    def problem(self) -> str | None:
        """Why this node cannot serve just now although the cluster can."""

    def propose(self, command: Command, done: Callable[[Result | Failure], None], /) -> None: ...
    def read_index(self, done: Callable[[Failure | None], None], /) -> None: ...


class Reader(Protocol):
    """What is asked of the keyspace: reads of this replica.  A ``done`` is called exactly once, at once or later."""

    @property
    def index(self) -> int: ...
    def read(self, key: str, done: Callable[[Result | Failure], None], /) -> None: ...


class EtcdV2:
    """etcd's client API, for the fronts."""

    def __init__(self, node: Node, keyspace: Reader) -> None:
        self._node = node
        self._keyspace = keyspace
        self._responses = KeyResponses(node.cluster_id)
        self._stats = SelfStats(node)

    def handle(
        self, method: str, target: bytes, content_type: bytes | None, body: bytes, respond: Respond
    ) -> None:
        """Answer one request: ``respond`` is called once, at once or later, never in another thread.

        ``target`` is the request target as it was sent. Nothing is raised for anything that a client can send.
        """
        plain = _PLAIN_TARGET(target)
        if plain is not None:
            if method == "GET":
                self._read(plain[1].decode(), plain[2] is not None, respond)
                return
            if method == "PUT" and content_type == FORM:
                value = _PLAIN_BODY(body)
                if value is not None:
                    self._node.propose(
                        Set(plain[1].decode(), value[1].decode()), partial(self._done, respond)
                    )
                    return
        self.handle_any(method, target, content_type, body, respond)

    def handle_any(
        self, method: str, target: bytes, content_type: bytes | None, body: bytes, respond: Respond
    ) -> None:
        """``handle`` without its short cut."""
        try:
            parsed = parse_target(target)
        except BadTargetError:
            respond(BAD_REQUEST)
            return
        path = parsed.path
        if method == "OPTIONS":
            respond(EMPTY)
        elif path == "*":
            respond(BAD_STAR)
        elif method != "CONNECT" and (cleaned := clean_path(path)) != path:
            respond(redirect(method, _location(parsed, cleaned)))
        elif path == KEYS or path.startswith(KEYS + "/"):
            self._keys(method, parsed, content_type, body, respond)
        elif path in ("/version", "/health", "/v2/stats/self"):
            self._about(method, path, respond)
        elif _NOT_SERVED_YET.fullmatch(path):
            respond(self._responses.error(not_served(path)))
        else:
            respond(NOT_FOUND)

    def _about(self, method: str, path: str, respond: Respond) -> None:
        """What is not about keys: GET only, and not even HEAD."""
        if method != "GET":
            respond(_GET_ONLY)
        elif path == "/version":
            respond(_VERSION)
        elif path == "/health":
            self._health(respond)
        else:
            respond(json_response(self._stats.render()))

    def _health(self, respond: Respond) -> None:
        """Healthy is who knows a leader and can read through it, as etcd asks of its own v2 server."""

        def confirmed(failure: Failure | None) -> None:
            if failure is None:
                respond(HEALTHY)
            else:  # a problem that was found meanwhile says more
                respond(unhealthy(self._node.problem or f"QGET ERROR:{failure.cause}"))

        if not self._node.leader:
            respond(unhealthy("RAFT NO LEADER"))
        elif self._node.problem is not None:
            respond(unhealthy(self._node.problem))
        else:
            self._node.read_index(confirmed)

    def _keys(
        self, method: str, target: Target, content_type: bytes | None, body: bytes, respond: Respond
    ) -> None:
        if method not in _KEYS_METHODS:
            respond(_KEYS_ONLY)
            return
        path = target.path[len(KEYS) :]
        try:
            request = parse_key_request(method, path, target.query or b"", content_type, body)
        except EtcdError as error:
            respond(self._responses.error(error))
            return
        if isinstance(request, Read):
            self._read(request.key, request.quorum, respond)
        elif isinstance(request, Write):
            self._node.propose(request.command, partial(self._done, respond, terse=request.terse))
        else:
            respond(self._responses.error(EtcdError(request.code, request.cause, self._keyspace.index)))

    def _read(self, key: str, quorum: bool, respond: Respond) -> None:
        if quorum:
            self._node.read_index(partial(self._confirmed, key, respond))
        else:
            self._keyspace.read(key, partial(self._done, respond))

    def _confirmed(self, key: str, respond: Respond, failure: Failure | None) -> None:
        """The cluster has said whether this replica may answer a linearizable read."""
        if failure is None:
            self._keyspace.read(key, partial(self._done, respond))
        else:
            self._done(respond, failure)

    def _done(self, respond: Respond, result: Result | Failure, *, terse: bool = False) -> None:
        """Answer with a result, or with why there is none."""
        if isinstance(result, Event):
            node = self._node
            respond(self._responses.event(result, node.applied, node.term, terse))
        elif isinstance(result, EtcdError):
            respond(self._responses.error(result))
        else:
            respond(self._responses.error(EtcdError(Code.RAFT_INTERNAL, result.cause)))


def _location(target: Target, cleaned: str) -> str:
    """Where a path that is not clean is redirected to."""
    query = "" if target.query is None else "?" + target.query.decode("latin-1")
    return target.origin.decode("latin-1") + escape_path(cleaned) + query
