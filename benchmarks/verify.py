"""Whether a cluster answers correctly: asked before anything about it is measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.errors import BenchmarkError
from benchmarks.keys import Answer, NodeClient
from benchmarks.workloads import Workload

PROPAGATION = 5.0  # s that a write may take to be readable on the other nodes (their GETs are local)


def verify(name: str, endpoints: Sequence[str]) -> None:
    """PUT on each node, see it on every node, overwrite and DELETE it through the next one, see it gone.

    :raises BenchmarkError: with the first answer that is not etcd's.
    """
    with ExitStack() as stack:
        nodes = [stack.enter_context(NodeClient(endpoint)) for endpoint in endpoints]
        for number, node in enumerate(nodes):
            key = f"verify-{number}"
            following = nodes[(number + 1) % len(nodes)]
            node.delete(key)  # what an earlier run may have left in a cluster that is not ours
            _expect(name, node, node.put(key, "1"), 201, "set", key, "1")
            for other in nodes:
                _expect(name, other, _until(other, key, 200), 200, "get", key, "1")
            _expect(name, following, following.put(key, "2"), 200, "set", key, "2")
            _expect(name, following, following.get(key), 200, "get", key, "2")
            _expect(name, following, following.delete(key), 200, "delete", key, None)
            for other in nodes:
                gone = _until(other, key, 404)
                if gone.status != 404 or gone.body.get("errorCode") != 100:
                    raise BenchmarkError(f"{name}: {other.endpoint} still has {key} after its DELETE: {gone}")


def preload(workload: Workload, endpoints: Sequence[str]) -> None:
    """Write the keys that ``workload`` only reads, and wait until every node has the last of them."""
    if not workload.preloaded:
        return
    with ExitStack() as stack:
        nodes = [stack.enter_context(NodeClient(endpoint)) for endpoint in endpoints]
        for number in range(1, workload.preloaded + 1):
            answer = nodes[0].put(f"{workload.name}-{number}", str(number))
            if answer.status not in (200, 201):
                raise BenchmarkError(f"{nodes[0].endpoint} refused a PUT of {workload.name}: {answer}")
        for node in nodes:
            if _until(node, f"{workload.name}-{workload.preloaded}", 200).status != 200:
                raise BenchmarkError(f"{node.endpoint} does not have the keys of {workload.name}")


def _until(node: NodeClient, key: str, status: int) -> Answer:
    deadline = time.monotonic() + PROPAGATION
    while True:
        answer = node.get(key)
        if answer.status == status or time.monotonic() > deadline:
            return answer
        time.sleep(0.01)


def _expect(
    name: str, node: NodeClient, answer: Answer, status: int, action: str, key: str, value: str | None
) -> None:
    told = answer.body.get("node") or {}
    wanted = (status, action, f"/{key}", value)
    got = (answer.status, answer.body.get("action"), told.get("key"), told.get("value"))
    if got != wanted:
        raise BenchmarkError(f"{name}: {node.endpoint} answered {got}, where etcd answers {wanted}")
