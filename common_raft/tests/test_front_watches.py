"""Watches through every front, over a keyspace that applies at once."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from common_raft.keyspace import Set
from common_raft.tests.web_fixtures import FLASK, FRONTS, Listening, Served, ask, listen, serving, wait_for
from common_raft.web.limits import Limits


@pytest.fixture(scope="module", params=FRONTS)
def running(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(request.param) as served:
        yield served


@pytest.fixture
def served(running: Served) -> Served:
    """The front of this module, with everything deleted and nobody who watches."""
    wait_for(lambda: watchers(running) == 0)
    for key in ("a", "d"):
        ask(running.port, "DELETE", f"/v2/keys/{key}?recursive=true")
    return running


def watchers(served: Served) -> int:
    return served.node.keyspace.watchers.count


def watch(served: Served, target: str) -> Listening:
    return listen(served, "/v2/keys" + target)


def put(served: Served, key: str, value: str = "1") -> int:
    """The index of the change."""
    answer = served.ask("PUT", f"/v2/keys{key}", f"value={value}")
    assert answer.status in (200, 201)
    return int(answer.headers["x-etcd-index"])


def event(line: bytes) -> Any:
    return json.loads(line)


def test_an_event_reaches_who_waits_for_it(served: Served) -> None:
    client = watch(served, "/a?wait=true")
    assert client.status == 200
    assert client.headers["x-etcd-index"] == str(served.node.keyspace.index)
    assert client.headers["x-etcd-cluster-id"] == "f1b301c7dda370d8"
    assert {"x-raft-index", "x-raft-term"} <= set(client.headers)
    assert client.headers["content-type"] == "application/json"
    index = put(served, "/a", "new")
    assert client.rest() == (
        b'{"action":"set","node":{"key":"/a","value":"new","modifiedIndex":%d,"createdIndex":%d}}\n'
        % (index, index)
    )
    assert watchers(served) == 0


def test_a_connection_may_wait_again_and_again(served: Served) -> None:
    client = watch(served, "/a?wait=true")
    for value in "123":
        index = put(served, "/a", value)
        assert event(client.rest())["node"]["value"] == value
        client.client.sendall(
            b"GET /v2/keys/a?wait=true&waitIndex=%d HTTP/1.1\r\nHost: x\r\n\r\n" % (index + 1)
        )
        client = Listening(client.client)
    client.leave()


def test_an_event_of_the_past_is_a_whole_answer(served: Served) -> None:
    first = put(served, "/a", "old")
    put(served, "/a", "new")
    answer = served.ask("GET", f"/v2/keys/a?wait=true&waitIndex={first}")
    assert (answer.status, event(answer.body)["node"]["value"]) == (200, "old")


def test_a_stream_has_many_events_in_their_order(served: Served) -> None:
    client = watch(served, "/d?wait=true&recursive=true&stream=true")
    for number in range(200):
        put(served, f"/d/{number % 7}", str(number))
    assert [event(client.line())["node"]["value"] for _ in range(200)] == [str(n) for n in range(200)]
    client.leave()


def test_who_goes_away_is_no_watcher_any_more(served: Served) -> None:
    clients = [watch(served, f"/a?wait=true&stream={stream}") for stream in ("true", "false") for _ in "12"]
    assert watchers(served) == 4
    for client in clients:
        client.leave()
    wait_for(lambda: watchers(served) == 0)


def test_history_that_is_gone_is_an_error_like_any(served: Served) -> None:
    for _ in range(1_001):  # at once, and not over HTTP, since that takes its time
        served.give(lambda: served.node.propose(Set("/a", ""), lambda result: None))
    wait_for(lambda: served.node.keyspace.index > 1_001)
    answer = served.ask("GET", "/v2/keys/a?wait=true&waitIndex=1")
    assert (answer.status, event(answer.body)["errorCode"]) == (400, 401)
    assert "x-raft-index" not in answer.headers
    assert watchers(served) == 0


def test_only_a_get_waits(served: Served) -> None:
    for method in ("HEAD", "PUT", "POST", "DELETE"):
        answer = served.ask(method, "/v2/keys/a?wait=true")
        assert (answer.status, answer.headers["x-etcd-index"]) == (400, "0")
    assert served.ask("OPTIONS", "/v2/keys/a?wait=true").body == b""
    assert served.ask("PATCH", "/v2/keys/a?wait=true").status == 405
    assert served.ask("GET", "/v2/keys//a?wait=true").headers["location"] == "/v2/keys/a?wait=true"
    put(served, "/a")
    assert event(served.ask("GET", "/v2/keys/a?wait=true&quorum=true").body)["action"] == "get"


def test_the_expiry_of_a_directory_is_told_to_who_watches_below_it(served: Served) -> None:
    assert served.ask("PUT", "/v2/keys/d?dir=true&ttl=0").status == 201
    client = watch(served, "/d/a?wait=true")
    put(served, "/d/a")
    assert event(client.rest())["node"]["key"] == "/d/a"
    client = watch(served, "/d/a?wait=true")
    served.give(served.node.expire)
    told = event(client.rest())
    assert (told["action"], told["node"]["key"], told["node"]["dir"]) == ("expire", "/d", True)
    assert "ttl" not in told["prevNode"]


def test_many_watchers_are_all_told(served: Served) -> None:
    clients = [watch(served, "/d?wait=true&recursive=true") for _ in range(50)]
    put(served, "/d/x", "1")
    assert len({client.rest() for client in clients}) == 1
    assert watchers(served) == 0


def test_watchers_and_writers_at_the_same_time(served: Served) -> None:
    clients = [watch(served, "/d?wait=true&recursive=true&stream=true") for _ in range(10)]
    writing = [
        threading.Thread(target=lambda name=name: [put(served, f"/d/{name}", str(n)) for n in range(20)])
        for name in "abc"
    ]
    for thread in writing:
        thread.start()
    for thread in writing:
        thread.join()
    told = [[event(client.line())["node"]["modifiedIndex"] for _ in range(60)] for client in clients]
    assert all(indexes == sorted(set(indexes)) == told[0] for indexes in told)
    for client in clients:
        client.leave()


@pytest.mark.parametrize("front", FRONTS)
def test_a_front_that_stops_ends_its_watches(front: str) -> None:
    with serving(front) as served:
        clients = [watch(served, f"/a?wait=true&stream={stream}") for stream in ("true", "false")]
        served.stop()
        assert [client.rest() for client in clients] == [b"", b""]
        assert watchers(served) == 0


@pytest.mark.parametrize("front", FLASK)
def test_more_watches_than_there_is_room_for_are_refused_in_etcds_words(front: str) -> None:
    with serving(front, Limits(threads=2, streams=3)) as served:
        clients = [watch(served, "/a?wait=true") for _ in range(3)]
        refused = served.ask("GET", "/v2/keys/a?wait=true")
        assert refused.status == 503
        assert event(refused.body) == {
            "errorCode": 300,
            "message": "Raft Internal Error",
            "cause": "this node serves as many watches as it can: try again, or ask another",
            "index": 0,
        }
        assert watchers(served) == 3
        put(served, "/a")
        assert [event(client.rest())["action"] for client in clients] == ["set"] * 3
