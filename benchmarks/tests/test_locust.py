"""What the processes of locust count, and how it becomes one result; in a process of its own, because locust is."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cluster import free_ports
from benchmarks.keys import NodeClient
from benchmarks.load import Job, locust, parse
from benchmarks.runner import _started
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
MERGE = """
import json, time
from benchmarks.locust.user import Recorder

def recorder(statuses):
    made = Recorder()
    made.began, made.ended = 0.0, float("inf")
    for number, status in enumerate(statuses, start=1):
        made.add("a:1", number, status)
    made.cpu_seconds = 0.25
    return made

whole, part, late = recorder([200, 200]), recorder([404, 0, 201]), Recorder()
late.began = time.monotonic() + 60
late.add("a:1", 1.0, 200)
for each in (part, late):
    whole.merge(json.loads(json.dumps(each.counted())))
whole.ended = 2.0
print(json.dumps(whole.result()))
"""


def test_what_several_processes_counted_becomes_one_result():
    told = subprocess.run([sys.executable, "-c", MERGE], cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(told.stdout)
    assert result["requests"] == 4
    assert result["statuses"] == {"200": 2, "201": 1, "404": 1}
    assert result["socket_errors"] == 1
    assert result["per_node"] == {"a:1": 4}
    assert (result["p50_us"], result["max_us"], result["mean_us"]) == (1000, 3000, 1750.0)
    assert (result["seconds"], result["cpu_seconds"]) == (2.0, 0.5)


@pytest.fixture
def endpoints() -> Iterator[tuple[str, ...]]:
    """Two servers that answer as one node would."""
    server = [sys.executable, "-m", "benchmarks.bare", "--server", "granian", "--interface", "asgi"]
    found = tuple(f"http://127.0.0.1:{port}" for port in free_ports(2))
    started = [subprocess.Popen([*server, "--listen-client-urls", each], cwd=ROOT) for each in found]
    try:
        for each in found:
            with NodeClient(each) as client:
                while not client.healthy():
                    time.sleep(0.02)
        yield found
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.processes
def test_users_of_all_processes_are_counted_each_with_a_key_of_its_own(
    endpoints: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    job = Job(WORKLOADS["put-only"], endpoints, users=8, seconds=1)
    assert locust.processes(job) == 2
    with _started(locust.command(job)) as process:
        output, _ = process.communicate(timeout=60)
    outcome = parse(output)
    assert outcome.statuses == {201: outcome.requests}
    assert outcome.requests > 0
    assert set(outcome.per_node) == {each.removeprefix("http://") for each in endpoints}
    assert outcome.window is not None
    assert outcome.window[1] - outcome.window[0] == pytest.approx(1.0)
    assert outcome.cpu_seconds is not None
    assert outcome.cpu_seconds > 0


def test_no_two_users_have_the_same_number_and_a_processs_users_take_the_nodes_in_turn():
    numbers = """
import json
from benchmarks.locust import user
from locust.runners import WorkerRunner

def worker(index):
    runner = WorkerRunner.__new__(WorkerRunner)
    runner.worker_index = index
    user._numbers = iter(range(100))
    return [user._number(runner) for _ in range(12)]

print(json.dumps([worker(index) for index in range(4)]))
"""
    told = subprocess.run(
        [sys.executable, "-c", numbers], cwd=ROOT, capture_output=True, text=True, check=True
    )
    workers = json.loads(told.stdout)
    assert len({number for worker in workers for number in worker}) == 4 * 12
    for nodes in (1, 2, 3, 4, 6):
        for worker in workers:
            on_each = [sum((number - 1) % nodes == node for number in worker) for node in range(nodes)]
            assert len(set(on_each)) == 1
