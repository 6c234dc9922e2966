"""The node's end of a service in another process: over real HTTP, to a service that is started, lost and changed."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from common_raft.drivers.machine import Misplaced
from common_raft.independent import remote
from common_raft.independent.remote import ApplicationRefused, RemoteKeyspace
from common_raft.keyspace import (
    BadSnapshot,
    Code,
    Create,
    EtcdError,
    Event,
    Expire,
    Expired,
    HashMapStore,
    Keyspace,
    Node,
    Put,
    Query,
    Set,
    StoreUnavailable,
)
from common_raft.keyspace.commands import encode as batch
from common_raft.tests.web_fixtures import free_port
from common_raft.transport.codec import encode_frame
from common_raft.transport.messages import Refusal
from common_raft.web.api import Api
from common_raft.web.application import application
from common_raft.web.application_wire import MAX_BODY_BYTES, RESTORE, SNAPSHOT
from common_raft.web.limits import Limits
from common_raft.web.response import Response
from common_raft.web.servers import SERVERS, Running


class Service:
    """A service at one address, over all its lives."""

    def __init__(self, server: str = "native") -> None:
        self.server = server
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.keyspace = Keyspace(HashMapStore())
        self._running: Running | None = None

    async def start(self, api: Api | None = None) -> None:
        """With an empty keyspace, in memory; ``api`` is what answers instead of it."""
        self.keyspace = Keyspace(HashMapStore())
        address = ("127.0.0.1", self.port)
        limits = Limits(body_bytes=MAX_BODY_BYTES)
        self._running = await SERVERS[self.server]([address], api or application(self.keyspace), limits)

    async def stop(self) -> None:
        if self._running is not None:
            await self._running.close(grace=1)
            self._running = None


def run(scenario: Callable[[Service, RemoteKeyspace], Awaitable[None]], server: str = "native") -> None:
    async def whole() -> None:
        service = Service(server)
        keyspace = RemoteKeyspace(service.url, 7, 1)
        try:
            await scenario(service, keyspace)
        finally:
            await keyspace.close()
            await service.stop()

    uvloop.run(whole())


async def meet(keyspace: RemoteKeyspace, at: int = 0) -> None:
    """The first request only tells where the service is."""
    with pytest.raises(Misplaced) as found:
        await keyspace.apply([(batch([Set("/not", "applied")]), True)], at + 1)
    assert found.value.applied == at


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_what_is_applied_is_read_behind_every_server(server: str) -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        batches = [(batch([Set("/a", "1"), Create("/a", "2")]), True), (batch([Set("/b", "\udcff")]), False)]
        [[written, refused], nobody_waits] = await keyspace.apply(batches, 2)  # type: ignore[misc]
        assert written == Event("set", Node("/a", "1", 1, 1), None, 1)
        assert isinstance(refused, EtcdError)
        assert (refused.code, refused.cause, refused.index) == (Code.NODE_EXISTS, "/a", 1)
        assert nobody_waits is None
        assert keyspace.index == 2
        found, missing = await keyspace.get_many(["/b", "/c"])
        assert found == Event("get", Node("/b", "\udcff", 2, 2), None, 2)
        assert isinstance(missing, EtcdError)
        assert missing.code == Code.KEY_NOT_FOUND

    run(scenario, server)


def test_directories_are_read_as_by_the_keyspace_itself() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        await keyspace.apply([(batch([Set("/d/\udcff/x", "1"), Set("/d/a", "2")]), False)], 1)
        queries = [Query("/", recursive=True), Query("/d"), "/d"]
        assert await keyspace.get_many(queries) == service.keyspace.get_many(queries)
        [error] = await keyspace.get_many(["/d/a/x"])
        assert isinstance(error, EtcdError)
        assert (error.code, error.cause) == (Code.NOT_DIR, "/d/a")

    run(scenario)


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_an_entry_of_many_mebibytes_goes_through(server: str) -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        large = "x" * (16 << 20)
        for applied in (1, 2):
            [[event]] = await keyspace.apply([(batch([Set("/a", large)]), True)], applied)  # type: ignore[misc]
        assert event.prev_node.value == large

    run(scenario, server)


def test_a_service_that_is_not_there_is_unavailable_and_later_it_is_found() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        with pytest.raises(StoreUnavailable, match=service.url):
            await keyspace.apply([], 0)
        with pytest.raises(StoreUnavailable, match="not reached yet"):
            await keyspace.get_many(["/a"])
        await service.start()
        await meet(keyspace)
        await keyspace.apply([(batch([Set("/a", "1")]), True)], 1)

    run(scenario)


def test_a_service_started_anew_is_not_read_until_it_has_everything_again() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        first, second = [(batch([Set("/a", "1")]), True)], [(batch([Set("/a", "2")]), True)]
        await keyspace.apply(first, 1)
        await keyspace.apply(second, 2)
        await service.stop()
        await service.start()
        with pytest.raises(StoreUnavailable, match="was restarted"):
            await keyspace.get_many(["/a"])
        with pytest.raises(Misplaced) as found:
            await keyspace.apply([], 2)
        assert found.value.applied == 0
        await keyspace.apply(first, 1)
        with pytest.raises(StoreUnavailable, match="has 1 of 2 entries again"):
            await keyspace.get_many(["/a"])
        await keyspace.apply(second, 2)
        [event] = await keyspace.get_many(["/a"])
        assert isinstance(event, Event)
        assert event.node.value == "2"

    run(scenario)


def test_a_node_started_anew_goes_on_where_the_service_is() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        await keyspace.apply([(batch([Set("/a", "1")]), True)], 5)
        again = RemoteKeyspace(service.url, 7, 1)
        await meet(again, at=5)
        await again.apply([(batch([Set("/a", "2")]), True)], 6)
        assert service.keyspace.index == 2
        # What the earlier life still had under way comes too late, and says so.
        with pytest.raises(Misplaced):
            await keyspace.apply([(batch([Set("/a", "late")]), True)], 6 + 1)
        assert service.keyspace.index == 2
        await again.close()

    run(scenario)


# --- watchers, which are the node's ---------------------------------------------------------------------------------

SOON = 2_000_000_000 * 10**9
Told = list[Event | None]


def watch(keyspace: RemoteKeyspace, key: str, since: int = 0, *, recursive: bool = True) -> Told:
    told: Told = []
    keyspace.watchers.watch(key, recursive=recursive, stream=True, since=since, notify=told.append)
    return told


def short(told: Told) -> list[tuple[str, str, int] | None]:
    return [each and (each.action, each.node.key, each.index) for each in told]


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_the_node_tells_its_watchers_all_that_its_service_applies(server: str) -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        told, inside = watch(keyspace, "/"), watch(keyspace, "/d/x", recursive=False)
        commands = [Set("/a", "\udcff"), Put("/d", "", SOON, True), Set("/d/x", "3"), Set("//own", "4")]
        answers = await keyspace.apply([(batch(commands), True), (batch([Set("/b", "5")]), False)], 1)
        assert answers == [
            [
                Event("set", Node("/a", "\udcff", 1, 1), None, 1),
                Event("set", Node("/d", None, 2, 2, True, SOON), None, 2),
                Event("set", Node("/d/x", "3", 3, 3), None, 3),
                Event("set", Node("//own", "4", 4, 4), None, 4),
            ],
            None,
        ]
        assert short(told) == [("set", "/a", 1), ("set", "/d", 2), ("set", "/d/x", 3), ("set", "/b", 5)]
        assert keyspace.expires == SOON
        [[expired, refused]] = await keyspace.apply(  # type: ignore[misc]
            [(batch([Expire(SOON), Create("/a", "no")]), True)], 2
        )
        assert expired == Expired([])  # nobody waits for it; watchers are told
        assert isinstance(refused, EtcdError)
        assert short(told)[4:] == [("expire", "/d", 6)]
        assert short(inside) == [("set", "/d/x", 3), ("expire", "/d", 6)]
        assert keyspace.expires is None
        assert short(watch(keyspace, "/b", since=2)) == [("set", "/b", 5)]
        stats = keyspace.stats
        assert (stats.sets_success, stats.create_fail, stats.expire_count, stats.watchers) == (5, 1, 1, 2)

    run(scenario, server)


def test_a_service_that_was_started_anew_and_gets_all_again_repeats_no_event() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        told = watch(keyspace, "/a")
        entries = [[(batch([Set("/a", str(number))]), False)] for number in range(4)]
        for number in range(3):
            await keyspace.apply(entries[number], number + 1)
        await service.stop()
        await service.start()
        with pytest.raises(Misplaced):
            await keyspace.apply(entries[3], 4)
        await keyspace.apply(entries[0], 1)
        await keyspace.apply([*entries[1], *entries[2], *entries[3]], 4)  # the last of them is new
        assert short(told) == [("set", "/a", number) for number in (1, 2, 3, 4)]
        assert short(watch(keyspace, "/a", since=1)) == [("set", "/a", 1)]

    run(scenario)


def test_a_node_that_was_started_anew_knows_the_past_from_then_on() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        await keyspace.apply([(batch([Set("/a", "1")]), False)], 5)
        again = RemoteKeyspace(service.url, 7, 1)
        early = watch(again, "/a")
        await meet(again, at=5)
        assert early == [None]  # it cannot know what it has missed
        told = watch(again, "/a")
        await again.apply([(batch([Set("/a", "2")]), False)], 6)
        assert short(told) == [("set", "/a", 2)]
        with pytest.raises(EtcdError, match=r"\[2/1\]"):
            watch(again, "/a", since=1)
        await again.close()

    run(scenario)


def test_a_state_that_is_put_into_the_service_clears_watchers_unless_they_know_all_of_it() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        state = filled()
        await service.start()
        told = watch(keyspace, "/a")
        await keyspace.restore(following(chunks_of(state)))
        assert told == [None]
        assert keyspace.watchers.history() == state.watchers.history()
        told = watch(keyspace, "/key-1")
        await service.stop()
        await service.start()
        with pytest.raises(Misplaced):
            await keyspace.apply([(batch([Set("/a", "1")]), False)], 41)
        await keyspace.restore(following(chunks_of(state)))
        await keyspace.apply([(batch([Set("/key-1", "later")]), False)], 41)
        assert short(told) == [("set", "/key-1", 1503)]

    run(scenario)


def test_another_nodes_service_is_refused_in_one_line() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        other = RemoteKeyspace(service.url, 7, 2)
        with pytest.raises(
            ApplicationRefused, match="driven by member 1 of cluster 7, and not by member 2"
        ) as refused:
            await other.apply([], 0)
        assert "\n" not in str(refused.value)
        await other.close()

    run(scenario)


class Says:
    """A service of another kind."""

    def __init__(self, status: int, body: bytes) -> None:
        self.response = Response(status, b"Content-Type: text/plain\r\n", body)

    def handle(
        self,
        method: str,
        target: bytes,
        kind: object,
        body: bytes,
        respond: Callable[[Response], None],
        authorization: object = None,
    ) -> None:
        respond(self.response)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"hello", ApplicationRefused),
        (409, b"\x80", ApplicationRefused),
        (404, b"404 page not found\n", ApplicationRefused),
        (400, b"what?", ApplicationRefused),
        (500, b"out of order", StoreUnavailable),
        (503, b"the database is away", StoreUnavailable),
    ],
)
def test_what_answers_otherwise_is_refused_or_asked_again(
    status: int, body: bytes, error: type[Exception]
) -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start(Says(status, body))
        with pytest.raises(error, match=service.url):
            await keyspace.apply([], 0)

    run(scenario)


def test_who_speaks_no_http_is_said_in_words_and_not_in_bytes() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(encode_frame(Refusal("Hello first")))  # as a node where its peers connect
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", service.port):
            with pytest.raises(StoreUnavailable) as raised:
                await keyspace.apply([], 0)
        expected = (
            "gives no HTTP answer: --application takes what the service has as --listen-application-urls"
        )
        assert str(raised.value) == f"application {service.url} {expected}"

    run(scenario)


def test_who_hangs_up_before_the_question_is_said_in_words() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        async with await asyncio.start_server(hang_up, "127.0.0.1", service.port):
            with pytest.raises(StoreUnavailable) as raised:
                await keyspace.apply([], 0)
        assert "None" not in str(raised.value)

    run(scenario)


def test_a_service_that_does_not_answer_is_unavailable_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)

    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", service.port))
            silent.listen()
            async with asyncio.timeout(5):
                with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.2 s"):
                    await keyspace.apply([], 0)

    run(scenario)


# --- snapshots ------------------------------------------------------------------------------------------------------


def filled(applied: int = 40) -> Keyspace:
    """With a state of several chunks."""
    keyspace = Keyspace(HashMapStore())
    commands = [Set(f"/key-{number}", "value" * 60) for number in range(1500)]
    keyspace.apply(
        [(batch([*commands, Set("/large", "x" * (3 << 20)), Set("/\udcff", "\udcfe")]), False)], applied
    )
    return keyspace


def chunks_of(keyspace: Keyspace) -> list[bytes]:
    return [chunk for chunk in keyspace.snapshot() if chunk]


async def following(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def taken(snapshot: AsyncIterator[bytes]) -> list[bytes]:
    return [chunk async for chunk in snapshot if chunk]


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_a_state_is_put_into_a_service_and_taken_from_it_behind_every_server(server: str) -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        state = chunks_of(filled())
        await service.start()
        await keyspace.restore(following(state))  # the first that the service hears of this node
        assert (keyspace.index, service.keyspace.applied) == (1502, 40)
        [event] = await keyspace.get_many(["/\udcff"])
        assert isinstance(event, Event)
        assert event.node.value == "\udcfe"
        assert await taken(await keyspace.snapshot(40)) == state
        await keyspace.apply([(batch([Set("/key-1", "later")]), True)], 41)

    run(scenario, server)


def test_what_is_applied_while_a_state_is_taken_does_not_show_in_it() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        state = chunks_of(filled())
        await service.start()
        await keyspace.restore(following(state))
        snapshot = await keyspace.snapshot(40)
        await keyspace.apply([(batch([Set("/key-1", "later")]), True)], 41)
        assert await taken(snapshot) == state
        assert await taken(snapshot) == []
        again = await keyspace.snapshot(41)
        await anext(again)
        again.close()
        assert await taken(again) == []

    run(scenario)


class Deaf:
    """Carries each piece out twice as often as its answer arrives: the first answer to each request is lost."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.answered: set[bytes] = set()
        self.lost = 0

    def handle(
        self,
        method: str,
        target: bytes,
        kind: bytes | None,
        body: bytes,
        respond: Callable[[Response], None],
        authorization: object = None,
    ) -> None:
        def answer(response: Response) -> None:
            if target in (RESTORE.encode(), SNAPSHOT.encode()) and body not in self.answered:
                self.answered.add(body)
                self.lost += 1
                response = Response(503, b"Content-Type: text/plain\r\n", b"lost")
            respond(response)

        self.api.handle(method, target, kind, body, answer)


