"""Watches through the API, without a front: what is answered, and what comes then."""

import json
from typing import Any

import pytest

from common_raft.keyspace import Set
from common_raft.tests.web_fakes import FakeNode
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.request import Watching
from common_raft.web.response import KeyResponses, Response
from common_raft.web.stream import UNREAD, Stream
from common_raft.web.watching import watch


class Api:
    def __init__(self) -> None:
        self.node = FakeNode()
        self.etcd = EtcdV2(self.node, self.node.keyspace)

    def ask(self, method: str, target: str, body: bytes = b"") -> Response | Stream:
        answers: list[Response | Stream] = []
        form = b"application/x-www-form-urlencoded"
        self.etcd.handle(method, target.encode(), form, body, answers.append)
        (answer,) = answers
        return answer

    def put(self, key: str, value: str = "1") -> None:
        assert isinstance(self.ask("PUT", f"/v2/keys{key}", b"value=" + value.encode()), Response)

    def watch(self, target: str) -> Stream:
        stream = self.ask("GET", f"/v2/keys{target}")
        assert isinstance(stream, Stream)
        return stream

    @property
    def count(self) -> int:
        return self.node.keyspace.watchers.count


@pytest.fixture
def api() -> Api:
    return Api()


def events(stream: Stream) -> list[Any]:
    return [json.loads(piece) for piece in stream.take()[0]]


def seen(stream: Stream) -> list[tuple[str, str, int]]:
    """Action, key and index of the events that have come."""
    return [
        (event["action"], event["node"]["key"], event["node"]["modifiedIndex"]) for event in events(stream)
    ]


def test_the_head_tells_where_the_watch_begins(api: Api) -> None:
    api.put("/a")
    stream = api.watch("/a?wait=true")
    assert stream.status == 200
    assert stream.head.endswith(
        b"Content-Type: application/json\r\nX-Etcd-Cluster-Id: f1b301c7dda370d8\r\n"
        b"X-Etcd-Index: 1\r\nX-Raft-Index: 4\r\nX-Raft-Term: 2\r\n"
    )
    assert stream.take() == ([], False)
    assert api.count == 1


def test_a_watch_ends_with_the_first_event(api: Api) -> None:
    stream = api.watch("/a?wait=true")
    api.put("/b")
    api.put("/a", "1")
    api.put("/a", "2")
    pieces, ended = stream.take()
    assert pieces == [
        b'{"action":"set","node":{"key":"/a","value":"1","modifiedIndex":2,"createdIndex":2}}\n'
    ]
    assert ended
    assert api.count == 0


def test_a_stream_goes_on_until_it_is_cancelled(api: Api) -> None:
    stream = api.watch("/a?wait=true&stream=true")
    for value in "123":
        api.put("/a", value)
    assert [event["node"]["value"] for event in events(stream)] == ["1", "2", "3"]
    assert api.count == 1
    stream.cancel()
    assert api.count == 0


def test_an_event_of_the_past_is_there_at_once(api: Api) -> None:
    for value in "123":
        api.put("/a", value)
    stream = api.watch("/a?wait=true&waitIndex=2")
    assert b"X-Etcd-Index: 3\r\n" in stream.head
    pieces, ended = stream.take()
    assert (json.loads(pieces[0])["node"]["value"], ended) == ("2", True)
    assert api.count == 0


def test_a_stream_from_the_past_has_one_event_and_stays_open(api: Api) -> None:
    api.put("/a", "1")
    api.put("/a", "2")
    stream = api.watch("/a?wait=true&waitIndex=1&stream=true")
    assert seen(stream) == [("set", "/a", 1)]
    api.put("/a", "3")
    assert stream.take() == ([], False)


def test_a_watch_may_wait_for_an_index_that_is_to_come(api: Api) -> None:
    stream = api.watch("/a?wait=true&waitIndex=3")
    for _ in range(3):
        api.put("/a")
    assert seen(stream) == [("set", "/a", 3)]


def test_a_recursive_watch_sees_what_is_below_but_for_what_is_hidden(api: Api) -> None:
    recursive = api.watch("/d?wait=true&recursive=true&stream=true")
    alone = api.watch("/d?wait=true&stream=true")
    root = api.watch("?wait=true&recursive=true&stream=true")
    for key in ("/d/a", "/d/_h", "/d/_h2/a", "/d/e/f", "/dd", "/_x/y"):
        api.put(key)
    assert seen(recursive) == [("set", "/d/a", 1), ("set", "/d/e/f", 4)]
    assert seen(alone) == []
    assert seen(root) == [("set", "/d/a", 1), ("set", "/d/e/f", 4), ("set", "/dd", 5)]


