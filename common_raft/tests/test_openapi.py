"""The description of the API over every front: what it promises holds, for good requests and for bad ones.

The same description is held against etcd itself in ``tests/services``.
"""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.core.failures import FailureGroup

from common_raft.tests.openapi import hold, schema
from common_raft.tests.web_fixtures import FRONTS, Served, serving
from common_raft.web.auth.routes import AUTH_PATH, ENABLE, ROLES, USERS
from common_raft.web.etcd_v2 import ABOUT
from common_raft.web.members import MACHINES, MEMBERS
from common_raft.web.request import KEYS


@pytest.fixture(scope="module", params=FRONTS)
def front(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(request.param) as served:
        yield served


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(front: Served, case: schemathesis.Case) -> None:
    hold(case, front.port)


def test_every_endpoint_is_described() -> None:
    described = {path.partition("{")[0].rstrip("/") for path in schema.raw_schema["paths"]}
    assert {KEYS, MEMBERS, MACHINES, "/metrics", *ABOUT} <= described
    assert {path for path in described if AUTH_PATH(path)} == {
        f"/v2/auth/{kind}" for kind in (ENABLE, ROLES, USERS)
    }


def test_an_answer_that_is_not_described_is_found() -> None:
    wrong = deepcopy(dict(schema.raw_schema))
    del wrong["components"]["schemas"]["StoreStats"]["additionalProperties"]
    wrong["components"]["schemas"]["StoreStats"]["properties"] = {"watchers": {"type": "string"}}
    case = schemathesis.openapi.from_dict(wrong)["/v2/stats/store"]["GET"].Case()
    with serving("native") as served, pytest.raises(FailureGroup, match="schema"):
        hold(case, served.port)
