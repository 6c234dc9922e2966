"""Links between nodes, over real sockets: who is let in, who is not, and what happens when a link ends.

Each test runs with links on an event loop and with links on threads, and with one of each where two members meet.
"""

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from struct import pack
from typing import Any
from zlib import crc32

import pytest
import uvloop

from common_raft.core import Configuration, SnapshotMeta
from common_raft.core.messages import Heartbeat, HeartbeatResponse, InstallSnapshot
from common_raft.testing.processes import free_ports
from common_raft.transport import links
from common_raft.transport.asyncio import AsyncioTransport
from common_raft.transport.blocking import BlockingTransport
from common_raft.transport.codec import FrameError, FrameReader, encode_frame
from common_raft.transport.inquiry import ask
from common_raft.transport.links import (
    MAX_HELLO_BYTES,
    UNCONFIRMED_SECONDS,
    Incoming,
    Roster,
    give_up_unconfirmed,
)
from common_raft.transport.messages import (
    ForwardedProposals,
    Hello,
    Inquiry,
    Introduction,
    PeerMessage,
    Refusal,
)

CLUSTER = 77
ONE, TWO = 1, 2
Transport = type[AsyncioTransport] | type[BlockingTransport]
KINDS = {"asyncio": AsyncioTransport, "blocking": BlockingTransport}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Transport:
    return KINDS[request.param]


@pytest.fixture(params=KINDS)
def other(request: pytest.FixtureRequest) -> Transport:
    return KINDS[request.param]


def framed(body: bytes) -> bytes:
    return pack(">2sBxII", b"RS", 1, len(body), crc32(body)) + body


def free_port() -> int:
    return free_ports(1)[0]


class Member:
    """A transport that remembers what happened to it."""

    def __init__(
        self, kind: Transport, node_id: int, port: int, peers: dict[int, int], cluster_id: int = CLUSTER
    ) -> None:
        self.received: list[PeerMessage] = []
        self.unreachable: list[int] = []
        self.removed = False
        self.port = port
        self.transport = kind(
            node_id,
            cluster_id,
            [("127.0.0.1", port)],
            {peer: ("127.0.0.1", peer_port) for peer, peer_port in peers.items()},
            self.received.extend,
            self.unreachable.append,
            self._note_removal,
        )

    def _note_removal(self) -> None:
        self.removed = True

    def failed_to_dial(self, peer: int) -> bool:
        """Whether it has found that the peer is not there, and waits."""
        return bool(self.transport._links[peer]._dialling._said)

    async def start(self) -> None:
        await self._finish(self.transport.start())

    async def close(self) -> None:
        await self._finish(self.transport.close())

    async def _finish(self, begun: Awaitable[None] | None) -> None:
        if begun is not None:  # threads have done it by now
            await begun


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(scenario())


async def two_members(kind: Transport, other: Transport) -> tuple[Member, Member]:
    ports = {ONE: free_port(), TWO: free_port()}
    one = Member(kind, ONE, ports[ONE], {TWO: ports[TWO]})
    two = Member(other, TWO, ports[TWO], {ONE: ports[ONE]})
    for member in (one, two):
        await member.start()
    await until(lambda: one.transport.is_connected(TWO) and two.transport.is_connected(ONE))
    return one, two


def test_a_link_out_is_given_up_when_nobody_confirms_what_was_sent() -> None:
    with socket.socket() as connection:
        give_up_unconfirmed(connection)
        assert (
            connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * UNCONFIRMED_SECONDS
        )


