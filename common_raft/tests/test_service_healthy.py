"""The containers' health check, against servers that answer, refuse, hang up or are not there."""

import socket
import threading
from collections.abc import Iterator

import pytest

from common_raft.service.healthy import healthy


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"health":"true"}', True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"200\r\n", False),
        (b"", False),
    ],
)
def test_only_status_200_is_healthy(listener: socket.socket, answer: bytes, expected: bool) -> None:
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(1000))
            connection.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    assert healthy(listener.getsockname()[1]) is expected
    server.join(10)
    assert asked[0].startswith(b"GET /health HTTP/1.1\r\nHost: ")


def test_a_service_that_is_not_there_is_not_healthy(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    assert not healthy(port)
