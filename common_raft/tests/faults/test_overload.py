"""A cluster that is asked for much more than it can do: it refuses quickly, keeps its leader, and goes on at once."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from common_raft.drivers.proposals import TOO_MANY
from common_raft.testing.flood import flood, put
from common_raft.testing.processes import Answer, NodeProcess, ProcessCluster
from common_raft.tests.faults.broken_node import LITTLE_ROOM

pytestmark = pytest.mark.processes
CONNECTIONS = 200  # to each node
WINDOW = 16  # requests under way on each
#: What a node may grow by, in MiB: a few KiB for each connection, and what Python does not give back.
GROWTH = 100


def resident(node: NodeProcess) -> float:
    """MiB, at the most until now."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def once_there_is_room(node: NodeProcess) -> Answer:
    """What was taken before the flood ended is still being done: the answer of the first ten that is no refusal."""
    for _ in range(9):
        answer = node.ask("PUT", "/v2/keys/k", {"value": "v"})
        if answer.status != 500:
            break
        time.sleep(0.05)
    return node.ask("PUT", "/v2/keys/k", {"value": "v"})


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_fifty_times_as_many_requests_as_there_is_room_for(tmp_path: Path) -> None:
    node = [sys.executable, "-m", "common_raft.tests.faults.broken_node", "little-room", "v2.reactive"]
    # An election timeout that a busy machine does not make a node miss by itself.
    with ProcessCluster(node, tmp_path, flags=["--election-timeout", "3000"]) as cluster:
        assert CONNECTIONS * WINDOW == 50 * LITTLE_ROOM
        leader = cluster.leader()
        term = leader.ask("PUT", "/v2/keys/k", {"value": "v"}).headers["x-raft-term"]
        before = [resident(node) for node in cluster.nodes]
        ports = [node.client_port for node in cluster.nodes]
        told = asyncio.run(flood(ports, put("k", b"x" * 100), CONNECTIONS, WINDOW, 5))
        after = [once_there_is_room(node) for node in cluster.nodes]
        grown = [resident(node) - size for node, size in zip(cluster.nodes, before, strict=True)]
        print(told, "MiB more:", grown)
        assert [answer.status for answer in after] == [200] * 3
        assert {answer.headers["x-raft-term"] for answer in after} == {term}
        assert cluster.leader() is leader
        assert set(told.statuses) == {200, 500}
        # Nobody had to wait to be told no: a deadline that passed would have another cause.
        assert dict(told.causes) == {TOO_MANY: told.statuses[500]}
        assert (told.connections_lost, told.connections_refused) == (0, 0)
        assert max(grown) < GROWTH
