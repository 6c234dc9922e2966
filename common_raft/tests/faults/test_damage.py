"""Disks that fail a real node, while it is down and while it runs: one clear line, status 1, and never wrong data.

That any flipped byte anywhere is found is shown on logs alone (`test_wal_damage`); a damaged log, a directory that is
a file and the like are in `services/test_bad_start`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import Wal
from common_raft.storage.records import HEADER_FRAME, Frame, decode_header, read_frame
from common_raft.testing.processes import NodeProcess, ProcessCluster
from common_raft.testing.torn_log import tear
from common_raft.testing.torture.run import QUICK
from common_raft.tests.services.variants import command

pytestmark = pytest.mark.processes

#: What a node finds at its start is the same for all variants; what happens later, for all on one driver.
ANY = "v2.reactive"
DRIVERS = ["v2.reactive", "v2.servlet"]
BROKEN = "common_raft.tests.faults.broken_node"


@pytest.fixture(params=DRIVERS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def alone(node: list[str], directory: Path) -> ProcessCluster:
    return ProcessCluster(node, directory, size=1, flags=QUICK)


def put(node: NodeProcess, key: str, value: object) -> int:
    return node.ask("PUT", f"/v2/keys/{key}", {"value": value}).status


def get(node: NodeProcess, key: str) -> str | None:
    answer = node.ask("GET", f"/v2/keys/{key}?quorum=true")
    return answer.json["node"]["value"] if answer.status == 200 else None


def last_line(node: NodeProcess) -> str:
    """What a node said last; it said so in one line."""
    said = node.log.read_text()
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def written(directory: Path) -> tuple[ProcessCluster, Path]:
    """A node alone that has acknowledged k0 to k9 and was killed, and its data directory."""
    cluster = alone(command(ANY), directory)
    with cluster:
        for number in range(10):
            assert put(cluster.nodes[0], f"k{number}", number) == 201
        cluster.nodes[0].kill()
    data = cluster.nodes[0].data_dir
    assert data is not None
    return cluster, data


def test_a_torn_tail_is_cut_and_reported_and_everything_acknowledged_is_there(tmp_path: Path) -> None:
    cluster, data = written(tmp_path)
    rng = Random(1)
    for life in range(2):
        torn = tear(data, rng)
        with cluster:
            assert [get(cluster.nodes[0], f"k{number}") for number in range(10 + life)] == [
                str(number) for number in range(10 + life)
            ]
            assert put(cluster.nodes[0], f"k{10 + life}", 10 + life) == 201
            said = cluster.nodes[0].log.read_text()
            assert said.count("cut an unfinished write of ") == life + 1
            assert f"cut an unfinished write of {torn} bytes at offset " in said
            cluster.nodes[0].kill()


def test_a_missing_segment_is_refused_and_named(tmp_path: Path) -> None:
    cluster, data = written(tmp_path)
    grow(data)
    segments = sorted(data.glob("*.wal"))
    assert len(segments) >= 4
    for missing in (segments[0], segments[2], segments[-1]):
        kept = missing.read_bytes()
        missing.unlink()
        before = contents(data)
        said = refusal(cluster)
        assert said.startswith(f"{ANY}: {data}")
        assert "damaged" in said
        assert contents(data) == before
        missing.write_bytes(kept)
    with cluster:
        assert get(cluster.nodes[0], "k9") == "9"


def grow(data: Path) -> None:
    """Goes on in small segments, with entries that change nothing."""
    (segment,) = data.glob("*.wal")
    frame = read_frame(segment.read_bytes()[:HEADER_FRAME], 0, 0, None)
    assert isinstance(frame, Frame)
    ids = decode_header(frame.payload)
    with segment.open("r+b") as file:  # what was preallocated, so that the next one comes at once
        file.truncate(len(segment.read_bytes().rstrip(b"\0")) + 8)
    wal = Wal.open(data, cluster_id=ids.cluster_id, node_id=ids.node_id, segment_bytes=512)
    state = wal.recovered.hard_state
    for _ in range(30):
        entry = Entry(state.term, EntryKind.NOOP, b"")
        wal.append([(HardState(state.term, state.vote, state.commit), wal.last_index + 1, [entry])])
    wal.close()


def refusal(cluster: ProcessCluster) -> str:
    node = cluster.nodes[0]
    node.log.write_text("")
    node.start()
    assert node.stop_by_itself() == 1
    return last_line(node)


def test_a_disk_that_is_full_at_the_start_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", "size=4m") as disk:
        cluster = alone(command(ANY), disk)
        try:
            said = refusal(cluster)
        finally:
            cluster.__exit__(None, None, None)
        assert str(disk) in said
        assert "no space left" in said
        assert not list(disk.rglob("*.wal*"))


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "ro", "ro,size=4m") as disk:
        cluster = alone(command(ANY), tmp_path)
        node = cluster.nodes[0]
        node.add_flags("--data-dir", str(disk / "data"))
        said = refusal(cluster)
        assert str(disk / "data") in said
        assert "read-only" in said
        assert "mount it writable" in said


@contextmanager
def small_disk(directory: Path, options: str) -> Iterator[Path]:
    """A file system of its own; only root may have one."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.fixture
def three(variant: str, tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(command(variant), tmp_path, flags=QUICK) as cluster:
        yield cluster


def test_a_node_whose_disk_takes_no_more_ends_and_the_others_go_on(three: ProcessCluster) -> None:
    leader = three.leader()
    for number in range(100):
        assert put(leader, "before", number) in (200, 201)
    limit = 4000  # bytes: less than its log holds by now, more than it has said
    resource.prlimit(leader.pid, resource.RLIMIT_FSIZE, (limit, limit))
    for number in range(3):
        put_somewhere(three, "k", number)
    assert leader.stop_by_itself() == 1
    assert "writing the log failed" in last_line(leader)
    assert ".wal" in last_line(leader)
    others = [node for node in three.nodes if node is not leader]
    assert put_somewhere(three, "after", 2) in (200, 201)
    leader.start()  # with its limit gone
    three.wait_ready()
    for node in [leader, *others]:
        assert (get(node, "before"), get(node, "after")) == ("99", "2")


def put_somewhere(cluster: ProcessCluster, key: str, value: object) -> int | None:
    """The first answer of success; None when no node gives one."""
    for node in cluster.nodes:
        try:
            status = put(node, key, value)
        except OSError:
            continue
        if status in (200, 201):
            return status
    return None


def test_a_node_whose_disk_cannot_say_that_it_has_written_ends_and_loses_nothing_that_it_acknowledged(
    variant: str, tmp_path: Path
) -> None:
    cluster = alone([sys.executable, "-m", BROKEN, "fail-fsync", variant], tmp_path)
    node = cluster.nodes[0]
    acknowledged = attempted = -1
    with cluster:
        while node.running:
            attempted += 1
            try:
                if put(node, "k", attempted) in (200, 201):
                    acknowledged = attempted
            except OSError:
                pass
        assert node.stop_by_itself() == 1
    assert acknowledged > 20
    said = last_line(node)
    assert "writing the log failed" in said
    assert os.strerror(5) in said
    assert "start the node again" in said
    with cluster:  # it lasts for some writes again
        stored = get(node, "k")
        assert stored is not None
        assert acknowledged <= int(stored) <= attempted
