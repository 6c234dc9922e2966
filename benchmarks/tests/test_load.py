from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.load import Job, locust, parse, wrk
from benchmarks.workloads import WORKLOADS

DATA = Path(__file__).parent / "data"
NODES = ("http://127.0.0.1:8001", "http://127.0.0.1:8002", "http://127.0.0.1:8003")
RESULT = (
    'RESULT {"requests":10,"seconds":1.0,"p50_us":1,"p90_us":2,"p99_us":3,"p999_us":4,"max_us":5,"mean_us":1.5,'
    '"socket_errors":1,"timeouts":2,"wrong_values":3,"statuses":{"200":6,"404":3,"500":1},"per_node":{}}'
)


def test_what_wrk_said_is_read():
    outcome = parse((DATA / "wrk.txt").read_text())
    assert (outcome.requests, outcome.seconds) == (3295, 1.081831)
    assert outcome.statuses == {200: 3295}
    assert sum(outcome.per_node.values()) == outcome.requests
    assert outcome.p50_us < outcome.p90_us < outcome.p99_us <= outcome.p999_us <= outcome.max_us
    assert outcome.window is None
    assert outcome.errors(WORKLOADS["same-data"]) == 0


def test_what_locust_said_is_read():
    outcome = parse((DATA / "locust.txt").read_text())
    assert (outcome.requests, outcome.seconds) == (1616, 1.000647)
    assert outcome.window is not None
    assert outcome.window[1] - outcome.window[0] == pytest.approx(outcome.seconds, abs=1e-5)
    assert len(outcome.per_node) == 3


def test_a_404_is_an_error_unless_the_workload_expects_it():
    outcome = parse(RESULT)
    lost_and_wrong = 1 + 2 + 3
    assert outcome.missing(WORKLOADS["same-data"]) == 3
    assert outcome.errors(WORKLOADS["same-data"]) == 1 + lost_and_wrong
    assert outcome.missing(WORKLOADS["random-data"]) == 0
    assert outcome.errors(WORKLOADS["random-data"]) == 3 + 1 + lost_and_wrong


def test_a_tool_without_a_result_is_quoted():
    with pytest.raises(BenchmarkError, match="it said: unable to connect"):
        parse("Running\nunable to connect\n")
    with pytest.raises(BenchmarkError, match="it said: nothing"):
        parse("")


def test_a_tool_that_says_why_it_has_no_result_is_quoted_with_that():
    with pytest.raises(BenchmarkError, match="it said: LOST only 1 of 2 processes"):
        parse("LOST only 1 of 2 processes told what they counted\nType Name\n-----\n")


def test_a_result_that_lacks_something_is_refused():
    with pytest.raises(BenchmarkError, match="cannot be read"):
        parse('RESULT {"requests": 1, "statuses": {}}')
    with pytest.raises(BenchmarkError, match="cannot be read"):
        parse("RESULT {")


def test_wrk_gets_a_thread_and_the_same_number_of_connections_for_each_node():
    job = Job(WORKLOADS["put-only"], NODES, users=100, seconds=2)
    assert str(wrk.command(job)) == (
        "ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 "
        "wrk -t3 -c102 -d2s --timeout 10s --latency -s benchmarks/wrk/put-only.lua http://127.0.0.1:8001"
    )


def test_locust_gets_all_users_at_once_on_all_cpus_and_measures_after_the_warm_up(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    job = Job(WORKLOADS["same-data"], NODES, users=96, seconds=2)
    assert str(locust.command(job)) == (
        "ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 WARM_UP=0.5 MEASURE=2 "
        "locust -f benchmarks/locust/same_data.py --headless --processes 4 -u 96 -r 96 -t 11s --only-summary "
        "--loglevel WARNING --exit-code-on-error 0"
    )


def test_each_process_of_locust_has_the_same_number_of_users_on_each_node(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    jobs = [Job(WORKLOADS["same-data"], NODES, users=users, seconds=1) for users in (3, 6, 15, 24, 27)]
    assert [locust.processes(job) for job in jobs] == [1, 2, 1, 4, 3]
    assert "--processes" not in str(locust.command(jobs[0]))


def test_every_workload_has_its_scripts():
    root = Path(__file__).parents[2]
    for workload in WORKLOADS.values():
        assert (root / workload.wrk_script).is_file()
        assert (root / workload.locust_file).is_file()
