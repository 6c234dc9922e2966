"""Asking a member who is in its cluster, before one belongs to it: a connection with one frame each way."""

from __future__ import annotations

import socket
import time

from common_raft.transport.codec import FrameError, FrameReader, encode_frame
from common_raft.transport.links import Address
from common_raft.transport.messages import Inquiry, Introduction, Refusal

_RECEIVE_BYTES = 64 << 10


def ask(address: Address, seconds: float) -> Introduction:
    """What the member at ``address`` knows.  Raises OSError, also after so many seconds, and FrameError."""
    deadline = time.monotonic() + seconds
    with socket.create_connection(address, seconds) as connection:
        connection.sendall(encode_frame(Inquiry()))
        reader = FrameReader()
        while True:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            data = connection.recv(_RECEIVE_BYTES)
            if not data:
                raise FrameError("it ended the connection without an answer")
            for frame in reader.feed(data):
                if isinstance(frame, Introduction):
                    return frame
                reason = frame.reason if isinstance(frame, Refusal) else f"a {type(frame).__name__}"
                raise FrameError(f"it answered with: {reason}")
