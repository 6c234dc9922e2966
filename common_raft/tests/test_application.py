"""The API by which a node drives a service: what is applied, once, and what is refused."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Collection, Iterable

import msgspec
import pytest

from common_raft.keyspace import (
    AsyncKeyspace,
    Code,
    Command,
    Create,
    Delete,
    Event,
    HashMapStore,
    Keyspace,
    Node,
    Query,
    Set,
    StoreError,
    StoreStats,
    StoreUnavailable,
)
from common_raft.keyspace.commands import encode as batch
from common_raft.stores import PooledKeyspace
from common_raft.web.api import Api
from common_raft.web.application import application
from common_raft.web.application_wire import (
    APPLY,
    READ,
    Applied,
    Apply,
    Found,
    Marks,
    Read,
    Refusal,
    decode,
    encode,
)
from common_raft.web.response import Response


class AwaitedStore:
    """A HashMap whose calls let others run in between, and which can be away."""

    def __init__(self) -> None:
        self._store = HashMapStore()
        self.away = False

    @property
    def index(self) -> int:
        return self._store.index

    @property
    def applied(self) -> int:
        return self._store.applied

    async def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        await asyncio.sleep(0.001)
        if self.away:
            raise StoreUnavailable("the database is away")
        return self._store.get_many(keys)

    async def descendants(self, key: str) -> list[Node]:
        await asyncio.sleep(0.001)
        return self._store.descendants(key)

    async def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        await asyncio.sleep(0.001)
        self._store.write(upserts, deletes, index, applied)

    async def settle(self) -> None:
        pass

    async def claim(self, cluster: str, member: str) -> None:
        self._store.claim(cluster, member)


def blocking() -> Api:
    return application(Keyspace(HashMapStore()))


def awaited() -> Api:
    return application(AsyncKeyspace(AwaitedStore()))


KINDS = pytest.mark.parametrize("make", [blocking, awaited])
CLUSTER, NODE = 7, 1


def ask(api: Api, *requests: tuple[str, bytes]) -> list[Response]:
    """All requests at once, in a loop; POST, but GET for those without a body."""

    async def all_of_them() -> list[Response]:
        loop = asyncio.get_running_loop()
        waiting = []
        for path, body in requests:
            future: asyncio.Future[Response] = loop.create_future()
            api.handle("POST" if body else "GET", path.encode(), None, body, future.set_result)
            waiting.append(future)
        return await asyncio.gather(*waiting)

    return asyncio.run(all_of_them())


class Driver:
    """What a node knows of its service."""

    def __init__(self, api: Api, node: int = NODE, cluster: int = CLUSTER) -> None:
        self.api, self.node, self.cluster = api, node, cluster
        self.instance = ""
        [refusal] = self.send(self.applying(0, 0))
        self.instance = decode(refusal.body, Marks).instance

    def applying(
        self, after: int, applied: int, *commands: Command, wanted: bool = True
    ) -> tuple[str, bytes]:
        batches = [(batch(commands), wanted)] if commands else []
        return APPLY, encode(Apply(self.cluster, self.node, self.instance, after, applied, batches))

    def reading(self, *keys: str) -> tuple[str, bytes]:
        return READ, encode(Read(self.instance, list(keys)))

    def send(self, *requests: tuple[str, bytes]) -> list[Response]:
        return ask(self.api, *requests)

    def apply(self, after: int, applied: int, *commands: Command, wanted: bool = True) -> Applied:
        [response] = self.send(self.applying(after, applied, *commands, wanted=wanted))
        assert response.status == 200, response
        return decode(response.body, Applied)

    def read(self, *keys: str) -> list[Event | Refusal]:
        [response] = self.send(self.reading(*keys))
        assert response.status == 200, response
        return decode(response.body, Found).outcomes

    def values(self, *keys: str) -> list[str | None]:
        return [each.node.value if isinstance(each, Event) else None for each in self.read(*keys)]


@KINDS
def test_what_is_committed_is_applied_and_read(make: Callable[[], Api]) -> None:
    driver = Driver(make())
    answer = driver.apply(0, 3, Set("/a", "1"), Create("/a", "2"), Delete("/b"))
    assert answer.marks == Marks(driver.instance, 1, 3)
    [[written, exists, missing]] = answer.results  # type: ignore[misc]
    assert written == Event("set", Node("/a", "1", 1, 1), None, 1)
    assert exists == Refusal(Code.NODE_EXISTS, "/a", 1)
    assert missing == Refusal(Code.KEY_NOT_FOUND, "/b", 1)
    assert driver.values("/a", "/b") == ["1", None]


@KINDS
def test_results_that_nobody_waits_for_are_not_sent(make: Callable[[], Api]) -> None:
    driver = Driver(make())
    assert driver.apply(0, 1, Set("/a", "1"), wanted=False).results == [None]
    assert driver.values("/a") == ["1"]


@KINDS
def test_the_same_request_again_is_not_applied_again_and_has_the_same_answer(make: Callable[[], Api]) -> None:
    driver = Driver(make())
    first = driver.apply(0, 2, Set("/a", "1"), Set("/a", "2"))
    assert driver.apply(0, 2, Set("/a", "1"), Set("/a", "2")) == first
    assert driver.apply(2, 3, Set("/a", "3")).marks.index == 3


@KINDS
def test_two_requests_for_the_same_place_at_the_same_time_are_not_both_applied(
    make: Callable[[], Api],
) -> None:
    driver = Driver(make())
    request = driver.applying(0, 1, Set("/a", "1"))
    first, same, longer = driver.send(request, request, driver.applying(0, 2, Set("/a", "1"), Set("/a", "2")))
    assert first == same
    assert (first.status, longer.status) == (200, 409)
    assert decode(longer.body, Marks) == Marks(driver.instance, 1, 1)


@KINDS
@pytest.mark.parametrize(("after", "applied"), [(0, 2), (3, 5), (7, 9), (4, 4), (0, 9)])
def test_batches_that_do_not_begin_where_the_service_is_are_refused_with_its_marks(
    make: Callable[[], Api], after: int, applied: int
) -> None:
    driver = Driver(make())
    driver.apply(0, 3, Set("/a", "1"))
    driver.apply(3, 5, Set("/a", "2"))
    if (after, applied) == (3, 5):
        driver.apply(5, 6, Set("/a", "2"))  # the answer to (3, 5) is not kept any more
    [refusal] = driver.send(driver.applying(after, applied, Set("/a", "wrong")))
    assert refusal.status == 409
    assert decode(refusal.body, Marks).applied in (5, 6)
    assert driver.values("/a") == ["2"]


@KINDS
def test_entries_that_change_nothing_move_the_service_on_as_well(make: Callable[[], Api]) -> None:
    driver = Driver(make())
    driver.apply(0, 2, Delete("/none"))
    driver.apply(2, 4)
    assert driver.apply(4, 5, Set("/a", "1")).marks == Marks(driver.instance, 1, 5)


@KINDS
def test_another_instance_is_neither_applied_to_nor_read(make: Callable[[], Api]) -> None:
    driver = Driver(make())
    driver.instance = "of an earlier start"
    applying, reading = driver.send(driver.applying(0, 1, Set("/a", "1")), driver.reading("/a"))
    assert (applying.status, reading.status) == (409, 409)
    assert decode(applying.body, Marks).applied == 0


@KINDS
@pytest.mark.parametrize(("cluster", "node"), [(CLUSTER, 2), (8, NODE)])
def test_the_first_node_that_asks_is_the_only_one(make: Callable[[], Api], cluster: int, node: int) -> None:
    driver = Driver(make())
    request = Apply(cluster, node, driver.instance, 0, 1, [(batch([Set("/a", "1")]), True)])
    [refusal] = ask(driver.api, (APPLY, encode(request)))
    assert refusal.status == 403
    assert f"member {node:x} of cluster {cluster:x}".encode() in refusal.body
    assert refusal.body.count(b"\n") == 1
    assert driver.values("/a") == [None]


class Anothers(HashMapStore):
    """Holds the state of a member that is not the one that asks."""

    def claim(self, cluster: str, member: str) -> None:
        raise StoreError(f"this belongs to member 9, and not to member {member} of cluster {cluster}")


@pytest.mark.parametrize(
    "keyspace", [lambda: Keyspace(Anothers()), lambda: PooledKeyspace(Keyspace(Anothers()))]
)
def test_a_store_that_holds_another_members_state_is_neither_applied_to_nor_taken(
    keyspace: Callable[[], Keyspace | PooledKeyspace],
) -> None:
    api = application(keyspace())
    for _ in range(2):
        [refusal] = ask(api, (APPLY, encode(Apply(CLUSTER, NODE, "", 0, 0, []))))
        assert refusal.status == 403
        assert refusal.body == b"this belongs to member 9, and not to member 1 of cluster 7\n"
    [marks] = ask(api, ("/application/marks", b""))
    assert json.loads(marks.body)["node"] == "0"


@KINDS
def test_keys_and_values_that_are_not_utf_8_arrive_as_they_are(make: Callable[[], Api]) -> None:
    driver = Driver(make())
    key, value = "/\udcff", "v\udcfe\u20ac"
    [[written]] = driver.apply(0, 1, Set(key, value)).results  # type: ignore[misc]
    assert written == Event("set", Node(key, value, 1, 1), None, 1)
    assert driver.read(key, "/\udc80") == [
        Event("get", Node(key, value, 1, 1), None, 1),
        Refusal(Code.KEY_NOT_FOUND, "/\udc80", 1),
    ]


def test_what_was_in_a_directory_that_is_gone_is_told_although_it_is_no_utf_8() -> None:
    told = Applied(Marks("i", 2, 2), [None], [], [(2, ["/a/\udcff", "/a/b"])])
    assert decode(encode(told), Applied) == told


@KINDS
def test_a_node_of_the_version_before_is_told_no_events_and_all_results(make: Callable[[], Api]) -> None:
    driver = Driver(make())
    answer = driver.apply(0, 1, Set("/a", "1"))
    event = Event("set", Node("/a", "1", 1, 1), None, 1)
    assert (answer.results, answer.events) == ([[event]], [])


@KINDS
def test_a_node_with_watchers_is_told_each_event_once_and_again_with_a_lost_answer(
    make: Callable[[], Api],
) -> None:
    driver = Driver(make())
    batches = [
        (batch([Set("/d/a", "1"), Create("/d", "")]), True),
        (batch([Delete("/d", False, True)]), False),
    ]
    request = APPLY, encode(Apply(CLUSTER, NODE, driver.instance, 0, 1, batches, events=True))
    [first] = driver.send(request)
    answer = decode(first.body, Applied)
    assert answer.results == [[0, Refusal(105, "/d", 1)], None]
    assert [(each.action, each.node.key, each.index) for each in answer.events] == [
        ("set", "/d/a", 1), ("delete", "/d", 2),
    ]  # fmt: skip
    assert answer.removed == [(2, ["/d/a"])]
    assert answer.stats == StoreStats(sets_success=1, create_fail=1, delete_success=1)
    [again] = driver.send(request)
    assert again.body == first.body


def test_the_bytes_between_a_node_and_its_service_are_what_they_were() -> None:
    """Those of the version before are read as well."""
    assert (
        encode(Apply(7, 1, "i", 2, 3, [(b"x", True)], True))
        == b"\x97\x07\x01\xa1i\x02\x03\x91\x92\xc4\x01x\xc3\xc3"
    )
    assert decode(b"\x96\x07\x01\xa1i\x02\x03\x91\x92\xc4\x01x\xc3", Apply) == Apply(
        7, 1, "i", 2, 3, [(b"x", True)]
    )
    assert encode(Marks("i", 2, 3, 4)) == b"\x94\xa1i\x02\x03\x04"
    assert decode(b"\x93\xa1i\x02\x03", Marks) == Marks("i", 2, 3)
    node = b"\x96\xa2/a\xa1v\x05\x04\xc2\xc0"
    found = Event("get", Node("/a", "v", 5, 4), None, 5)
    assert encode(Found([found])) == b"\x91\x91\x98\x00\xa3get" + node + b"\xc0\x05\xc0\xc2\x00"
    assert decode(b"\x91\x91\x95\x00\xa3get" + node + b"\xc0\x05", Found) == Found([found])
    assert encode(Read("i", ["/a", Query("/d", True)])) == b"\x92\xa1i\x92\xa2/a\x93\xa2/d\xc3\xc2"
    assert decode(b"\x92\xa1i\x91\xa2/a", Read) == Read("i", ["/a"])
    applied = b"\x92\x93\xa1i\x02\x03\x92\xc0\x91\x94\x01\x64\xa2/a\x02"
    assert decode(applied, Applied) == Applied(Marks("i", 2, 3), [None, [Refusal(100, "/a", 2)]])


@KINDS
def test_marks_and_health_are_for_people(make: Callable[[], Api]) -> None:
    driver = Driver(make())
    driver.apply(0, 4, Set("/a", "1"))
    marks, health = ask(driver.api, ("/application/marks", b""), ("/health", b""))
    assert json.loads(marks.body) == {
        "cluster": "7", "node": "1", "instance": driver.instance, "index": 1, "applied": 4,
        "expires": None,
    }  # fmt: skip
    assert (health.status, json.loads(health.body)["health"]) == (200, "true")


@KINDS
def test_what_is_no_message_is_refused_and_changes_nothing(make: Callable[[], Api]) -> None:
    driver = Driver(make())
    no_commands = Apply(CLUSTER, NODE, driver.instance, 0, 1, [(b"\x93not commands", True)])
    answers = driver.send(
        (APPLY, b"\xc1"),
        (APPLY, b"\x81"),
        (READ, b"\x92a"),
        (APPLY, encode(no_commands)),
        ("/v2/keys/a", b""),
    )
    assert [answer.status for answer in answers] == [400, 400, 400, 400, 404]
    driver.api.handle("PUT", APPLY.encode(), None, b"", lambda answer: answers.append(answer))
    assert answers[-1].status == 405
    assert driver.apply(0, 1).marks.index == 0


def test_a_store_that_is_away_is_said_and_nothing_is_applied() -> None:
    store = AwaitedStore()
    driver = Driver(application(AsyncKeyspace(store)))
    store.away = True
    for answer in driver.send(driver.applying(0, 1, Set("/a", "1")), driver.reading("/a")):
        assert answer.status == 503
        assert b"the database is away" in answer.body
    store.away = False
    assert driver.apply(0, 1, Set("/a", "1")).marks.index == 1


class DoubtfulStore(HashMapStore):
    """Its next write is made, or not, and nobody knows until it is asked to settle."""

    def __init__(self) -> None:
        super().__init__()
        self.makes: bool | None = None

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        if self.makes is None:
            super().write(upserts, deletes, index, applied)
            return
        if self.makes:
            self.unsettled = (list(upserts), list(deletes), index, applied)
        raise StoreUnavailable("the connection broke")

    def settle(self) -> None:
        if self.makes:
            super().write(*self.unsettled)
        self.makes = None


@pytest.mark.parametrize("made", [True, False])
def test_a_write_in_doubt_is_carried_out_once_and_its_results_are_not_lost(made: bool) -> None:
    store = DoubtfulStore()
    driver = Driver(application(Keyspace(store)))
    store.makes = made
    request = driver.applying(0, 1, Create("/a", "1"))
    [doubtful] = driver.send(request)
    assert doubtful.status == 503
    [answer] = driver.send(request)
    [[written]] = decode(answer.body, Applied).results  # type: ignore[misc]
    assert written == Event("create", Node("/a", "1", 1, 1), None, 1)


@pytest.mark.parametrize(("made", "status"), [(True, 409), (False, 200)])
def test_after_a_write_in_doubt_a_node_that_was_started_anew_repeats_nothing(made: bool, status: int) -> None:
    store = DoubtfulStore()
    driver = Driver(application(Keyspace(store)))
    store.makes = made
    driver.send(driver.applying(0, 1, Set("/a", "1")))
    [answer] = driver.send(driver.applying(0, 2, Set("/a", "1"), Set("/a", "2")))
    assert answer.status == status
    assert store.index == (1 if made else 2)


def test_threads_apply_one_after_another() -> None:
    class Careful(HashMapStore):
        inside = 0

        def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
            self.inside += 1
            assert self.inside == 1
            time.sleep(0.01)
            return super().get_many(keys)

        def write(self, *arguments: object) -> None:
            super().write(*arguments)  # type: ignore[arg-type]
            self.inside -= 1

    driver = Driver(application(Keyspace(Careful())))
    path, body = driver.applying(0, 1, Create("/a", "1"))
    answers: list[Response] = []
    threads = [
        threading.Thread(target=driver.api.handle, args=("POST", path.encode(), None, body, answers.append))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {200}
    assert len(answers) == 8
    assert len({answer.body for answer in answers}) == 1


def test_messages_that_end_early_are_no_messages() -> None:
    whole = encode(Apply(1, 2, "i", 3, 4, [(b"data", True)]))
    for end in range(len(whole)):
        with pytest.raises(msgspec.MsgspecError):
            decode(whole[:end], Apply)
