"""What the locust workloads share: users spread over the nodes, and a recorder with microsecond latencies.

``ENDPOINTS=url,url,url`` in the environment spreads the users over the nodes in turn, as wrk's scripts do; without
it all go to ``--host``.  ``WARM_UP`` (seconds, 0.5 unless given) is what passes after the last user has started
before anything is counted.  ``MEASURE`` (seconds) ends the run when so much has been counted; ``-t`` ends it too,
but begins before the users do.  At the end one line is printed: RESULT and a JSON object, the same as wrk's.

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
import gevent.event
from locust import FastHttpUser, events, task

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VALUES = range(1, 101)
READ_KEYS = 100

_endpoints = [url for url in os.environ.get("ENDPOINTS", "").split(",") if url]
_warm_up = float(os.environ.get("WARM_UP", "0.5"))
_measure = float(os.environ.get("MEASURE", "0"))
_numbers = itertools.count(1)


class Recorder:
    """Counts answers and latencies from ``start()`` to ``stop()``."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.ended: float | None = None
        self.latencies: Counter[int] = Counter()
        self.statuses: Counter[int] = Counter()
        self.per_node: Counter[str] = Counter()
        self.socket_errors = 0
        self.wrong_values = 0
        self.total_us = 0

    def start(self) -> None:
        self.began = time.monotonic()

    def stop(self) -> None:
        self.ended = self.ended or time.monotonic()

    def add(self, node: str, milliseconds: float, status: int) -> None:
        if self.began is None or self.ended is not None:
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

    def result(self) -> dict[str, Any]:
        began = self.began or 0.0
        ended = max(self.ended or time.monotonic(), began)
        requests = self.latencies.total()
        return {
            "requests": requests,
            "seconds": round(ended - began, 6),
            "window": [began, ended],
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


_spawned = gevent.event.Event()


def _count(environment: Any, **_: Any) -> None:
    """When the test starts: a greenlet that counts between the warm-up and the end."""

    def run() -> None:
        _spawned.wait()
        gevent.sleep(_warm_up)
        recorder.start()
        if _measure:
            gevent.sleep(_measure)
            recorder.stop()
            environment.runner.quit()

    gevent.spawn(run)


def _all_users_run(**_: Any) -> None:
    _spawned.set()


def _count_no_more(**_: Any) -> None:
    recorder.stop()


def _tell(**_: Any) -> None:
    print("RESULT " + json.dumps(recorder.result()), flush=True)


# Locust's EventHook has no annotations.
events.test_start.add_listener(_count)  # type: ignore[no-untyped-call]
events.spawning_complete.add_listener(_all_users_run)  # type: ignore[no-untyped-call]
events.test_stop.add_listener(_count_no_more)  # type: ignore[no-untyped-call]
events.quitting.add_listener(_tell)  # type: ignore[no-untyped-call]


class KeyUser(FastHttpUser):
    """A user of one node; a workload says in ``steps()`` what it does, again and again."""

    abstract = True
    host = "http://127.0.0.1:8001"
    connection_timeout = 10.0
    network_timeout = 10.0
    #: A 404 is a right answer to a GET or DELETE where users share a key.
    may_be_missing = False

    def __init__(self, environment: Any) -> None:
        self.number = next(_numbers)
        if _endpoints:
            self.host = _endpoints[(self.number - 1) % len(_endpoints)]
        super().__init__(environment)
        self.node = self.host.removeprefix("http://").removeprefix("https://").rstrip("/")

    def steps(self) -> None:
        raise NotImplementedError

    @task
    def run_steps(self) -> None:
        self.steps()

    def put(self, key: str, value: int) -> None:
        self._request("PUT", key, data=f"value={value}", headers=FORM)

    def get(self, key: str, expected: int | None = None) -> None:
        body = self._request("GET", key)
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


def read_keys(start: int) -> Iterator[str]:
    """The keys that get-only reads, from its ``start``-th on, for ever."""
    return (f"get-only-{(start + turn) % READ_KEYS + 1}" for turn in itertools.count())
