"""The node's end of a service in another process: over real HTTP, to a service that is started, lost and changed."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from common_raft.drivers.machine import Misplaced
from common_raft.independent import remote
from common_raft.independent.remote import ApplicationRefused, RemoteKeyspace
from common_raft.keyspace import (
    Code,
    Create,
    EtcdError,
    Event,
    HashMapStore,
    Keyspace,
    Node,
    Set,
    StoreUnavailable,
)
from common_raft.keyspace.commands import encode as batch
from common_raft.tests.web_fixtures import free_port
from common_raft.web.api import Api
from common_raft.web.application import application
from common_raft.web.application_wire import MAX_BODY_BYTES
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
        self, method: str, target: bytes, kind: object, body: bytes, respond: Callable[[Response], None]
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
