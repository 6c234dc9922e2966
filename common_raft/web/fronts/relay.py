"""A stream as an ASGI response: head first, then piece by piece, until it ends or the client is gone."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from common_raft.web.response import header_pairs
from common_raft.web.stream import Stream, Streams

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


async def relay(stream: Stream, streams: Streams, receive: Receive, send: Send) -> None:
    """Until the stream has ended.  Its pieces may come from any thread.

    A client that takes nothing holds up ``send``, and so leaves pieces in the stream.
    """
    loop = asyncio.get_running_loop()
    more = asyncio.Event()
    gone = loop.create_task(_until_gone(receive))
    gone.add_done_callback(lambda _: stream.cancel())
    streams.add(stream)
    try:
        stream.start(_waker(loop, more))
        await send(
            {"type": "http.response.start", "status": stream.status, "headers": header_pairs(stream.head)}
        )
        await _send_piece(send, b"")  # with which the head goes out
        while True:
            more.clear()
            pieces, ended = stream.take()
            for piece in pieces:
                await _send_piece(send, piece)
            if ended:
                break
            await more.wait()
        await send({"type": "http.response.body", "body": b""})
    except OSError:
        pass  # the client is gone
    finally:
        streams.discard(stream)
        stream.cancel()
        gone.cancel()


async def _send_piece(send: Send, piece: bytes) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _waker(loop: asyncio.AbstractEventLoop, more: asyncio.Event) -> Callable[[], None]:
    """Sets the event in its loop."""

    def wake() -> None:
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            more.set()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(more.set)

    return wake
