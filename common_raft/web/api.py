"""What a front serves: an API that knows nothing of how bytes reach it."""

from collections.abc import Callable
from typing import Protocol

from common_raft.web.response import Response

Respond = Callable[[Response], None]


class Api(Protocol):
    def handle(
        self, method: str, target: bytes, content_type: bytes | None, body: bytes, respond: Respond, /
    ) -> None:
        """Answer one request: ``respond`` is called once, at once or later, never in another thread.

        ``target`` is the request target as it was sent. Nothing is raised for anything that a client can send.
        """
