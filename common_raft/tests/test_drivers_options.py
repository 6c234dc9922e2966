"""What a member is told is checked when it is told, and whoever is wrong learns what is allowed."""

import math
from dataclasses import replace
from typing import Any

import pytest

from common_raft.drivers.options import NodeOptions

BIG = 2**64 - 1
OPTIONS = NodeOptions(1, "n1", 7, [("127.0.0.1", 7001)], {2: ("127.0.0.1", 7002), 3: ("127.0.0.1", 7003)})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": 0}, "id is 0; it must be from 1 to 2**64 - 1"),
        ({"id": -1}, "id is -1; it must be from 1 to 2**64 - 1"),
        ({"id": BIG + 1}, f"id is {BIG + 1}; it must be from 1 to 2**64 - 1"),
        ({"id": "n1"}, "id is 'n1'; it must be from 1 to 2**64 - 1"),
        ({"cluster_id": 0}, "cluster_id is 0; it must be from 1 to 2**64 - 1"),
        ({"cluster_id": BIG + 1}, f"cluster_id is {BIG + 1}; it must be from 1 to 2**64 - 1"),
        ({"peers": {0: ("h", 1)}}, "an id in peers is 0; it must be from 1 to 2**64 - 1"),
        ({"peers": {BIG + 1: ("h", 1)}}, f"an id in peers is {BIG + 1}; it must be from 1 to 2**64 - 1"),
        (
            {"peers": {1: ("h", 1), 2: ("h", 2)}},
            "peers has the node's own id, 1; it must name the others only",
        ),
        ({"peers": {2: ("h", 0)}}, "peers[2] is ('h', 0); it must be (host, port), the port from 1 to 65535"),
        ({"peers": {2: ("h", 65536)}}, "peers[2] is ('h', 65536); it must be (host, port), the port from 1"),
        ({"peers": {2: "h:1"}}, "peers[2] is 'h:1'; it must be (host, port)"),
        ({"peers": [("h", 1)]}, "peers is [('h', 1)]; it must map ids to (host, port)"),
        ({"listen": ("127.0.0.1", 7001)}, "listen[0] is '127.0.0.1'; it must be (host, port)"),
        ({"listen": "ab"}, "listen is 'ab'; it must be a list of (host, port)"),
        ({"listen": 7001}, "listen is 7001; it must be a list of (host, port)"),
        (
            {"listen": [("h", 1), ("h", -1)]},
            "listen[1] is ('h', -1); it must be (host, port), the port from 0 to",
        ),
        (
            {"listen": [("h", 65536)]},
            "listen[0] is ('h', 65536); it must be (host, port), the port from 0 to",
        ),
        ({"listen": [("h", "80")]}, "listen[0] is ('h', '80'); it must be (host, port)"),
        ({"listen": [(b"h", 80)]}, "listen[0] is (b'h', 80); it must be (host, port)"),
        ({"listen": [("h", 80, 1)]}, "listen[0] is ('h', 80, 1); it must be (host, port)"),
        ({"heartbeat_interval": 0}, "heartbeat_interval is 0; it must be above 0, in seconds"),
        ({"heartbeat_interval": -0.1}, "heartbeat_interval is -0.1; it must be above 0, in seconds"),
        ({"heartbeat_interval": math.nan}, "heartbeat_interval is nan; it must be above 0"),
        ({"heartbeat_interval": math.inf}, "heartbeat_interval is inf; it must be above 0"),
        (
            {"heartbeat_interval": 0.1, "election_timeout": 0.09},
            "election_timeout is 0.09; it must be at least heartbeat_interval, 0.1 seconds",
        ),
        ({"election_timeout": math.nan}, "election_timeout is nan; it must be at least heartbeat_interval"),
        ({"election_timeout": math.inf}, "election_timeout is inf; it must be at least heartbeat_interval"),
        ({"snapshot_count": -1}, "snapshot_count is -1; it must not be negative"),
        ({"max_snapshots": -1}, "max_snapshots is -1; it must not be negative"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_the_value_and_what_is_allowed(
    change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]") as refused:
        replace(OPTIONS, **change)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"id": BIG, "cluster_id": BIG},
        {"cluster_id": 1},
        {"peers": {}},
        {"peers": {BIG: ("h", 65535)}},
        {"listen": []},
        {"listen": (("", 0), ("h", 65535))},
        {"listen": [["h", 1]]},
        {"heartbeat_interval": 1, "election_timeout": 1},
        {"snapshot_count": 0, "max_snapshots": 0},
    ],
)
def test_what_is_just_allowed_is_taken(change: dict[str, Any]) -> None:
    replace(OPTIONS, **change)


def test_a_peer_that_is_nowhere_is_taken_beside_a_table_which_says_where_the_members_are() -> None:
    replace(OPTIONS, peers={2: ("", 0)}, members=b"a table")
    with pytest.raises(ValueError, match="the port from 0 to 65535"):
        replace(OPTIONS, peers={2: ("", -1)}, members=b"a table")
