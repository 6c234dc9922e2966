import json
import resource
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import cli, watch_report
from benchmarks.audience import STREAM, WAIT
from benchmarks.targets import EMBEDDED, resolve
from benchmarks.watch import Heard, Size, estimate, measure


def heard(target: str, number: int, p99: float, kind: str = WAIT) -> Heard:
    return Heard(target, kind, number, 1, 1000, p99 / 2, p99, p99 * 2)


FOUND = [
    *(heard("etcd", 1, 0.010), heard("v2", 1, 0.020)),
    *(heard("etcd", 2, 0.020), heard("v2", 2, 0.030)),
    *(heard("etcd", 3, 0.100), heard("v2", 3, 0.110)),
    heard("etcd", 1, 0.010, STREAM),
]


def test_a_row_has_the_medians_of_the_writes_and_the_median_of_their_ratios():
    etcd, own, stream = watch_report.rows(FOUND)
    assert (etcd.kind, etcd.target, etcd.p99, etcd.ratio) == (WAIT, "etcd", 0.020, None)
    assert (own.p50, own.p99, own.longest, own.low, own.high) == (0.015, 0.030, 0.060, 0.020, 0.110)
    assert own.ratio is not None
    assert (own.ratio.low, own.ratio.median, own.ratio.high) == (pytest.approx(1.1), 1.5, 2.0)
    assert stream.kind == STREAM


def test_results_are_shown_and_written_with_what_made_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command, size = "python -m benchmarks watch", Size(1000, 3, 10)
    watch_report.write(tmp_path, {"disk": "quick"}, command, size, FOUND, {"etcd": ["etcd --name n1"]})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["command"], summary["environment"]) == (command, {"disk": "quick"})
    assert summary["starts"] == {"etcd": ["etcd --name n1"]}
    assert (len(summary["writes"]), summary["rows"][1]["p99"]) == (7, 0.030)
    table = (tmp_path / "table.md").read_text()
    assert "| wait | v2 | 15.0 | 30.0 | 60.0 | 20.0 to 110.0 | 1.50 |" in table
    assert "- disk: quick" in table
    watch_report.show(FOUND, size, Console(width=160))
    assert "20.0 to 110.0" in capsys.readouterr().out


def test_what_is_to_be_measured_takes_longer_the_more_it_is():
    targets = resolve("etcd", EMBEDDED)
    assert estimate(targets, [WAIT], Size()) < estimate(targets, [WAIT, STREAM], Size())
    assert estimate(targets, [WAIT], Size()) < estimate(targets, [WAIT], Size(watchers=2000))


@pytest.mark.parametrize("flags", [["--watchers", "0"], ["--kinds", "poll"], ["--targets", "v9"]])
def test_a_bad_flag_is_one_line(capsys: pytest.CaptureFixture[str], flags: list[str]):
    with pytest.raises(SystemExit):
        cli.main(["watch", *flags])
    assert capsys.readouterr().err.count("\n") == 1


def test_more_watchers_than_the_system_allows_files_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert cli.main(["watch", "--watchers", "1000", "--output", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "1000 watchers need 1256 open files" in told
    assert "at most 768 --watchers" in told


@pytest.mark.processes
def test_both_clusters_are_watched_in_turn():
    targets = [target for name in ("etcd", "v2.reactive") for target in resolve(name, EMBEDDED)]
    found, starts = measure(targets, [WAIT, STREAM], Size(12, 2, 3), lambda text, done: None)
    assert [(each.number, each.kind, each.target, each.place) for each in found] == [
        (number, kind, target, place)
        for number in (1, 2)
        for kind in (WAIT, STREAM)
        for target in ("etcd", "v2.reactive-native")
        for place in (1, 2, 3)
    ]
    assert {each.heard for each in found} == {12}
    assert all(0 < each.p50 <= each.p99 <= each.longest for each in found)
    assert [len(commands) for commands in starts.values()] == [3, 3]
