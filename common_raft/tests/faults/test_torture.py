"""Real nodes under faults and load: every answer is linearizable, and nothing acknowledged is lost.

Each run has a seed of its own, which a failure prints; `make torture` goes on for longer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import Wal
from common_raft.testing.key_values import Get, KeyValueModel, Put, load_history
from common_raft.testing.linearizability import check
from common_raft.testing.processes import Answer
from common_raft.testing.proxy import ProxiedCluster, State
from common_raft.testing.torn_log import tear
from common_raft.testing.torture import Outcome, Settings, TortureFailed, torture
from common_raft.testing.torture.__main__ import main
from common_raft.testing.torture.clients import Refused, UnexpectedAnswer, ask, read_answer
from common_raft.testing.torture.faults import FAULTS, plan
from common_raft.testing.torture.run import FLAGS, QUICK
from common_raft.tests.services.variants import SERVERS, command

OTHERS = [variant for variant in SERVERS if variant != "v2.reactive"]


def run(node: Sequence[str], directory: Path, seconds: float, nodes: int = 3) -> Outcome:
    outcome = torture(Settings(node, directory, Random().getrandbits(31), seconds, nodes))
    print(outcome)
    return outcome


@pytest.mark.processes
@pytest.mark.parametrize("nodes", [3, 5])
def test_nodes_under_all_faults_answer_as_one_that_has_none(tmp_path: Path, nodes: int) -> None:
    outcome = run(command("v2.reactive"), tmp_path, 10, nodes)
    assert len(outcome.done) > len(FAULTS) / 2


@pytest.mark.processes
@pytest.mark.parametrize("variant", OTHERS)
def test_every_other_variant_does_so_too(tmp_path: Path, variant: str) -> None:
    run(command(variant), tmp_path, 3)


# --- it can fail ----------------------------------------------------------------------------------------------


@pytest.mark.processes
def test_local_reads_are_found_not_to_be_linearizable(tmp_path: Path) -> None:
    """Default GETs are answered by each node from its own state: one that is cut off says what was long ago."""
    with ProxiedCluster(command("v2.reactive"), tmp_path, flags=QUICK) as cluster:
        leader = cluster.leader()
        deaf, other = cluster.followers()
        history = [ask("c", leader, "k", Put("old"), timeout=10), ask("c", deaf, "k", Get(), timeout=10)]
        cluster.proxy.set([(leader.name, deaf.name), (other.name, deaf.name)], State.HELD)
        history += [ask("c", leader, "k", Put("new"), timeout=10), ask("c", other, "k", Get(), timeout=10)]
        recorded = [each for each in history if each is not None]
        assert len(recorded) == 4
        assert check(recorded, KeyValueModel()) is None
        stale = ask("c", deaf, "k", Get(), quorum=False)
        assert stale is not None
        violation = check([*recorded, stale], KeyValueModel())
        assert violation is not None
        assert violation.misfit == stale


@pytest.mark.processes
def test_nodes_that_acknowledge_before_their_disk_has_written_are_found(tmp_path: Path) -> None:
    """How much one run sees depends on the machine: six at most."""
    broken = [
        sys.executable,
        "-m",
        "common_raft.tests.faults.broken_node",
        "acknowledge-early",
        "v2.reactive",
    ]
    # The log that is not written marks no snapshots either, and nodes that find that out end by themselves.
    unmarked = (*FLAGS, "--snapshot-count", "100000")
    for seed in range(6):
        directory = tmp_path / str(seed)
        directory.mkdir()
        try:
            torture(Settings(broken, directory, seed, 4, faults=["kill-all"], flags=unmarked))
        except TortureFailed as failed:
            said = str(failed)
            break
    else:
        pytest.fail("nothing was found")
    assert f"seed {seed}, 3 nodes" in said
    assert "not linearizable: key k" in said
    assert "does not fit in any order" in said
    assert "  kill-all" in said
    file = directory / f"history-{seed}.jsonl"
    assert str(file) in said
    assert check(load_history(file), KeyValueModel()) is not None


# --- its parts ------------------------------------------------------------------------------------------------


@pytest.mark.processes
def test_a_link_can_be_cut_in_one_direction_alone(tmp_path: Path) -> None:
    with ProxiedCluster(command("v2.reactive"), tmp_path, flags=QUICK) as cluster:
        leader = cluster.leader()
        deaf, other = cluster.followers()
        value = 0
        for state in (State.HELD, State.BROKEN):
            cluster.proxy.set([(leader.name, deaf.name)], state)
            for node in (leader, other):
                value += 1
                assert node.ask("PUT", "/v2/keys/k", {"value": value}).status in (200, 201)
            assert deaf.ask("GET", "/v2/keys/k").body != other.ask("GET", "/v2/keys/k").body
            cluster.proxy.set([(leader.name, deaf.name)])
            cluster.wait_ready()
            assert deaf.ask("GET", "/v2/keys/k?quorum=true").json["node"]["value"] == str(value)


def test_an_answer_tells_what_was_done_or_that_nothing_was_or_leaves_it_open() -> None:
    def answered(status: int, body: bytes) -> Answer:
        return Answer(status, {}, body)

    error = b'{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: %s","index":0}'
    assert read_answer(Put("v"), answered(500, error % b"request timed out")) is None
    assert read_answer(Put("v"), answered(500, error % b"server stopped")) is None
    with pytest.raises(Refused, match="too many requests"):
        read_answer(Put("v"), answered(500, error % b"too many requests"))
    with pytest.raises(Refused, match="too many connections"):
        read_answer(Put("v"), answered(503, b"503 Service Unavailable: too many connections"))
    with pytest.raises(UnexpectedAnswer):
        read_answer(Put("v"), answered(404, error % b"what?"))


def test_a_torn_log_is_cut_where_it_was_torn(tmp_path: Path) -> None:
    rng = Random(3)
    entries: list[Entry] = []
    for life in range(30):
        wal = Wal.open(tmp_path, cluster_id=1, node_id=2, segment_bytes=8192, fsync=False)
        assert wal.recovered.entries == entries
        assert (wal.recovered.torn is not None) == (life > 0)
        entries.append(Entry(1, EntryKind.COMMANDS, rng.randbytes(100)))
        wal.append([(HardState(1, 2, life), life + 1, entries[-1:])])
        wal.close()
        assert tear(tmp_path, rng) > 0
        assert tear(tmp_path, rng) == 0


def test_a_torn_log_needs_a_log(tmp_path: Path) -> None:
    assert tear(tmp_path, Random(3)) == 0


def test_a_schedule_follows_from_its_seed_and_has_every_fault() -> None:
    planned = plan(Random(5), 40, list(FAULTS))
    assert planned == plan(Random(5), 40, list(FAULTS))
    assert planned != plan(Random(6), 40, list(FAULTS))
    assert {each.fault for each in planned[: len(FAULTS)]} == set(FAULTS)
    assert all(0 < each.begin < each.end <= 40 for each in planned)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--faults", "kill,kil"], "'kil' is not one of kill, "),
        (["--seconds", "0"], "'0' is not a number above 0"),
        (["--nodes", "-3"], "'-3' is not a whole number above 0"),
    ],
)
def test_a_bad_flag_is_named(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(flags)
    assert said in capsys.readouterr().err


def test_a_history_in_a_file_can_be_judged_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "history.jsonl"
    lines = [
        '{"client":"c","key":"k","input":{"type":"put","value":"a"},"invoked":1.0,"returned":2.0,"output":{"done":true}}',
        '{"client":"c","key":"k","input":{"type":"get"},"invoked":3.0,"returned":4.0,"output":{"done":false}}',
    ]
    file.write_text(lines[0])
    assert main(["--judge", str(file)]) == 0
    assert "linearizable" in capsys.readouterr().out
    file.write_text("\n".join(lines))
    assert main(["--judge", str(file)]) == 1
    assert "not linearizable: key k" in capsys.readouterr().out
    file.write_text("[]")
    assert main(["--judge", str(file)]) == 1
    assert str(file) in capsys.readouterr().err
