"""Watches: the events of a key as a response that goes on (handleKeyWatch in etcd's v2http/client.go)."""

from typing import Protocol

from common_raft.keyspace import Code, EtcdError, Event, Watchers
from common_raft.web.request import Watching
from common_raft.web.response import KeyResponses
from common_raft.web.stream import Stream

_TOO_MANY = EtcdError(
    Code.RAFT_INTERNAL, "this node serves as many watches as it can: try again, or ask another"
)


class Progress(Protocol):
    """How far the node is."""

    @property
    def term(self) -> int: ...
    @property
    def applied(self) -> int: ...


def watch(watchers: Watchers, node: Progress, responses: KeyResponses, request: Watching) -> Stream:
    """The answer to a watch.  Raises EtcdError when the events that it asks for are not kept any more.

    A watch that is cleared ends without a word, as does one whose client is too slow.  (The latter's connection is
    kept by etcd, which never sends anything on it again.)
    """
    stream = Stream()

    def notify(event: Event | None) -> None:
        if event is None:
            stream.end()
        else:
            stream.put(responses.watched(event), last=not request.stream)

    begun = watchers.watch(
        request.key, recursive=request.recursive, stream=request.stream, since=request.since, notify=notify
    )
    head = responses.head(begun.index, node.applied, node.term)
    stream.open(head, begun.close, responses.error(_TOO_MANY, status=503))
    return stream
