"""Members that come and go while a cluster is tortured: what is asked of it, and what is made of unclear answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from common_raft.testing.processes import HOST, NodeProcess, free_ports
from common_raft.testing.proxy import ProxiedCluster

#: For one request about members; there may be no majority for it at the moment.
TIMEOUT = 3.0
#: Until an added member has found the others, and answers.
JOINING_SECONDS = 5.0
#: Until a removed member has learnt that it is, and has ended; one that hears nobody does not.
ENDING_SECONDS = 5.0

ADDED, REMOVED, GONE = 201, 204, 410


class NotNow(Exception):
    """A fault that cannot be had at the moment, since others are under way."""


class Operator:
    """Adds and removes members.  One that was perhaps added, or not removed, is removed before another is added."""

    def __init__(self, cluster: ProxiedCluster, command: Sequence[str]) -> None:
        self._cluster = cluster
        self._command = command
        self._urls = {name: _url(port) for name, port in cluster.dialled_ports.items()}
        self._ids: dict[str, str] = {}  # of members that were added, by their names

    def add(self, through: NodeProcess) -> NodeProcess:
        """A member that is yet to be started.  Raises NotNow."""
        if not self._remove_strays(through):
            raise NotNow
        [port] = free_ports(1)
        try:
            answer = through.ask_json("POST", "/v2/members", {"peerURLs": [_url(port)]}, timeout=TIMEOUT)
            known = self._members(through)
        except OSError as error:
            raise NotNow from error
        if answer.status != ADDED:
            raise NotNow
        member_id = answer.json["id"]
        node = self._cluster.admit(int(member_id, 16), self._command, port, known)
        self._ids[node.name], self._urls[node.name] = member_id, _url(port)
        return node

    @staticmethod
    def has_joined(node: NodeProcess) -> bool:
        """Whether a member that was started knows the others, in a while at most.

        It ends where others have come or gone meanwhile, since it does not name them as they are.
        """
        deadline = time.monotonic() + JOINING_SECONDS
        while node.running and time.monotonic() < deadline:
            if node.state() is not None:
                return True
            time.sleep(0.05)
        return False

    def remove(self, node: NodeProcess) -> None:
        """It is no member any more, and ends; or it will be, when `tidy_up` is called."""
        self._cluster.nodes.remove(node)
        try:
            member_id = self._ids.get(node.name) or node.member_id()
            self._ask_to_remove(member_id)
        except OSError:
            pass
        self._end(node)

    def _ask_to_remove(self, member_id: str) -> bool:
        for other in self._cluster.nodes:
            try:
                status = other.ask("DELETE", f"/v2/members/{member_id}", timeout=TIMEOUT).status
            except OSError:
                continue
            if status in (REMOVED, GONE):
                return True
        return False

    @staticmethod
    def _end(node: NodeProcess) -> None:
        """With one line, whether it was removed before it had joined or behind that."""
        deadline = time.monotonic() + ENDING_SECONDS
        while node.running and time.monotonic() < deadline:
            time.sleep(0.05)
        if node.running:
            node.kill()
        if "Traceback" in node.log.read_text():
            raise RuntimeError(f"{node.name} failed; its log:\n{node.log.read_text()}")

    def tidy_up(self, seconds: float) -> None:
        """When nothing is wrong any more: removes all members that nobody runs.  Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self._remove_strays(self._cluster.nodes[0]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"members that nobody runs cannot be removed; {self._cluster.logs()}")
            time.sleep(0.1)

    def _remove_strays(self, through: NodeProcess) -> bool:
        """Whether there are none any more, as far as ``through`` knows."""
        ours = {self._urls[node.name] for node in self._cluster.nodes}
        try:
            strays = [each["id"] for each in self._members(through) if ours.isdisjoint(each["peerURLs"])]
        except OSError:
            return False
        left = [member_id for member_id in strays if not self._ask_to_remove(member_id)]
        return not left

    @staticmethod
    def _members(through: NodeProcess) -> list[dict[str, Any]]:
        return list(through.ask("GET", "/v2/members", timeout=TIMEOUT).json["members"])


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"
