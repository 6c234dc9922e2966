"""The routes of etcd's client API that this service answers, over a Raft node and a keyspace.

Nothing here knows how bytes reach it: a front calls ``EtcdV2.handle`` and is called back with a ``Response``.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Protocol

from common_raft.keyspace import (
    Code,
    Command,
    EtcdError,
    Event,
    Expired,
    Query,
    Result,
    Set,
    Watchers,
)
from common_raft.web.api import Respond
from common_raft.web.auth.auth import Auth
from common_raft.web.auth.passwords import BlockingPasswords, Passwords
from common_raft.web.golang import clean_path, escape_path
from common_raft.web.leader_stats import leader_stats
from common_raft.web.members import MACHINES, MEMBERS, MembersApi, Membership
from common_raft.web.metrics import (
    CLUSTER_VERSION,
    SERVER_VERSION,
    Metrics,
    NodeMetrics,
    ProcessMetrics,
    StoreMetrics,
)
from common_raft.web.request import (
    FORM,
    KEYS,
    KEYS_METHODS,
    BadTargetError,
    Read,
    Target,
    Watching,
    parse_key_request,
    parse_target,
)
from common_raft.web.response import (
    BAD_REQUEST,
    BAD_STAR,
    EMPTY,
    EMPTY_STAR,
    HEALTHY,
    NOT_FOUND,
    NOT_LEADER,
    KeyResponses,
    Response,
    json_response,
    method_not_allowed,
    redirect,
    unhealthy,
)
from common_raft.web.stats import NodeStats, SelfStats
from common_raft.web.store_stats import StoreCounters, store_stats
from common_raft.web.stream import Stream
from common_raft.web.watching import watch

_VERSION = json_response(f'{{"etcdserver":"{SERVER_VERSION}","etcdcluster":"{CLUSTER_VERSION}"}}'.encode())
_GET_ONLY = method_not_allowed(b"GET")
_KEYS_ONLY = method_not_allowed(b"HEAD,GET,PUT,POST,DELETE")
#: What is not about keys: GET only.
ABOUT = frozenset(("/version", "/health", "/v2/stats/self", "/v2/stats/leader", "/v2/stats/store"))

# Nearly all requests look like these; the general parser gives the same result for them, more slowly.
_PLAIN_TARGET = re.compile(rb"/v2/keys(/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)(\?quorum=true)?").fullmatch
_PLAIN_BODY = re.compile(rb"value=([A-Za-z0-9_.~-]*)").fullmatch


class Failure(Protocol):
    """Why the driver has no result, in etcd's words where etcd has any."""

    @property
    def cause(self) -> str: ...


class Node(NodeStats, Membership, Protocol):
    """What is asked of the Raft driver. A ``done`` is called exactly once, on the caller's loop or thread."""

    @property
    def term(self) -> int: ...
    @property
    def applied(self) -> int:
        """The Raft index of the last entry that the keyspace has seen."""

    @property
    def problem(self) -> str | None:
        """Why this node cannot serve just now although the cluster can."""

    @property
    def published(self) -> bool:
        """Whether the cluster knows where clients find this node."""

    def propose(self, command: Command, done: Callable[[Result | Failure], None], /) -> None: ...
    def read_index(self, done: Callable[[Failure | None], None], /) -> None: ...


class Reader(Protocol):
    """What is asked of the keyspace: reads of this replica.  A ``done`` is called exactly once, at once or later."""

    @property
    def stats(self) -> StoreCounters: ...
    @property
    def watchers(self) -> Watchers: ...
    def read(self, query: Query | str, done: Callable[[Result | Failure], None], /) -> None:
        """``query`` is a key where nothing more is asked."""