def test_answers_that_are_lost_repeat_nothing_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0)

    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        state = chunks_of(filled())
        there = Keyspace(HashMapStore())
        deaf = Deaf(application(there))
        await service.start(deaf)
        await keyspace.restore(following(state))
        assert chunks_of(there) == state
        assert await taken(await keyspace.snapshot(40)) == state
        assert deaf.lost > 2 * len(state)

    run(scenario)


def test_a_service_started_anew_in_the_middle_of_a_restore_gets_it_from_the_beginning() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        state = chunks_of(filled())

        async def interrupted() -> AsyncIterator[bytes]:
            for number, chunk in enumerate(state):
                if number == 3:
                    await service.stop()
                    await service.start()
                yield chunk

        await service.start()
        with pytest.raises(StoreUnavailable, match="did not go on with piece"):
            await keyspace.restore(interrupted())
        assert service.keyspace.index == 0
        await keyspace.restore(following(state))
        assert chunks_of(service.keyspace) == state

    run(scenario)


def test_a_service_started_anew_or_elsewhere_has_no_state_to_be_taken() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await keyspace.restore(following(chunks_of(filled())))
        for elsewhere in (39, 41):
            with pytest.raises(StoreUnavailable, match=f"has no piece 0 of its state at entry {elsewhere}"):
                await keyspace.snapshot(elsewhere)
        snapshot = await keyspace.snapshot(40)
        await service.stop()
        await service.start()
        with pytest.raises(StoreUnavailable, match="has no piece 1 of its state"):
            await taken(snapshot)
        # The node still has to find out where the service is, or what it applies next would be out of place.
        with pytest.raises(Misplaced) as found:
            await keyspace.apply([(batch([Set("/a", "1")]), True)], 41)
        assert found.value.applied == 0

    run(scenario)