def test_hidden_keys_are_shown_to_who_watches_them_and_from_history(api: Api) -> None:
    hidden = api.watch("/d/_h?wait=true")
    api.put("/d/_h")
    assert seen(hidden) == [("set", "/d/_h", 1)]
    assert seen(api.watch("/d?wait=true&recursive=true&waitIndex=1")) == [("set", "/d/_h", 1)]


def test_who_watches_below_a_directory_is_told_that_it_is_gone(api: Api) -> None:
    api.put("/d/a")
    stream = api.watch("/d/a?wait=true")
    api.ask("DELETE", "/v2/keys/d?recursive=true")
    (event,) = events(stream)
    assert event == {
        "action": "delete",
        "node": {"key": "/d", "dir": True, "modifiedIndex": 2, "createdIndex": 1},
        "prevNode": {"key": "/d", "dir": True, "modifiedIndex": 1, "createdIndex": 1},
    }


def test_a_refresh_is_no_event(api: Api) -> None:
    api.ask("PUT", "/v2/keys/a", b"value=1&ttl=100")
    stream = api.watch("/a?wait=true&stream=true")
    api.ask("PUT", "/v2/keys/a", b"ttl=100&refresh=true")
    api.put("/a", "2")
    assert seen(stream) == [("set", "/a", 3)]
    assert seen(api.watch("/a?wait=true&waitIndex=2")) == [("set", "/a", 3)]


def test_every_watcher_of_a_key_gets_the_same_bytes(api: Api) -> None:
    streams = [api.watch("/a?wait=true&stream=true") for _ in range(3)]
    for value in "12":
        api.put("/a", value)
    taken = [stream.take() for stream in streams]
    assert taken[0] == taken[1] == taken[2]
    assert [json.loads(piece)["node"]["value"] for piece in taken[0][0]] == ["1", "2"]


def test_history_that_is_gone_is_error_401(api: Api) -> None:
    for number in range(1005):
        api.node.propose(Set("/a", str(number)), lambda result: None)
    answer = api.ask("GET", "/v2/keys/a?wait=true&waitIndex=1")
    assert isinstance(answer, Response)
    assert (answer.status, answer.body) == (
        400,
        b'{"errorCode":401,"message":"The event in requested index is outdated and cleared",'
        b'"cause":"the requested history has been cleared [6/1]","index":1005}\n',
    )
    assert b"X-Etcd-Index: 1005\r\n" in answer.head
    assert b"X-Raft" not in answer.head
    assert api.count == 0


def test_bad_parameters_of_a_watch_are_refused_as_of_any_request(api: Api) -> None:
    for query, code in (("wait=x", 209), ("wait=true&waitIndex=-1", 203), ("wait=true&recursive=", 209)):
        answer = api.ask("GET", f"/v2/keys/a?{query}")
        assert isinstance(answer, Response)
        assert (answer.status, b'"errorCode":%d' % code in answer.body) == (400, True)


def test_a_keyspace_that_ends_ends_its_watches(api: Api) -> None:
    streams = [api.watch("/a?wait=true"), api.watch("/b?wait=true&stream=true")]
    api.node.keyspace.watchers.close()
    assert [stream.take() for stream in streams] == [([], True)] * 2
    late = watch(api.node.keyspace.watchers, api.node, KeyResponses(1), Watching("/a", False, 0, False))
    assert late.take() == ([], True)


def test_a_client_that_takes_nothing_loses_its_watch(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common_raft.web.stream.PATIENCE", 0.0)
    stream = api.watch("/a?wait=true&stream=true")
    for _ in range(UNREAD + 5):
        api.put("/a")
    assert api.count == 0
    pieces, ended = stream.take()
    assert ended
    assert UNREAD <= len(pieces) < UNREAD + 5


def test_a_front_without_room_for_a_watch_has_an_answer(api: Api) -> None:
    instead = api.watch("/a?wait=true").instead
    assert (instead.status, b'"errorCode":300' in instead.body) == (503, True)
    assert b"X-Etcd-Cluster-Id: f1b301c7dda370d8\r\nX-Etcd-Index: 0\r\n" in instead.head