class EtcdV2:
    """etcd's client API, for the fronts."""

    def __init__(self, node: Node, keyspace: Reader, passwords: Passwords | None = None) -> None:
        """``passwords`` are hashed in the caller's thread unless they are given; on a loop they must be."""
        self._node = node
        self._keyspace = keyspace
        self._responses = KeyResponses(node.cluster_id)
        self._stats = SelfStats(node)
        self._counts = NodeMetrics(node)
        self._metrics = Metrics(ProcessMetrics(), StoreMetrics(keyspace), self._counts)
        self._members = MembersApi(node)
        #: None while authentication is off, so that it costs others no more than to look here.
        self._guard: Auth | None
        self._auth = Auth(node, keyspace, passwords or BlockingPasswords(), self._responses, self._switch)
        self._switch(True)

    def handle(
        self,
        method: str,
        target: bytes,
        content_type: bytes | None,
        body: bytes,
        respond: Respond,
        authorization: bytes | None = None,
    ) -> None:
        """Answer one request: ``respond`` is called once, at once or later, never in another thread.

        ``target`` is the request target as it was sent. Nothing is raised for anything that a client can send.
        """
        guard = self._guard
        if guard is not None:
            go_on = partial(self.handle_any, method, target, content_type, body, respond)
            guard.admit(method, target, content_type, body, authorization, respond, go_on)
            return
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
        if method == "HEAD" and body:  # Go 1.16's server takes it for an attempt to smuggle a request
            respond(BAD_REQUEST)
            return
        path = parsed.path
        if method == "OPTIONS":
            respond(EMPTY_STAR if path == "*" else EMPTY)
        elif path == "*":
            respond(BAD_STAR)
        elif method != "CONNECT" and (cleaned := clean_path(path)) != path:
            respond(redirect(method, _location(parsed, cleaned)))
        elif path == KEYS or path.startswith(KEYS + "/"):
            self._keys(method, parsed, content_type, body, respond)
        elif path == MEMBERS or path.startswith(MEMBERS + "/"):
            self._members.members(method, path, content_type, body, respond)
        elif path == MACHINES:
            self._members.machines(method, respond)
        elif path in ABOUT:
            self._about(method, path, respond)
        elif path == "/metrics":
            respond(self._metrics.respond())
        elif self._auth.handle(method, path, parsed.query or b"", body, respond):
            pass
        else:
            respond(NOT_FOUND)

    def settle(self, done: Callable[[bool], None]) -> None:
        """Finds out whether authentication is on; ``done`` gets whether that is known now."""
        self._auth.settle(done)

    def _switch(self, needed: bool) -> None:
        """Authentication must be asked from now on, or need not."""
        self._guard = self._auth if needed else None
        self.wants_authorization = needed

    def _about(self, method: str, path: str, respond: Respond) -> None:
        """What is not about keys: GET only, and not even HEAD."""
        if method != "GET":
            respond(_GET_ONLY)
        elif path == "/version":
            respond(_VERSION)
        elif path == "/health":
            self._health(respond)
        else:
            respond(self._stats_of(path))

    def _stats_of(self, path: str) -> Response:
        node = self._node
        if path == "/v2/stats/self":
            return json_response(self._stats.render())
        if path == "/v2/stats/store":
            return json_response(store_stats(self._keyspace.stats))
        if node.leader != node.id:
            return NOT_LEADER
        return json_response(leader_stats(node.id, node.measurements()))

    def _health(self, respond: Respond) -> None:
        """Healthy is who knows a leader and can read through it, as etcd asks of its own v2 server.

        And whom clients would be told of: etcd does not listen before the cluster knows its client URLs.
        """

        def confirmed(failure: Failure | None) -> None:
            if failure is None:
                self._counts.healthy += 1
                respond(HEALTHY)
            else:  # a problem that was found meanwhile says more
                ill(self._node.problem or f"QGET ERROR:{failure.cause}")

        def ill(reason: str) -> None:
            self._counts.unhealthy += 1
            respond(unhealthy(reason))

        if not self._node.leader:
            ill("RAFT NO LEADER")
        elif self._node.problem is not None:
            ill(self._node.problem)
        elif not self._node.published:
            ill("the cluster does not know yet where clients find this member")
        else:
            self._node.read_index(confirmed)

    def _keys(
        self, method: str, target: Target, content_type: bytes | None, body: bytes, respond: Respond
    ) -> None:
        if method not in KEYS_METHODS:
            respond(_KEYS_ONLY)
            return
        path = target.path[len(KEYS) :]
        try:
            request = parse_key_request(method, path, target.query or b"", content_type, body)
        except EtcdError as error:
            respond(self._responses.error(error))
            return
        if isinstance(request, Read):
            self._read(request.query, request.quorum, respond)
        elif isinstance(request, Watching):
            self._watch(request, respond)
        else:
            self._node.propose(request.command, partial(self._done, respond, terse=request.terse))

    def _read(self, query: Query | str, quorum: bool, respond: Respond) -> None:
        if quorum:
            self._node.read_index(partial(self._confirmed, query, respond))
        else:
            self._keyspace.read(query, partial(self._done, respond))

    def _watch(self, request: Watching, respond: Respond) -> None:
        try:
            answer: Response | Stream = watch(self._keyspace.watchers, self._node, self._responses, request)
        except EtcdError as error:
            answer = self._responses.error(error)
        respond(answer)

    def _confirmed(self, query: Query | str, respond: Respond, failure: Failure | None) -> None:
        """The cluster has said whether this replica may answer a linearizable read."""
        if failure is None:
            self._keyspace.read(query, partial(self._done, respond))
        else:
            self._done(respond, failure)

    def _done(self, respond: Respond, result: Result | Failure, *, terse: bool = False) -> None:
        """Answer with a result, or with why there is none."""
        if isinstance(result, Event):
            node = self._node
            respond(self._responses.event(result, node.applied, node.term, terse))
        elif isinstance(result, EtcdError):
            respond(self._responses.error(result))
        elif not isinstance(result, Expired):  # for which no client waits
            respond(self._responses.error(EtcdError(Code.RAFT_INTERNAL, result.cause)))


def _location(target: Target, cleaned: str) -> str:
    """Where a path that is not clean is redirected to."""
    query = "" if target.query is None else "?" + target.query.decode("latin-1")
    return target.origin.decode("latin-1") + escape_path(cleaned) + query
