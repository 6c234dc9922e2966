"""What the locust workloads share: users spread over the nodes, and a recorder with microsecond latencies.

``ENDPOINTS=url,url,url`` in the environment spreads the users over the nodes in turn, as wrk's scripts do; without
it all go to ``--host``.  ``WARM_UP`` (seconds, 0.5 unless given) is what passes after the last user has started
before anything is counted.  ``MEASURE`` (seconds) ends the run when so much has been counted; ``-t`` ends it too,
but begins before the users do.  At the end one line is printed: RESULT and a JSON object, the same as wrk's.

With ``--processes`` the master tells its workers the window to count in (all are on one machine, and so on one
monotonic clock), and they send it what they have counted; alone, a process tells itself.

Locust's own statistics round to whole milliseconds, which is too coarse for a store that answers within one.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gevent
from locust import FastHttpUser, events, task
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VALUES = range(1, 101)
READ_KEYS = 100

_endpoints = [url for url in os.environ.get("ENDPOINTS", "").split(",") if url]
_warm_up = float(os.environ.get("WARM_UP", "0.5"))
_measure = float(os.environ.get("MEASURE", "0"))
_numbers = itertools.count()

WINDOW, COUNTED = "window", "counted"  # messages: from the master to its workers, and back
MOST_PROCESSES = 1009  # a prime: no number of nodes divides it, or a process's users would all be on one node
COUNTED_WITHIN = 5.0  # s that workers may take to send what they have counted


class Recorder:
    """Counts answers and latencies from ``began`` to ``ended``, on the monotonic clock."""

    def __init__(self) -> None:
        self.began = float("inf")
        self.ended = float("inf")
        self.latencies: Counter[int] = Counter()
        self.statuses: Counter[int] = Counter()
        self.per_node: Counter[str] = Counter()
        self.socket_errors = 0
        self.wrong_values = 0
        self.total_us = 0
        self.cpu_seconds = 0.0

    def add(self, node: str, milliseconds: float, status: int) -> None:
        if not self.began <= time.monotonic() < self.ended:
            return
        if not status:
            self.socket_errors += 1
            return
        microseconds = int(milliseconds * 1000)
        # Ten microseconds' resolution below 100 ms and a millisecond's above: a bounded table, and fine enough.
        self.latencies[
            microseconds // 10 * 10 if microseconds < 100_000 else microseconds // 1000 * 1000
        ] += 1
        self.statuses[status] += 1
        self.per_node[node] += 1
        self.total_us += microseconds

    def counted(self) -> dict[str, Any]:
        """What ``merge`` takes, fit for a message."""
        return {
            "latencies": list(self.latencies.items()),
            "statuses": list(self.statuses.items()),
            "per_node": list(self.per_node.items()),
            "socket_errors": self.socket_errors,
            "wrong_values": self.wrong_values,
            "total_us": self.total_us,
            "cpu_seconds": self.cpu_seconds,
        }

    def merge(self, counted: dict[str, Any]) -> None:
        """Add what another process has counted in the same window."""
        self.latencies.update(dict(counted["latencies"]))
        self.statuses.update(dict(counted["statuses"]))
        self.per_node.update(dict(counted["per_node"]))
        self.socket_errors += counted["socket_errors"]
        self.wrong_values += counted["wrong_values"]
        self.total_us += counted["total_us"]
        self.cpu_seconds += counted["cpu_seconds"]

    def result(self) -> dict[str, Any]:
        requests = self.latencies.total()
        return {
            "requests": requests,
            "seconds": round(self.ended - self.began, 6),
            "window": [self.began, self.ended],
            "cpu_seconds": round(self.cpu_seconds, 3),
            "p50_us": self._percentile(0.5),
            "p90_us": self._percentile(0.9),
            "p99_us": self._percentile(0.99),
            "p999_us": self._percentile(0.999),
            "max_us": max(self.latencies, default=0),
            "mean_us": round(self.total_us / requests, 1) if requests else 0.0,
            "socket_errors": self.socket_errors,
            "timeouts": 0,
            "wrong_values": self.wrong_values,
            "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
            "per_node": dict(sorted(self.per_node.items())),
        }

    def _percentile(self, share: float) -> int:
        rank = share * self.latencies.total()
        seen = 0
        for latency in sorted(self.latencies):
            seen += self.latencies[latency]
            if seen >= rank:
                return latency
        return 0


recorder = Recorder()


class Counting:
    """A process with users: it counts in the window that it is told, and tells what it has counted."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._told = False
        self._cpu_before = 0.0
        runner.register_message(WINDOW, self._watch)

    def _watch(self, *, msg: Any, **_: Any) -> None:
        recorder.began = msg.data["began"]
        if msg.data["ended"] is not None:
            recorder.ended = msg.data["ended"]
        gevent.spawn(self._count)

    def _count(self) -> None:
        gevent.sleep(max(0.0, recorder.began - time.monotonic()))
        self._cpu_before = time.process_time()
        if recorder.ended < float("inf"):
            gevent.sleep(max(0.0, recorder.ended - time.monotonic()))
            self.tell()

    def tell(self) -> None:
        """Once: at the end of the window, or of the test."""
        if self._told or recorder.began > time.monotonic():
            return
        self._told = True
        recorder.ended = min(recorder.ended, time.monotonic())
        recorder.cpu_seconds = time.process_time() - self._cpu_before
        self._runner.send_message(COUNTED, recorder.counted())


