"""What a front serves: an API that knows nothing of how bytes reach it."""

from collections.abc import Callable
from typing import Protocol

from common_raft.web.response import Response
from common_raft.web.stream import Stream

Respond = Callable[[Response | Stream], None]


class Api(Protocol):
    @property
    def wants_authorization(self) -> bool:
        """Whether ``handle`` is to be told the Authorization header; looked at for each request."""

    def handle(
        self,
        method: str,
        target: bytes,
        content_type: bytes | None,
        body: bytes,
        respond: Respond,
        authorization: bytes | None = None,
        /,
    ) -> None:
        """Answer one request: ``respond`` is called once, at once or later, never in another thread.

        ``target`` is the request target as it was sent. Nothing is raised for anything that a client can send.
        """
