"""The whole way, on a real etcd."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.compare import compare
from benchmarks.plan import grid
from benchmarks.targets import LINEARIZABLE, NATIVE, three, variant
from benchmarks.workloads import WORKLOADS

pytestmark = pytest.mark.processes

TOOLS = [tool for tool in ("wrk", "locust") if tool == "locust" or shutil.which(tool)]


def test_a_comparison_from_start_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    nodes_data = tmp_path / "nodes"
    nodes_data.mkdir()
    monkeypatch.setattr("benchmarks.cluster.disk_directory", lambda: nodes_data)
    output = tmp_path / "stats"
    flags = ["--targets", "etcd", "--users", "3", "--seconds", "1", "--rounds", "1", "--tools", "wrk,locust"]
    assert cli.main(["compare", *flags, "--output", str(output)]) == 0

    summary = json.loads((output / "summary.json").read_text())
    cells = [(run["tool"], run["workload"]) for run in summary["runs"]]
    assert cells == [
        (tool, workload)
        for tool in TOOLS
        for workload in ("same-data", "random-data", "put-only", "get-only")
    ]
    # A busy disk can hold etcd up for the whole second of a run: that is no fault of what is tested here.
    answered = [run for run in summary["runs"] if run["requests"]]
    assert len(answered) > len(cells) / 2
    for run in answered:
        assert run["errors"] == 0, run
        assert set(run["per_node"]) == {"n1", "n2", "n3"}
        assert all(run["per_node"].values())
        assert run["cpu_us"] > 0
        assert (output / run["raw"]).read_text().startswith("$ ENDPOINTS=")
    assert "etcd" in capsys.readouterr().out
    assert (output / "index.html").is_file()
    assert list(nodes_data.iterdir()) == []
    published = "".join(
        file.read_text() for file in output.rglob("*") if file.suffix in {".txt", ".json", ".html"}
    )
    assert str(tmp_path) not in published


@pytest.fixture
def comparison(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A comparison that has just started its nodes."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [
        "env",
        "--default-signal=INT",  # a shell has what it starts in the background ignore it
        sys.executable,
        "-m",
        "benchmarks",
        "compare",
        "--targets",
        "etcd",
        "--output",
        str(tmp_path / "stats"),
    ]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 20
            while not list(tmp_path.glob("raftstacks-*/n3")) and time.monotonic() < deadline:
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_nodes_and_writes_nothing(
    number: signal.Signals, comparison: subprocess.Popen[str], tmp_path: Path
):
    token = next(tmp_path.glob("raftstacks-*")).name
    assert len(_nodes(token)) == 3
    comparison.send_signal(number)
    _, told = comparison.communicate(timeout=20)
    assert comparison.returncode == 130
    assert "the nodes are stopped" in told
    assert _nodes(token) == []
    assert list(tmp_path.glob("raftstacks-*")) == []
    assert list((tmp_path / "stats").iterdir()) == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_nodes_do_not_outlive_a_comparison_that_was_killed(comparison: subprocess.Popen[str], tmp_path: Path):
    token = next(tmp_path.glob("raftstacks-*")).name
    assert len(_nodes(token)) == 3
    comparison.kill()
    comparison.wait(10)
    deadline = time.monotonic() + 10
    while _nodes(token) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _nodes(token) == []


def _nodes(token: str) -> list[str]:
    """The processes whose command line names the cluster's token."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if token.encode() in arguments:
            found.append(file.parent.name)
    return found


def test_nodes_that_stand_alone_are_verified_and_filled_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("benchmarks.cluster.disk_directory", lambda: tmp_path)
    apart = three(variant("v2.reactive", LINEARIZABLE, NATIVE))
    plan = grid(["wrk"], [WORKLOADS["get-only"]], [3], 1, 1, [apart])
    [run] = compare(plan, lambda _text, _seconds: None).runs
    assert run.errors == 0
    assert all(run.per_node.values())