def test_a_service_that_is_at_the_snapshot_or_further_is_left_as_it_is() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        await meet(keyspace)
        await keyspace.apply([(batch([Set("/a", "1")]), True)], 40)
        again = RemoteKeyspace(service.url, 7, 1)
        await again.restore(following(chunks_of(filled(40))))
        with pytest.raises(Misplaced) as found:
            await again.restore(following(chunks_of(filled(30))))
        assert found.value.applied == 40
        assert service.keyspace.index == 1
        await again.apply([(batch([Set("/a", "2")]), True)], 41)
        await again.close()

    run(scenario)


def test_what_is_no_snapshot_is_never_taken() -> None:
    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        await service.start()
        with pytest.raises(BadSnapshot):
            await keyspace.restore(following([]))
        with pytest.raises(ApplicationRefused, match="before its end") as refused:
            await keyspace.restore(following(chunks_of(filled())[:-1]))
        assert "\n" not in str(refused.value)
        other = RemoteKeyspace(service.url, 7, 2)
        with pytest.raises(ApplicationRefused, match="and not by member 2"):
            await other.restore(following(chunks_of(filled())))
        await other.close()

    run(scenario)


def test_a_service_that_is_not_there_is_asked_some_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0.1)

    async def scenario(service: Service, keyspace: RemoteKeyspace) -> None:
        state = chunks_of(filled())
        with pytest.raises(StoreUnavailable, match=service.url):
            await keyspace.restore(following(state))
        restoring = asyncio.create_task(keyspace.restore(following(state)))
        await asyncio.sleep(0.05)
        await service.start()
        await restoring
        assert chunks_of(service.keyspace) == state

    run(scenario)