def test_each_kind_of_link_out_gives_up(kind: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        asked: list[int] = []
        module = sys.modules[kind.__module__]
        monkeypatch.setattr(
            module, "give_up_unconfirmed", lambda connection: asked.append(connection.fileno())
        )
        one, two = await two_members(kind, kind)
        assert len(asked) == 2
        await one.close()
        await two.close()

    run(scenario)


def test_what_one_member_sends_the_other_receives_in_order(kind: Transport, other: Transport) -> None:
    async def scenario() -> None:
        one, two = await two_members(kind, other)
        sent = [Heartbeat(TWO, ONE, 1, 0, round_) for round_ in range(100)]
        for message in sent:
            one.transport.send(message)
        one.transport.flush()
        await until(lambda: len(two.received) == len(sent))
        assert two.received == sent
        await one.close()
        await two.close()

    run(scenario)


def test_a_peer_that_is_not_where_it_was_looked_for_first_is_looked_for_elsewhere(
    kind: Transport, other: Transport
) -> None:
    async def scenario() -> None:
        nobody, wrong, right = free_ports(3)
        one = Member(kind, ONE, free_port(), {TWO: nobody})
        two, three = Member(other, TWO, right, {ONE: one.port}), Member(other, 3, wrong, {ONE: one.port})
        # At the second address is somebody else, who refuses.
        further = {TWO: [("127.0.0.1", wrong), ("127.0.0.1", right)]}
        one.transport.update(Roster(ONE, CLUSTER, {TWO: ("127.0.0.1", nobody)}, further=further))
        for member in (one, two, three):
            await member.start()
        message = Heartbeat(TWO, ONE, 1, 0, 7)
        async with asyncio.timeout(10):
            while message not in two.received:
                one.transport.send(message)
                one.transport.flush()
                await asyncio.sleep(0.02)
        assert three.received == []
        for member in (one, two, three):
            await member.close()

    run(scenario)


def test_a_peer_that_restarts_is_reached_again_and_was_reported_unreachable(
    kind: Transport, other: Transport
) -> None:
    async def scenario() -> None:
        one, two = await two_members(kind, other)
        await two.close()
        await until(lambda: not one.transport.is_connected(TWO) and TWO in one.unreachable)
        one.unreachable.clear()
        one.transport.send(Heartbeat(TWO, ONE, 1, 0, 0))
        assert TWO in one.unreachable  # dropped, not kept: Raft repeats what matters
        again = Member(other, TWO, two.port, {ONE: one.port})
        await again.start()
        await until(lambda: one.transport.is_connected(TWO))
        one.transport.send(Heartbeat(TWO, ONE, 1, 0, 1))
        one.transport.flush()
        await until(lambda: bool(again.received))
        assert again.received == [Heartbeat(TWO, ONE, 1, 0, 1)]
        await one.close()
        await again.close()

    run(scenario)


def test_a_peer_that_was_away_is_dialled_as_soon_as_it_dials_itself(
    kind: Transport, other: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "LAST_BACKOFF_SECONDS", 600.0)
    monkeypatch.setattr(links, "FIRST_BACKOFF_SECONDS", 300.0)

    async def scenario() -> None:
        ports = {ONE: free_port(), TWO: free_port()}
        one = Member(kind, ONE, ports[ONE], {TWO: ports[TWO]})
        await one.start()
        await until(lambda: one.failed_to_dial(TWO))
        two = Member(other, TWO, ports[TWO], {ONE: ports[ONE]})
        await two.start()
        await until(lambda: one.transport.is_connected(TWO))
        await one.close()
        await two.close()

    run(scenario)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a frame"),
        (encode_frame(Hello(ONE, TWO, CLUSTER + 1)), "cluster id mismatch"),
        (encode_frame(Hello(ONE, 99, CLUSTER)), "not a member"),
        (encode_frame(Hello(TWO, TWO, CLUSTER)), "hello for 2"),
        (encode_frame(Heartbeat(ONE, TWO, 1, 0, 0)), "before the hello"),
        (encode_frame(Hello(ONE, TWO, CLUSTER)) * 2, "in the middle"),
        (encode_frame(Hello(ONE, TWO, CLUSTER)) + encode_frame(Heartbeat(ONE, 99, 1, 0, 0)), "from 63 to 1"),
        (encode_frame(Hello(ONE, TWO, CLUSTER)) + encode_frame(Heartbeat(TWO, TWO, 1, 0, 0)), "from 2 to 2"),
        (
            encode_frame(Hello(ONE, TWO, CLUSTER))
            + encode_frame(InstallSnapshot(ONE, TWO, 1, SnapshotMeta(50, 1, Configuration((ONE, TWO))))),
            "InstallSnapshot without its snapshot",
        ),
        # The header alone, whatever would follow it.
        (pack(">2sBxII", b"RS", 1, MAX_HELLO_BYTES + 1, 0), f"at most {MAX_HELLO_BYTES}"),
        # A hello with a field more, which is nested.
        (framed(b"\x96\x20\x01\x02\x4d\x90" + b"\x91" * 50_000 + b"\xc0"), "holds no message"),
    ],
)
def test_whoever_is_no_peer_is_refused_with_the_reason_and_the_member_goes_on(
    kind: Transport, said: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        member = Member(kind, ONE, free_port(), {TWO: free_port()})
        await member.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", member.port)
        writer.write(said)
        answer = await asyncio.wait_for(reader.read(), 10)
        (refusal,) = FrameReader().feed(answer)
        assert isinstance(refusal, Refusal)
        assert reason in refusal.reason
        assert member.received == []
        writer.close()
        # A proper peer is let in afterwards.
        reader, writer = await asyncio.open_connection("127.0.0.1", member.port)
        writer.write(encode_frame(Hello(ONE, TWO, CLUSTER)) + encode_frame(Heartbeat(ONE, TWO, 1, 0, 0)))
        await until(lambda: member.received == [Heartbeat(ONE, TWO, 1, 0, 0)])
        writer.close()
        await member.close()

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert reason in caplog.text


def test_a_hello_may_have_many_urls_and_what_follows_it_may_be_as_long_as_any_frame(kind: Transport) -> None:
    async def scenario() -> None:
        member = Member(kind, ONE, free_port(), {TWO: free_port()})
        await member.start()
        urls = tuple(f"http://{'n' * 250}{number}:2380" for number in range(200))
        megabytes = ForwardedProposals(ONE, TWO, [bytes(4 << 20)])
        _, writer = await asyncio.open_connection("127.0.0.1", member.port)
        writer.write(encode_frame(Hello(ONE, TWO, CLUSTER, urls)) + encode_frame(megabytes))
        await until(lambda: member.received == [megabytes])
        writer.close()
        await member.close()

    run(scenario)


def test_a_long_frame_behind_an_inquiry_is_refused_by_its_header() -> None:
    incoming = Incoming(lambda: Roster(ONE, CLUSTER, {}))
    with pytest.raises(FrameError, match=f"at most {MAX_HELLO_BYTES}"):
        incoming.feed(encode_frame(Inquiry()) + pack(">2sBxII", b"RS", 1, MAX_HELLO_BYTES + 1, 0), [])


def test_a_member_learns_why_it_is_refused(
    kind: Transport, other: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        ports = {ONE: free_port(), TWO: free_port()}
        one = Member(kind, ONE, ports[ONE], {TWO: ports[TWO]})
        stranger = Member(other, TWO, ports[TWO], {ONE: ports[ONE]}, cluster_id=CLUSTER + 1)
        await one.start()
        await stranger.start()
        await until(lambda: "peer 2 refused this node: cluster id mismatch" in caplog.text)
        await one.close()
        await stranger.close()

    with caplog.at_level(logging.WARNING):
        run(scenario)


def test_a_peer_that_dials_anew_replaces_its_old_connection(kind: Transport) -> None:
    async def scenario() -> None:
        member = Member(kind, ONE, free_port(), {TWO: free_port()})
        await member.start()
        first, first_writer = await asyncio.open_connection("127.0.0.1", member.port)
        first_writer.write(encode_frame(Hello(ONE, TWO, CLUSTER)))
        await until(lambda: member.transport.hears(TWO))
        _, second = await asyncio.open_connection("127.0.0.1", member.port)
        second.write(encode_frame(Hello(ONE, TWO, CLUSTER)) + encode_frame(Heartbeat(ONE, TWO, 1, 0, 0)))
        assert await asyncio.wait_for(first.read(), 10) == b""
        await until(lambda: len(member.received) == 1)
        for writer in (first_writer, second):
            writer.close()
        await member.close()

    run(scenario)


def test_an_address_in_use_is_an_error_at_the_start(kind: Transport) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            member = Member(kind, ONE, taken.getsockname()[1], {})
            with pytest.raises(OSError, match="in use"):
                await member.start()

    run(scenario)


def test_whoever_never_says_hello_is_refused_in_time(
    kind: Transport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("asyncio", "blocking"):
        monkeypatch.setattr(f"common_raft.transport.{module}.HELLO_SECONDS", 0.1)

    async def scenario() -> None:
        member = Member(kind, ONE, free_port(), {TWO: free_port()})
        await member.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", member.port)
        (refusal,) = FrameReader().feed(await asyncio.wait_for(reader.read(), 10))
        assert isinstance(refusal, Refusal)
        assert "no hello" in refusal.reason
        writer.close()
        await member.close()

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert "no hello" in caplog.text


def test_a_peer_that_does_not_read_costs_bounded_memory_and_no_time(
    kind: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("asyncio", "blocking"):
        monkeypatch.setattr(f"common_raft.transport.{module}.MAX_BUFFERED_BYTES", 8 << 20)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(10)
            member = Member(kind, ONE, free_port(), {TWO: silent.getsockname()[1]})
            await member.start()
            connection, _ = await asyncio.to_thread(silent.accept)
            await until(lambda: member.transport.is_connected(TWO))
            megabyte = ForwardedProposals(TWO, ONE, [bytes(1 << 20)])
            for _ in range(64):
                member.transport.send(megabyte)
                member.transport.flush()
            assert TWO in member.unreachable  # some were dropped
            reader, frames = FrameReader(), []
            connection.settimeout(2)
            try:
                while data := await asyncio.to_thread(connection.recv, 1 << 20):
                    frames += reader.feed(data)
            except TimeoutError:
                pass
            hello, *kept = frames  # what was not dropped came whole
            assert hello == Hello(TWO, ONE, CLUSTER)
            assert 8 <= len(kept) < 32
            assert all(frame == megabyte for frame in kept)
            # Now that it reads, it is served again.
            member.transport.send(Heartbeat(TWO, ONE, 1, 0, 7))
            member.transport.flush()
            assert (await asyncio.to_thread(connection.recv, 1 << 20)).endswith(
                encode_frame(Heartbeat(TWO, ONE, 1, 0, 7))
            )
            connection.close()
            await member.close()

    run(scenario)


# --- members that come, go and move ------------------------------------------------------------------------------


def roster(node_id: int, peers: dict[int, int], **more: Any) -> Roster:
    return Roster(node_id, CLUSTER, {peer: ("127.0.0.1", port) for peer, port in peers.items()}, **more)


def test_a_peer_may_move_while_the_links_run(kind: Transport, other: Transport) -> None:
    async def scenario() -> None:
        one, two = await two_members(kind, other)
        await two.close()
        moved = Member(other, TWO, free_port(), {ONE: one.port})
        await moved.start()
        one.transport.update(roster(ONE, {TWO: moved.port}))
        await until(lambda: one.transport.is_connected(TWO))
        one.transport.send(Heartbeat(TWO, ONE, 1, 0, 0))
        one.transport.flush()
        await until(lambda: moved.received == [Heartbeat(TWO, ONE, 1, 0, 0)])
        await one.close()
        await moved.close()

    run(scenario)


def test_a_member_that_is_added_is_dialled_and_let_in(kind: Transport, other: Transport) -> None:
    async def scenario() -> None:
        one = Member(kind, ONE, free_port(), {})
        two = Member(other, TWO, free_port(), {ONE: one.port})
        await one.start()
        await two.start()
        await asyncio.sleep(0.1)
        assert not one.transport.hears(TWO)
        one.transport.update(roster(ONE, {TWO: two.port}))
        await until(lambda: one.transport.is_connected(TWO) and one.transport.hears(TWO))
        await one.close()
        await two.close()

    run(scenario)


def test_a_member_that_is_removed_gets_what_was_queued_for_it_and_is_told(
    kind: Transport, other: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        one, two = await two_members(kind, other)
        one.transport.send(Heartbeat(TWO, ONE, 1, 0, 0))
        one.transport.update(roster(ONE, {}, removed=(TWO,)))
        assert not one.transport.is_connected(TWO)
        await until(lambda: two.removed and not one.transport.hears(TWO))
        await until(lambda: two.received == [Heartbeat(TWO, ONE, 1, 0, 0)])
        await two.close()
        two = Member(other, TWO, two.port, {ONE: one.port})  # it was down when it was removed
        await two.start()
        await until(lambda: two.removed)
        assert not one.transport.hears(TWO)
        await one.close()
        await two.close()

    run(scenario)
    assert "2 has been permanently removed from the cluster" in caplog.text


def test_a_member_that_this_node_has_yet_to_learn_of_is_heard_and_answered(
    kind: Transport, other: Transport
) -> None:
    async def scenario() -> None:
        one = Member(kind, ONE, free_port(), {})
        two = Member(other, TWO, free_port(), {ONE: one.port})
        two.transport.update(roster(TWO, {ONE: one.port}, urls=(f"http://127.0.0.1:{two.port}",)))
        await one.start()
        await two.start()
        await until(lambda: one.transport.is_connected(TWO) and two.transport.is_connected(ONE))
        two.transport.send(Heartbeat(ONE, TWO, 1, 0, 0))
        two.transport.flush()
        await until(lambda: one.received == [Heartbeat(ONE, TWO, 1, 0, 0)])
        one.transport.send(HeartbeatResponse(TWO, ONE, 1, 0))
        one.transport.flush()
        await until(lambda: two.received == [HeartbeatResponse(TWO, ONE, 1, 0)])
        await one.close()
        await two.close()

    run(scenario)


def test_of_members_that_it_does_not_know_a_node_answers_a_few(
    kind: Transport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (AsyncioTransport.__module__, BlockingTransport.__module__):
        monkeypatch.setattr(f"{module}.MAX_UNKNOWN", 1)

    async def scenario() -> None:
        one = Member(kind, ONE, free_port(), {})
        await one.start()
        writers = []
        for sender in (2, 3):
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writers.append(writer)
            writer.write(encode_frame(Hello(ONE, sender, CLUSTER, ("http://127.0.0.1:9",))))
            if sender == 3:
                assert b"as far as this node knows" in await reader.read()
            await until(lambda: one.transport.hears(2))
        for writer in writers:
            writer.close()
        await one.close()

    run(scenario)


def test_whoever_asks_is_told_who_is_here_and_nothing_more(kind: Transport) -> None:
    async def scenario() -> None:
        one = Member(kind, ONE, free_port(), {})
        one.transport.update(roster(ONE, {}, members=b"the table"))
        await one.start()
        said = await asyncio.to_thread(ask, ("127.0.0.1", one.port), 5)
        assert said == Introduction(CLUSTER, b"the table")
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(encode_frame(Inquiry()) + encode_frame(Heartbeat(ONE, TWO, 1, 0, 0)))
        await reader.read()
        writer.close()
        assert one.received == []
        await one.close()

    run(scenario)


def test_an_inquiry_that_is_not_answered_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        ask(silent.getsockname()[:2], 0.2)
    with socket.create_server(("127.0.0.1", 0)) as closing:

        def turn_away() -> None:
            connection, _ = closing.accept()
            connection.close()

        thread = threading.Thread(target=turn_away)
        thread.start()
        with pytest.raises((FrameError, ConnectionError)):
            ask(closing.getsockname()[:2], 5)
        thread.join()
