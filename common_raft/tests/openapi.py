"""The description of the API, and what holds an answer against it."""

from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.checks import CheckContext
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import common_raft.web

DESCRIPTION = Path(common_raft.web.__file__).with_name("openapi.yaml")
SECONDS = 10
schema = schemathesis.openapi.from_path(DESCRIPTION)
schema.config.generation.update(modes=list(schemathesis.GenerationMode))


def server_errors_have_a_reason(_context: CheckContext, response: Any, _case: schemathesis.Case) -> None:
    """Not a bare 500, as of a handler that has failed."""
    if response.status_code >= 500 and response.request.method != "HEAD":
        said = response.json()
        assert said.get("message") or said.get("reason"), response.text


CHECKS = [
    server_errors_have_a_reason,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def hold(case: schemathesis.Case, port: int) -> None:
    """Asks, and raises when the answer is not as described."""
    if "wait" in case.query and str(case.query["wait"]).strip("['").lower() not in ("false", "f", "0"):
        case.query["wait"] = (
            "no" if case.method == "GET" else case.query["wait"]
        )  # a request that waits would wait
    url = f"http://127.0.0.1:{port}"
    case.call_and_validate(base_url=url, checks=CHECKS, allow_redirects=False, timeout=SECONDS)
