import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import cli, failover
from benchmarks.errors import BenchmarkError
from benchmarks.failover import Outage, measure, outage, rows, show, with_times
from benchmarks.statistics import quantile
from benchmarks.targets import EMBEDDED, resolve


class Survivor(BaseHTTPRequestHandler):
    """Refuses writes until ``good_from``; asked before ``hangs_until``, it never answers."""

    good_from = hangs_until = 0.0

    def do_PUT(self):
        if time.monotonic() < self.hangs_until:
            time.sleep(30)
        self.send_response(201 if time.monotonic() > self.good_from else 500)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def survivor(**times: float) -> Iterator[str]:
    kind = type("Survivor", (Survivor,), {name: time.monotonic() + after for name, after in times.items()})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_outage_ends_with_the_first_write_that_any_node_acknowledges():
    killed = []
    with survivor(good_from=30) as refuses, survivor(good_from=0.4) as recovers:
        seconds, through = asyncio.run(outage([refuses, recovers], lambda: killed.append(time.monotonic())))
    assert through == recovers
    assert 0.3 < seconds < 0.8
    assert len(killed) == 1


def test_a_write_that_was_lost_with_the_leader_does_not_prolong_the_outage():
    with survivor(hangs_until=0.3) as recovers:
        seconds, _ = asyncio.run(outage([recovers], lambda: None))
    assert 0.2 < seconds < 0.7


def test_a_node_that_is_down_as_well_is_passed_over():
    with survivor() as there:
        assert asyncio.run(outage(["http://127.0.0.1:1", there], lambda: None))[1] == there


def test_a_cluster_that_takes_no_writes_any_more_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(failover, "AT_MOST", 0.1)
    with (
        survivor(good_from=30) as refuses,
        pytest.raises(BenchmarkError, match=f"no write was acknowledged within 0.1 s by {refuses}"),
    ):
        asyncio.run(outage([refuses], lambda: None))


def test_the_times_are_flags_of_every_target():
    for target in [*resolve("etcd", EMBEDDED), *resolve("v2.reactive", EMBEDDED)]:
        flags = with_times(target, 20, 200).command
        assert flags[-4:] == ("--heartbeat-interval", "20", "--election-timeout", "200")
        assert with_times(target, 20, 200).label == target.label


OUTAGES = [Outage("etcd", n, n / 10, "http://a") for n in range(1, 11)] + [Outage("v2", 1, 0.5, "http://b")]


def test_a_row_has_median_p90_and_extremes():
    [(name, kills, seconds), other] = rows(OUTAGES)
    assert (name, kills) == ("etcd", 10)
    assert seconds == pytest.approx([0.55, 0.9, 0.1, 1.0])
    assert other == ("v2", 1, [0.5, 0.5, 0.5, 0.5])


def test_results_are_shown_and_written_with_what_made_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    failover.write(tmp_path, {"disk": "quick"}, "python -m benchmarks failover", OUTAGES)
    found = json.loads((tmp_path / "failover.json").read_text())
    assert found["command"] == "python -m benchmarks failover"
    assert found["environment"] == {"disk": "quick"}
    assert found["outages"][10] == {"target": "v2", "number": 1, "seconds": 0.5, "through": "http://b"}
    show(OUTAGES, Console(width=120))
    assert "0.55" in capsys.readouterr().out


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 2.0), (0.51, 3.0), (0.9, 4.0), (1.0, 4.0)])
def test_a_quantile_is_one_of_the_values(share: float, value: float):
    assert quantile([4.0, 2.0, 3.0, 1.0], share) == value


def test_a_bad_number_of_kills_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["failover", "--kills", "0"])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.processes
def test_both_clusters_lose_their_leaders_in_turn_and_recover(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(failover, "SETTLE", (0.1, 0.2))
    targets = [
        with_times(target, 20, 200) for name in ("etcd", "v2.reactive") for target in resolve(name, EMBEDDED)
    ]
    outages = measure(targets, 2, lambda text, done: None)
    assert [each.target for each in outages] == ["etcd", "v2.reactive-native"] * 2
    for each in outages:
        assert 0.05 < each.seconds < 5
