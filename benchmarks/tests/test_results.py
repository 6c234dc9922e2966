from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.results import read_summary, summarise, write_raw, write_summary
from benchmarks.statistics import Ratio
from benchmarks.tests.fixtures import run, summary


def test_a_row_is_the_median_of_its_rounds():
    row = summarise(summary().runs)[1]
    assert (row.target, row.users, row.rounds) == ("v2.reactive-native", 3, 2)
    assert row.throughput == 2650.0
    assert row.throughput_spread == pytest.approx(650 / 2650)
    assert (row.errors, row.missing) == (4, 14)


def test_ratios_are_taken_round_by_round():
    etcd, ours = summarise(summary().runs)[:2]
    assert etcd.throughput_ratio is None
    assert ours.throughput_ratio == Ratio(2.5, 2.0, 3.0)
    assert ours.p99_ratio is not None
    assert ours.p99_ratio.median == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_a_round_without_the_yardstick_has_no_ratio():
    rows = summarise([run("etcd", 3, 1, 100.0), run("x", 3, 2, 100.0)])
    assert rows[1].throughput_ratio is None


def test_without_the_yardstick_there_are_no_ratios():
    [row] = summarise([run("x", 3, 1, 100.0)])
    assert row.throughput_ratio is None


def test_rows_stand_by_tool_workload_and_users_whatever_the_order_of_the_runs():
    rows = summarise(list(reversed(summary().runs)))
    assert [(row.tool, row.users) for row in rows[::2]] == [("wrk", 3), ("wrk", 24), ("locust", 24)]


def test_a_summary_is_read_as_it_was_written(tmp_path: Path):
    write_summary(tmp_path, summary())
    again = read_summary(tmp_path)
    assert [row.target for row in again.rows] == [row.target for row in summary().rows]
    assert again.rows[1].throughput_ratio == summary().rows[1].throughput_ratio
    assert again.environment == summary().environment


def test_raw_outputs_replace_those_of_the_summary_before_and_nothing_else(tmp_path: Path):
    first = summary()
    write_raw(tmp_path, [(each.raw, "first") for each in first.runs])
    write_summary(tmp_path, first)
    kept = tmp_path / "etcd" / "cluster" / "notes.txt"
    kept.write_text("mine")
    write_raw(tmp_path, [("etcd/cluster/get-only/wrk-0003-users-round-1.txt", "second")])
    assert kept.exists()
    assert sorted(file.name for file in tmp_path.rglob("*-round-*.txt")) == ["wrk-0003-users-round-1.txt"]


def test_a_summary_cannot_name_files_elsewhere(tmp_path: Path):
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    output = tmp_path / "stats"
    output.mkdir()
    write_summary(output, replace(summary(), runs=[run("etcd", 3, 1, 1.0, raw="../precious.txt")]))
    write_raw(output, [])
    assert precious.exists()


def test_a_summary_that_is_missing_or_damaged_is_named(tmp_path: Path):
    with pytest.raises(BenchmarkError, match=r"summary\.json cannot be read"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text('{"format": 99}')
    with pytest.raises(BenchmarkError, match="has format 99"):
        read_summary(tmp_path)
