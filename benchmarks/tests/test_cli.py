import argparse
import resource
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import cli, plan, targets
from benchmarks.cli import entry, planning
from benchmarks.cli.flags import ROUNDS
from benchmarks.errors import BenchmarkError
from benchmarks.limits import raise_file_limit
from benchmarks.workloads import WORKLOADS


def options(*typed: str) -> argparse.Namespace:
    return entry.parser().parse_args(typed)


def planned(*flags: str) -> list[plan.Cell]:
    return planning.planned(options("compare", *flags), Console())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--users", "0"], "'0' is not a whole number from 1"),
        (["--infrastructures", "cluster"], "'cluster' is not one of embedded, independent, standalone"),
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
        (["--nodes", "10"], "'10' is not a whole number from 1 to 9"),
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
    console = Console(width=200)
    assert planning.tools_for(options("compare"), console) == ["locust"]
    assert "apt-get install wrk" in capsys.readouterr().out
    with pytest.raises(BenchmarkError, match="or use --tools locust"):
        planning.tools_for(options("compare", "--tools", "wrk"), console)


def test_flags_that_say_what_to_measure_make_a_grid(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda program: program)
    cells = planned("--users", "24,3", "--targets", "etcd", "--tools", "wrk")
    assert {cell.users for cell in cells} == {3, 24}
    assert len(cells) == 2 * 4
    assert {cell.rounds for cell in cells} == {ROUNDS}


def test_endpoints_are_one_more_target_of_the_standard_plan(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda program: program)
    cells = planned("--endpoints", "http://10.0.0.1:2379,http://10.0.0.2:2379/")
    [existing] = {target for cell in cells for target in cell.targets if target.endpoints}
    assert existing.endpoints == ("http://10.0.0.1:2379", "http://10.0.0.2:2379")


@pytest.fixture
def everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "installed", lambda module: True)
    monkeypatch.setattr(shutil, "which", lambda program: program)


@pytest.mark.usefixtures("everything_is_there")
def test_without_flags_every_variant_on_its_fastest_server_stands_beside_etcd():
    found = {target.name for cell in planned() for target in cell.targets}
    assert found == {"etcd", *(f"{name}-{servers[0]}" for name, servers in targets.SERVERS.items())}


@pytest.mark.usefixtures("everything_is_there")
def test_what_is_not_part_of_this_version_is_left_out_unless_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(targets, "installed", lambda module: module == "v2.reactive")
    assert {target.name for cell in planned() for target in cell.targets} == {"etcd", "v2.reactive-native"}
    with pytest.raises(BenchmarkError, match=r"v1\.servlet is not part of this version"):
        planned("--targets", "etcd,v1.servlet")
    with pytest.raises(BenchmarkError, match="independent is not part of this version"):
        planned("--infrastructures", "independent")


@pytest.mark.usefixtures("everything_is_there")
def test_each_infrastructure_is_a_section_beside_the_etcd_that_is_like_it():
    cells = planned("--infrastructures", "standalone-unsafe,independent", "--users", "24")
    beside = {(cell.section, cell.targets[0].label) for cell in cells}
    assert beside == {("standalone-unsafe", "etcd, standalone"), ("independent", "etcd, cluster")}


@pytest.mark.usefixtures("everything_is_there")
def test_quick_is_etcd_and_one_variant_on_all_its_servers_and_no_grid():
    found = {target.name for cell in planned("--quick") for target in cell.targets}
    assert found == {"etcd", "v2.reactive-native", "v2.reactive-granian", "v2.reactive-hypercorn"}
    with pytest.raises(BenchmarkError, match="leave out --users, --servers, or --quick"):
        planned("--quick", "--users", "3", "--servers", "native")


@pytest.mark.usefixtures("everything_is_there")
def test_a_variant_that_does_not_run_on_a_server_says_on_which_it_does():
    with pytest.raises(
        BenchmarkError, match=r"v1\.servlet does not run on native; it does on granian,hypercorn"
    ):
        planned("--targets", "v1.servlet", "--servers", "native")
    assert {cell.targets[-1].name for cell in planned("--servers", "native")} == {"v2.reactive-native"}


@pytest.mark.usefixtures("everything_is_there")
def test_layers_are_attributed_for_what_is_named():
    both = options("attribute", "--targets", "v1.reactive,v2.reactive", "--servers", "native")
    assert [each.section for each in planning.chains(both)] == ["layers-of-v2.reactive-native"]
    nothing = options("attribute", "--targets", "v1.reactive", "--servers", "native")
    with pytest.raises(BenchmarkError, match=r"none of v1\.reactive runs on native"):
        planning.chains(nothing)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--slack", "100"], "'100' is not a whole number from 0 to 99"),
        (["--slack", "-1"], "--slack"),
        (["--rounds", "0"], "'0' is not a whole number from 1"),
        (["--seconds", "0.5"], "'0.5' is not a whole number"),
        (["--users", "3"], "unrecognized arguments: --users 3"),
    ],
)
def test_a_bad_flag_of_the_guard_is_one_line(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        options("guard", *flags)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_guard_has_no_slack_unless_it_is_given():
    unless_given = options("guard")
    assert (unless_given.rounds, unless_given.seconds, unless_given.slack) == (5, 2, 0)
    assert options("guard", "--slack", "50").slack == 50


def test_a_compose_file_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--compose", "none.yaml"])
    assert ended.value.code == 1
    assert "'none.yaml': no such file" in capsys.readouterr().err


def test_more_users_than_the_system_allows_files_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    raised: list[object] = []
    monkeypatch.setattr(resource, "setrlimit", lambda *limits: raised.append(limits))
    cells = plan.grid(["wrk"], [WORKLOADS["same-data"]], [96], 1, 1, [targets.yardstick("embedded")])
    raise_file_limit(cells)
    assert raised == [(resource.RLIMIT_NOFILE, (1024, 1024))]
    cells = plan.grid(["wrk"], [WORKLOADS["same-data"]], [3072], 1, 1, [targets.yardstick("embedded")])
    with pytest.raises(
        BenchmarkError, match=r"3072 users need 3328 open files .* allows 1024 .* at most 768 --users"
    ):
        raise_file_limit(cells)
