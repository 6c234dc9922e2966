"""The health check of the containers: ``python healthy.py PORT`` ends with 0 when ``GET /health`` answers 200.

It runs every few seconds beside each service, so it costs as little as Python can: started with ``-IS`` (no site
packages), it imports nothing but ``socket``, half of what an HTTP client takes.
"""

import socket
import sys

TIMEOUT = 3.0  # s


def healthy(port: int) -> bool:
    """Whether the service on this host at ``port`` says that it can serve."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            with connection.makefile("rb") as answer:
                status = answer.readline().split(b" ", 2)
    except OSError:
        return False
    return len(status) > 1 and status[1] == b"200"


if __name__ == "__main__":
    sys.exit(not healthy(int(sys.argv[1])))
