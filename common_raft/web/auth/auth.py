"""Authentication as one thing, for the API: it stands before requests while it is needed, and answers its own."""

import threading
from collections.abc import Callable
from typing import Protocol

from common_raft.web.api import Respond
from common_raft.web.auth.accounts import Accounts, Source
from common_raft.web.auth.changes import Changes, Proposer
from common_raft.web.auth.flow import run
from common_raft.web.auth.guard import Guard, demand
from common_raft.web.auth.passwords import Passwords
from common_raft.web.auth.routes import AuthApi
from common_raft.web.response import KeyResponses, Response


class Node(Proposer, Protocol):
    @property
    def cluster_id(self) -> int: ...


class Auth:
    def __init__(
        self,
        node: Node,
        keyspace: Source,
        passwords: Passwords,
        responses: KeyResponses,
        switch: Callable[[bool], None],
    ) -> None:
        """``switch`` is told, in any thread, whether requests must pass ``admit`` from now on; at first they must."""
        self._passwords = passwords
        self._switch = switch
        self._switching = threading.Lock()
        accounts = Accounts(keyspace, self._changed)
        changes = Changes(node, accounts, passwords)
        self._guard = Guard(accounts, changes, passwords, responses)
        self._api = AuthApi(node.cluster_id, accounts, changes)

    def admit(
        self,
        method: str,
        target: bytes,
        content_type: bytes | None,
        body: bytes,
        authorization: bytes | None,
        respond: Respond,
        go_on: Callable[[], None],
    ) -> None:
        """Calls ``go_on`` for a request that may be carried out, and answers any other."""
        wanted = demand(method, target, content_type, body)
        if wanted is None:
            go_on()
            return

        def end(refusal: Response | None) -> None:
            if refusal is None:
                self._look()
                go_on()
            else:
                respond(refusal)

        run(self._guard.refuse(wanted, authorization), end)

    def settle(self, done: Callable[[bool], None]) -> None:
        """Asks the cluster whether ``admit`` is needed; ``done`` gets whether that is known now."""

        def end(settled: bool) -> None:
            self._look()
            done(settled)

        run(self._guard.settle(), end)

    def handle(self, method: str, path: str, query: bytes, body: bytes, respond: Respond) -> bool:
        """Answers a request that was admitted, if it is one on authentication; whether it is."""
        return self._api.handle(method, path, query, body, respond)

    def _changed(self) -> None:
        self._passwords.forget()
        self._look()

    def _look(self) -> None:
        # Whoever comes last has seen the last change, and nobody tells an older one after it.
        with self._switching:
            self._switch(self._guard.needed)
