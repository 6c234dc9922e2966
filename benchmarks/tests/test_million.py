import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import cli, million, million_report
from benchmarks.crowd import Answers
from benchmarks.million import CatchUp, Found, Size, Waits, measure, merged, prepared, told_apart
from benchmarks.snapshot_logs import Taking, received, taken
from benchmarks.targets import EMBEDDED, resolve

ETCD_LOG = """\
{"level":"info","ts":"2026-01-02T03:04:05.250Z","caller":"x","msg":"triggering snapshot","local-member-id":"1"}
not a line of any kind
{"level":"info","ts":"2026-01-02T03:04:06.500Z","caller":"x","msg":"saved snapshot","snapshot-index":5}
{"level":"info","ts":"2026-01-02T03:04:07.000Z","caller":"x","msg":"applied snapshot","incoming":9}
{"level":"info","ts":"2026-01-02T03:04:08.000Z","caller":"x","msg":"triggering snapshot"}
{"level":"info"
"""
OWN_LOG = """\
2026-01-02 03:04:05,250 INFO n1 taking a snapshot up to entry 5
2026-01-02 03:04:06,500 INFO n1 took a snapshot up to entry 5, 100 bytes
2026-01-02 03:04:07,000 INFO n1 received the snapshot of entry 9, 100 bytes
2026-01-02 03:04:08,000 INFO n1 taking a snapshot up to entry 10
"""


@pytest.mark.parametrize("said", [ETCD_LOG, OWN_LOG])
def test_a_log_tells_when_snapshots_began_and_ended(tmp_path: Path, said: str):
    path = tmp_path / "log"
    path.write_text(said)
    [only] = taken(path)
    assert only.ended - only.began == pytest.approx(1.25)


@pytest.mark.parametrize("said", [ETCD_LOG, OWN_LOG])
def test_a_log_tells_how_many_came_since(tmp_path: Path, said: str):
    path = tmp_path / "log"
    path.write_text(said)
    assert received(path, 0) == 1
    assert received(path, datetime(2027, 1, 1, tzinfo=UTC).timestamp()) == 0


def test_etcd_says_its_times_in_utc(tmp_path: Path):
    path = tmp_path / "log"
    path.write_text(ETCD_LOG)
    assert taken(path)[0].began == datetime(2026, 1, 2, 3, 4, 5, 250000, UTC).timestamp()


def test_snapshots_that_overlap_are_one_span():
    assert merged([Taking(5, 6), Taking(1, 3), Taking(2, 2.5), Taking(3, 4)]) == [Taking(1, 4), Taking(5, 6)]


def test_what_was_waited_for_in_a_snapshot_is_told_apart_from_the_rest():
    answers = Answers()
    answers.ended.extend([1.0, 2.1, 3.0, 4.5, 6.0])  # the second began before the snapshot and ended in it,
    answers.took.extend([0.1, 0.2, 0.3, 0.6, 0.5])  # the fourth began in it and ended behind it
    found = told_apart(answers, [Taking(2.0, 4.0)])
    assert (found["during"].requests, found["during"].longest) == (3, 0.6)
    assert (found["without"].requests, found["without"].longest) == (2, 0.5)


def test_without_any_snapshot_there_is_nothing_to_tell_apart():
    answers = Answers()
    answers.ended.append(1.0)
    answers.took.append(0.1)
    assert list(told_apart(answers, [])) == ["without"]


def test_all_nodes_say_when_they_take_snapshots_and_the_count_is_a_flag_of_all():
    [etcd] = resolve("etcd", EMBEDDED)
    [own] = resolve("v2.reactive", EMBEDDED)
    for target in (etcd, own):
        assert "warn" not in prepared(target, None).command
        assert prepared(target, 500).command[-2:] == ("--snapshot-count", "500")
        assert prepared(target, None).label == target.label


def test_requests_are_as_long_as_they_say():
    head, body = million.put(7, 2).split(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert len(million.value(7, 2)) == million.VALUE_BYTES
    assert million.value(7, 2) != million.value(7, 1) != million.value(8, 1)


FOUND = Found(
    "etcd",
    1000,
    ["etcd --name n1"],
    fill=1.0,
    restarts=[0.3, 0.1, 0.2],
    empty=1000.0,
    full=501000.0,
    pauses={
        "during": Waits(10, 0.001, 0.002, 0.006, 0.007),
        "without": Waits(10, 0.001, 0.002, 0.003, 0.004),
    },
    snapshots=[0.5, 0.25],
    catch_up=CatchUp(1000.0, 1500.0, 900.0, 4.0, 1),
)


def test_a_restart_is_the_median_and_a_key_takes_its_share_of_the_difference():
    assert FOUND.restart == 0.2
    assert FOUND.bytes_a_key == 500


def test_results_are_shown_and_written_with_what_made_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bare = Found("v2", 1000)
    million_report.write(tmp_path, {"disk": "quick"}, "python -m benchmarks million", [FOUND, bare])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["command"] == "python -m benchmarks million"
    assert summary["environment"] == {"disk": "quick"}
    assert summary["found"][0]["catch_up"]["during"] == 900
    assert summary["found"][0]["bytes_a_key"] == 500
    table = (tmp_path / "table.md").read_text()
    assert "| ratio | 2.00 | - |" in table
    assert "| share of all nodes' | 90% | - |" in table
    million_report.show([FOUND, bare], Size(keys=1000), Console(width=120))
    assert "0.25 to 0.50" in capsys.readouterr().out


def test_parts_come_in_their_order_and_a_restart_as_often_as_is_asked_for():
    assert Size(restarts=2).turns(("catch-up", "restart")) == ["restart", "restart", "catch-up"]


def test_a_bad_number_of_keys_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["million", "--keys", "10"])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.processes
def test_both_clusters_go_through_all_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(million, "SETTLE", 0.1)
    size = Size(keys=2000, restarts=1, users=6, snapshots=1, seconds=0.5)
    targets = [
        prepared(target, 500) for name in ("etcd", "v2.reactive") for target in resolve(name, EMBEDDED)
    ]
    etcd, own = measure(targets, size, million.PARTS, lambda text, done: None)
    assert (etcd.target, own.target) == ("etcd", "v2.reactive-native")
    for each in (etcd, own):
        assert len(each.restarts) == 1
        assert len(each.snapshots) >= 3
        assert set(each.pauses) == {"during", "without"}
        assert each.full is not None
        assert each.full > each.empty
        assert each.catch_up is not None
        assert each.catch_up.seconds > 0
