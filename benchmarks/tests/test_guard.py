"""The guard's bounds and verdicts, and the command on measurements that are made up."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import cli, guard, guard_report
from benchmarks.cli import guarding, running
from benchmarks.compare import Measured, Tell
from benchmarks.errors import BenchmarkError
from benchmarks.guard import Bound, Verdict, judge, read_bounds
from benchmarks.plan import Cell
from benchmarks.results import Run, read_summary
from benchmarks.tests.fixtures import run

BOUND = Bound("same-data", 24, throughput=1.5, cpu=0.6)
VARIANT = "v2.reactive-native"

GOOD = '[[cell]]\nworkload = "put-only"\nusers = 24\nthroughput = 1.4\ncpu = 1\n'


def rounds(*ratios: float, cpu: float = 0.5, **changes: object) -> list[Run]:
    """A round for each of the ``ratios`` of throughput, each on a machine that is slower than in the round before."""
    found = []
    for number, ratio in enumerate(ratios, start=1):
        found += [
            run("etcd", 24, number, 1000.0 / number, cpu_us=100.0 * number),
            run(VARIANT, 24, number, 1000.0 / number * ratio, cpu_us=100.0 * number * cpu, **changes),
        ]
    return found


def verdict(runs: Sequence[Run], bound: Bound = BOUND) -> Verdict:
    [found] = judge([bound], runs)
    return found


def test_a_cell_holds_when_the_median_of_its_rounds_does():
    found = verdict(rounds(0.4, 1.6, 1.7))
    assert found.broken == []
    assert found.throughput is not None
    assert (found.throughput.low, found.throughput.median, found.throughput.high) == pytest.approx(
        (0.4, 1.6, 1.7)
    )


def test_a_ratio_on_the_bound_holds():
    assert verdict(rounds(1.5, cpu=0.5), replace(BOUND, cpu=0.5)).broken == []


def test_too_little_throughput_says_by_how_much():
    assert verdict(rounds(1.2, 1.2, 1.9)).broken == [
        "same-data, 24 users: throughput is 1.200 times etcd's, 20.0 % below the bound of 1.50"
    ]


def test_too_much_cpu_says_by_how_much():
    assert verdict(rounds(1.6, 1.6, cpu=0.75)).broken == [
        "same-data, 24 users: CPU per request is 0.750 times etcd's, 25.0 % above the bound of 0.60"
    ]


def test_the_cpu_of_most_rounds_is_judged():
    [etcd, own, *others] = rounds(1.6, 1.6, 1.6, cpu=0.5)
    assert verdict([etcd, replace(own, cpu_us=90.0), *others]).broken == []
    [etcd, own, *others] = rounds(1.6, 1.6, 1.6, cpu=0.9)
    assert len(verdict([etcd, replace(own, cpu_us=50.0), *others]).broken) == 1


def test_both_bounds_of_a_cell_may_be_broken():
    throughput, cpu = verdict(rounds(1.0, cpu=1.0)).broken
    assert "throughput" in throughput
    assert "CPU per request" in cpu


def test_slack_loosens_both_bounds():
    loosened = replace(BOUND, slack=50)
    assert verdict(rounds(0.76, cpu=0.89), loosened).broken == []
    throughput, cpu = verdict(rounds(0.74, cpu=0.91), loosened).broken
    assert throughput.endswith("below the bound of 0.75 (1.50, loosened by 50 %)")
    assert cpu.endswith("above the bound of 0.90 (0.60, loosened by 50 %)")


def test_errors_in_most_rounds_are_no_lead():
    assert verdict(rounds(1.6, 1.6, 1.6, errors=7)).broken == [
        "same-data, 24 users: 7 errors in a round of v2.reactive"
    ]


def test_errors_of_one_round_or_of_etcd_are_noise():
    [*calm, last] = rounds(1.6, 1.6, 1.6)
    assert verdict([*calm, replace(last, errors=24)]).broken == []
    assert (
        verdict([replace(each, errors=24 * (each.target == "etcd")) for each in [*calm, last]]).broken == []
    )


def test_a_cell_that_cannot_be_compared_does_not_hold():
    silent = [replace(each, throughput=0.0) if each.target == "etcd" else each for each in rounds(1.6)]
    unseen = [replace(each, cpu_us=None) for each in silent]
    throughput, cpu = verdict(unseen).broken
    assert "etcd answered nothing in any round" in throughput
    assert "CPU per request cannot be judged" in cpu


def test_each_bound_is_judged_by_the_runs_of_its_cell():
    puts = [replace(each, workload="put-only") for each in rounds(1.0, errors=1)]
    more = [replace(each, users=96) for each in rounds(1.0)]
    found = judge([BOUND, replace(BOUND, workload="put-only")], [*rounds(2.0), *puts, *more])
    assert [len(each.broken) for each in found] == [0, 2]
    assert guard.doubtful([each.bound for each in found], [*rounds(2.0), *puts]) == [found[1].bound]


def test_what_was_measured_again_stands_in_place_of_the_first_measurement():
    puts = [replace(each, workload="put-only", raw=f"put {each.raw}") for each in rounds(2.0)]
    first, second = rounds(1.0), rounds(1.6, 1.6)

    def measured(runs: Sequence[Run], text: str) -> Measured:
        return Measured([*runs], [(each.raw, text) for each in runs], {"etcd": [text]}, {"etcd": text})

    both = guard.replaced(measured([*first, *puts], "first"), measured(second, "second"))
    assert both.runs == [*puts, *second]
    assert both.raw == [*((each.raw, "first") for each in puts), *((each.raw, "second") for each in second)]


def test_the_table_shows_ratios_rounds_bounds_and_verdict(capsys: pytest.CaptureFixture[str]):
    found = judge([BOUND, replace(BOUND, throughput=1.9)], rounds(1.6, 1.7, 1.8))
    guard_report.show(found, 0, Console(width=160))
    holds, fails = (line for line in capsys.readouterr().out.splitlines() if "same-data" in line)
    assert [each.strip() for each in holds.split("│")[1:-1]] == [
        *("same-data", "24", "1.70x", "1.60–1.80", "1.50", "0.50x", "", "0.60", "ok")
    ]
    assert "too slow" in fails


def test_the_bounds_of_the_repository_can_be_read():
    bounds = read_bounds(guard.BOUNDS)
    assert {(bound.workload, bound.users) for bound in bounds} >= {("same-data", 96), ("put-only", 96)}
    # One that etcd itself would hold guards no lead.
    assert all(bound.throughput > 1 > bound.cpu for bound in bounds)


def test_bounds_are_read_in_the_order_of_the_file(tmp_path: Path):
    file = tmp_path / "bounds.toml"
    file.write_text(GOOD + GOOD.replace("24", "3"))
    assert read_bounds(file) == [Bound("put-only", 24, 1.4, 1), Bound("put-only", 3, 1.4, 1)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"has no tables \[\[cell\]\]"),
        ("cell = []", r"has no tables \[\[cell\]\]"),
        ("cell = [1]", r"has no tables \[\[cell\]\]"),
        (GOOD.replace("[[cell]]", "[cell]"), r"has no tables \[\[cell\]\]"),
        (f"slack = 3\n{GOOD}", "unknown key 'slack'; there are only tables"),
        ("cell = ", "is not TOML: .* shows the form"),
        ("\xff", "is not TOML"),
        (GOOD.replace("cpu", "cpus"), "unknown key 'cpus'; there are workload, users, throughput, cpu"),
        (GOOD.replace("cpu = 1\n", ""), "cpu is missing; write the largest ratio to etcd's"),
        (GOOD.replace("put-only", "put"), "workload is 'put'; write one of same-data, random-data, put-only"),
        (GOOD.replace('"put-only"', "[1]"), r"workload is \[1\]; write one of"),
        (GOOD.replace("24", "0"), "users is 0; write a whole number from 1 to 100000"),
        (GOOD.replace("24", "100_001"), "users is 100001; write a whole number"),
        (GOOD.replace("24", "2.5"), "users is 2.5; write a whole number"),
        (GOOD.replace("24", "true"), "users is True; write a whole number"),
        (GOOD.replace("1.4", "0"), "throughput is 0; write the least ratio to etcd's, a number above 0"),
        (GOOD.replace("1.4", "-1.4"), "throughput is -1.4; write"),
        (GOOD.replace("1.4", '"1.4"'), "throughput is '1.4'; write"),
        (GOOD.replace("1.4", "nan"), "throughput is nan; write"),
        (GOOD.replace("cpu = 1", "cpu = inf"), "cpu is inf; write"),
        (GOOD.replace("cpu = 1", "cpu = true"), "cpu is True; write"),
        (GOOD + GOOD, r"\[\[cell\]\] 2: put-only of 24 users is there already"),
    ],
)
def test_bounds_that_are_none_name_file_key_and_value(text: str, told: str, tmp_path: Path):
    file = tmp_path / "bounds.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(BenchmarkError, match=told) as raised:
        read_bounds(file)
    assert str(file) in str(raised.value)


def test_a_file_of_bounds_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["guard", "--bounds", str(tmp_path / "none.toml")]) == 1
    told = capsys.readouterr().err
    assert "none.toml cannot be read: No such file or directory; name a file of bounds with --bounds" in told
    assert told.count("\n") == 1


def test_without_wrk_nothing_is_guarded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.setattr(running, "compare", lambda cells, tell: pytest.fail("something is measured"))
    assert cli.main(["guard"]) == 1
    assert "wrk is not installed; get it by apt-get install wrk" in capsys.readouterr().err


Guard = Callable[..., int]


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """The command on one cell: ``ratios`` are those of its measurements, one after another."""
    file = tmp_path / "bounds.toml"
    file.write_text(GOOD)

    def command(*ratios: float, flags: Sequence[str] = ()) -> int:
        left = iter(ratios)

        def compare(cells: Sequence[Cell], tell: Tell) -> Measured:
            [cell] = cells
            assert [target.name for target in cell.targets] == ["etcd", VARIANT]
            assert (cell.tool, cell.workload.name, cell.users) == ("wrk", "put-only", 24)
            runs = rounds(*[next(left)] * cell.rounds)
            runs = [replace(each, workload="put-only") for each in runs]
            return Measured(runs, [(each.raw, "said") for each in runs])

        monkeypatch.setattr(running, "compare", compare)
        monkeypatch.setattr("benchmarks.load.wrk.installed", lambda: True)
        monkeypatch.setattr(guarding.environment, "describe", lambda: {"disk": "quick"})
        status = cli.main(["guard", "--bounds", str(file), "--output", str(tmp_path / "out"), *flags])
        assert next(left, None) is None, "fewer measurements than expected"
        return status

    return command


def test_what_holds_is_measured_once_and_written(
    guarded: Guard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert guarded(1.5, flags=["--rounds", "3"]) == 0
    assert capsys.readouterr().err == ""
    runs = read_summary(tmp_path / "out").runs
    assert len(runs) == 2 * 3
    assert {(tmp_path / "out" / run.raw).read_text() for run in runs} == {"said"}


def test_what_holds_with_twice_the_rounds_was_noise(guarded: Guard, tmp_path: Path):
    assert guarded(1.0, 1.5, flags=["--rounds", "3"]) == 0
    assert len(read_summary(tmp_path / "out").runs) == 2 * 6


def test_what_is_too_slow_twice_is_status_1_and_a_line(guarded: Guard, capsys: pytest.CaptureFixture[str]):
    assert guarded(1.5, flags=["--slack", "10"]) == 0
    capsys.readouterr()
    assert guarded(1.0, 1.05, flags=["--slack", "10"]) == 1
    assert capsys.readouterr().err == (
        "put-only, 24 users: throughput is 1.050 times etcd's, "
        "16.7 % below the bound of 1.26 (1.40, loosened by 10 %)\n"
    )
