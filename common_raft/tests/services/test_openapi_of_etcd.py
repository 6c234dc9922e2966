"""The description of our API, held against etcd: it is a description of etcd's."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from common_raft.testing.processes import ProcessCluster
from common_raft.tests.openapi import hold, schema
from common_raft.tests.services.variants import etcd_cluster

pytestmark = pytest.mark.processes
#: Whoever adds a member that is not there takes the cluster's majority away.
unchanged = schema.exclude(path_regex="/v2/members", method_regex="POST|PUT|DELETE")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    with etcd_cluster(tmp_path_factory.mktemp("etcd"), 1) as started:
        yield started


@unchanged.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_etcds_answers_are_as_described(etcd: ProcessCluster, case: schemathesis.Case) -> None:
    hold(case, etcd.nodes[0].client_port)