class Gathering:
    """The process that leads: it chooses the window, gathers what the others counted, and ends the run."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._expected = self._gathered = 0
        self.all = Recorder()
        runner.register_message(COUNTED, self._gather)

    def begin(self) -> None:
        """All users run."""
        if self._expected:
            return
        self._expected = getattr(self._runner, "worker_count", 1)
        self.all.began = time.monotonic() + _warm_up
        if _measure:
            self.all.ended = self.all.began + _measure
            gevent.spawn(self._conclude)
        ended = self.all.ended if _measure else None
        self._runner.send_message(WINDOW, {"began": self.all.began, "ended": ended})

    def _conclude(self) -> None:
        before = time.process_time()
        gevent.sleep(self.all.ended - time.monotonic())
        if isinstance(self._runner, MasterRunner):
            self.all.cpu_seconds += time.process_time() - before
        deadline = time.monotonic() + COUNTED_WITHIN
        while self._gathered < self._expected and time.monotonic() < deadline:
            gevent.sleep(0.02)
        self._runner.quit()

    def _gather(self, *, msg: Any, **_: Any) -> None:
        self.all.merge(msg.data)
        self._gathered += 1

    def conclusion(self) -> str:
        """The line that ends the output."""
        if not self._expected:
            return "LOST the run ended before all users had started"
        if self._gathered < self._expected:
            return f"LOST only {self._gathered} of {self._expected} processes told what they counted"
        self.all.ended = min(self.all.ended, time.monotonic())
        return "RESULT " + json.dumps(self.all.result())


def _follow(environment: Any, runner: Any, **_: Any) -> None:
    """When locust is ready: this process gets its part, or both parts if it is alone."""
    if isinstance(runner, WorkerRunner | LocalRunner):
        counting = Counting(runner)
        environment.events.test_stop.add_listener(lambda **_: counting.tell())
    if isinstance(runner, MasterRunner | LocalRunner):
        gathering = Gathering(runner)
        environment.events.spawning_complete.add_listener(lambda **_: gathering.begin())
        environment.events.quitting.add_listener(lambda **_: print(gathering.conclusion(), flush=True))


# Locust's EventHook has no annotations.
events.init.add_listener(_follow)  # type: ignore[no-untyped-call]


def _number(runner: Any) -> int:
    """A number, from 1, that no other user has in any process; a process's users take the nodes in turn."""
    stride = MOST_PROCESSES if isinstance(runner, WorkerRunner) else 1
    number: int = next(_numbers) * stride + max(0, runner.worker_index) + 1
    return number


class KeyUser(FastHttpUser):
    """A user of one node; a workload says in ``steps()`` what it does, again and again."""

    abstract = True
    host = "http://127.0.0.1:8001"
    connection_timeout = 10.0
    network_timeout = 10.0
    #: A 404 is a right answer to a GET or DELETE where users share a key.
    may_be_missing = False

    def __init__(self, environment: Any) -> None:
        self.number = _number(environment.runner)
        if _endpoints:
            self.host = _endpoints[(self.number - 1) % len(_endpoints)]
        super().__init__(environment)
        self.node = self.host.removeprefix("http://").removeprefix("https://").rstrip("/")

    def steps(self) -> None:
        raise NotImplementedError

    @task
    def run_steps(self) -> None:
        self.steps()

    def put(self, key: str, value: int, size: int = 0) -> None:
        """``size``: of the value in bytes; it is filled up with dots."""
        self._request("PUT", key, data=f"value={str(value).ljust(size, '.')}", headers=FORM)

    def get(self, key: str, expected: int | None = None, *, query: str = "") -> None:
        body = self._request("GET", key + query)
        if expected is not None and body is not None and f'"value":"{expected}"'.encode() not in body:
            recorder.wrong_values += 1

    def delete(self, key: str) -> None:
        self._request("DELETE", key)

    def mixed(self, key: str, *, own: bool) -> None:
        """100 x (PUT value=i, GET), then DELETE.  With a key of its own a user must read what it wrote."""
        for value in VALUES:
            self.put(key, value)
            self.get(key, value if own else None)
        self.delete(key)

    def _request(self, method: str, key: str, **options: Any) -> bytes | None:
        """The body of a successful answer, None of any other."""
        began = time.perf_counter()
        with self.client.request(
            method, f"/v2/keys/{key}", name=method, catch_response=True, **options
        ) as response:
            recorder.add(self.node, (time.perf_counter() - began) * 1000, response.status_code or 0)
            if response.status_code == 404 and self.may_be_missing:
                response.success()
            return response.content if 200 <= response.status_code < 300 else None


def read_keys(workload: str, start: int) -> Iterator[str]:
    """The keys that a workload only reads, from its ``start``-th on, for ever."""
    return (f"{workload}-{(start + turn) % READ_KEYS + 1}" for turn in itertools.count())
