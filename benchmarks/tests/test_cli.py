import shutil
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.errors import BenchmarkError


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--users", "0"], "'0' is not a whole number from 1"),
        (["--users", "3,x"], "'x' is not a whole number"),
        (["--users", ""], "'' is not a whole number"),
        (["--rounds", "-1"], "--rounds"),
        (["--seconds", "1.5"], "'1.5' is not a whole number"),
        (["--tools", "ab"], "'ab' is not one of wrk, locust"),
        (["--workloads", "same"], "'same' is not one of same-data, random-data, put-only, get-only"),
        (["--targets", "etcd,zookeeper"], "'zookeeper' is not one of etcd, v1.servlet, v1.reactive"),
        (["--servers", "uvicorn"], "'uvicorn' is not one of native, granian, hypercorn"),
        (["--endpoints", "localhost:2379"], "'localhost:2379' is not of the form http://host:port"),
        (["--endpoints", "http://localhost:x"], "is not of the form http://host:port"),
        (["--endpoints", "http://localhost:1/v2"], "is not of the form http://host:port"),
        (["--no-verify"], "unrecognized arguments: --no-verify"),
        (["--rounds"], "--rounds: expected one argument"),
    ],
)
def test_a_bad_flag_is_one_line_and_status_1(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *flags])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_an_output_that_cannot_be_written_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    assert cli.main(["compare", "--output", str(tmp_path / "file" / "stats")]) == 1
    assert "name a folder that can be written" in capsys.readouterr().err


def test_a_report_without_results_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report", "--output", str(tmp_path)]) == 1
    assert "summary.json cannot be read" in capsys.readouterr().err


def test_without_wrk_locust_measures_alone_and_the_way_to_wrk_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    console = cli.Console(width=200)
    assert cli._tools(None, console) == ["locust"]
    assert "apt-get install wrk" in capsys.readouterr().out
    with pytest.raises(BenchmarkError, match="or use --tools locust"):
        cli._tools(["wrk"], console)


def test_flags_that_say_what_to_measure_make_a_grid(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda program: program)
    options = cli._parser().parse_args(["compare", "--users", "24,3", "--targets", "etcd", "--tools", "wrk"])
    cells = cli._plan(options, cli.Console())
    assert {cell.users for cell in cells} == {3, 24}
    assert len(cells) == 2 * 4
    assert {cell.rounds for cell in cells} == {cli.ROUNDS}


def test_endpoints_are_one_more_target_of_the_standard_plan(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda program: program)
    options = cli._parser().parse_args(
        ["compare", "--endpoints", "http://10.0.0.1:2379,http://10.0.0.2:2379/"]
    )
    cells = cli._plan(options, cli.Console())
    [existing] = {target for cell in cells for target in cell.targets if target.endpoints}
    assert existing.endpoints == ("http://10.0.0.1:2379", "http://10.0.0.2:2379")
