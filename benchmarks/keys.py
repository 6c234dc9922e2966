"""The few requests that a benchmark makes itself: health, a PUT, a GET, a DELETE."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from benchmarks.errors import BenchmarkError

TIMEOUT = 10.0  # s
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]


class NodeClient:
    """A connection to one node, kept alive.

    :raises BenchmarkError: from every request that gets no answer in JSON.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme != "http" or not parts.hostname:
            raise BenchmarkError(f"endpoint {endpoint!r} is not of the form http://host:port")
        self.endpoint = endpoint
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=TIMEOUT)

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def request(self, method: str, path: str, value: str | None = None) -> Answer:
        body = None if value is None else f"value={value}"
        try:
            self._connection.request(method, path, body, FORM if body is not None else {})
            response = self._connection.getresponse()
            return Answer(response.status, json.loads(response.read()))
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise BenchmarkError(f"{self.endpoint} gave no answer to {method} {path}: {error}") from error

    def put(self, key: str, value: str) -> Answer:
        return self.request("PUT", f"/v2/keys/{key}", value)

    def get(self, key: str) -> Answer:
        return self.request("GET", f"/v2/keys/{key}")

    def delete(self, key: str) -> Answer:
        return self.request("DELETE", f"/v2/keys/{key}")

    def healthy(self) -> bool:
        """Whether the node knows a leader; False as well while it does not answer at all."""
        try:
            answer = self.request("GET", "/health")
        except BenchmarkError:
            return False
        return answer.status == 200 and str(answer.body.get("health")).lower() == "true"

    def leads(self) -> bool:
        """Whether the node says that it leads its cluster; False as well while it does not answer at all."""
        try:
            return self.request("GET", "/v2/stats/self").body.get("state") == "StateLeader"
        except BenchmarkError:
            return False

    def version(self) -> str:
        return str(self.request("GET", "/version").body.get("etcdserver", "unknown"))
