from dataclasses import replace

import pytest

from benchmarks.attribution import (
    ABOVE_WHOLE,
    FRONT,
    FRONT_AND_SERVER,
    MEASURED,
    NEGATIVE,
    NOISE,
    RAFT,
    SERVER,
    STORE,
    UNTESTED,
    WAL,
    Attribution,
    attribute,
    attributions,
    chain,
    judge,
)
from benchmarks.targets import SERVERS
from benchmarks.tests.fixtures import run

SQL = chain("v1.servlet", "granian")
EMBEDDED, NO_FSYNC, WITH_HASH_MAP, ALONE, BARE = [target.label for target in SQL.targets]


def costs(**changes: dict[int, float]) -> dict[str, dict[int, float]]:
    """Two rounds in which the WAL costs 20, Raft 50, the store 10, the front 5, the server 15 and 17."""
    found = {
        EMBEDDED: {1: 100.0, 2: 102.0},
        NO_FSYNC: {1: 80.0, 2: 82.0},
        WITH_HASH_MAP: {1: 70.0, 2: 72.0},
        ALONE: {1: 20.0, 2: 22.0},
        BARE: {1: 15.0, 2: 17.0},
    }
    return {**found, **changes}


def attributed(found: dict[str, dict[int, float]]) -> Attribution:
    one = attribute(SQL, "PUT", 96, "cpu", found)
    assert one is not None
    return one


def test_a_chain_takes_one_layer_away_at_a_time():
    assert [(each.layer, each.above.label) for each in SQL.switches] == [
        (WAL, "v1.servlet-granian, embedded"),
        (STORE, "v1.servlet-granian, embedded-no-fsync"),
        (RAFT, "v2.servlet-granian, embedded-no-fsync"),
        (FRONT, "v2.servlet-granian, three-standalone-linearizable"),
        (SERVER, "bare-wsgi-granian, three-bare"),
    ]


def test_a_hash_map_has_no_store_to_take_away_and_the_native_server_no_bare_application():
    assert [each.layer for each in chain("v2.reactive", "hypercorn").switches] == [WAL, RAFT, FRONT, SERVER]
    assert [each.layer for each in chain("v2.reactive", "native").switches] == [WAL, RAFT, FRONT_AND_SERVER]


@pytest.mark.parametrize(("name", "server"), [(name, each) for name in SERVERS for each in SERVERS[name]])
def test_each_switch_begins_where_the_one_before_it_ends_so_that_the_layers_add_up(name: str, server: str):
    switches = chain(name, server).switches
    assert [each.below for each in switches] == [*(each.above for each in switches[1:]), None]
    assert len({each.layer for each in switches}) == len(switches)


def test_a_layer_costs_what_a_request_costs_less_without_it():
    found = attributed(costs())
    assert {share.layer: share.cost for share in found.shares} == {
        WAL: 20.0,
        RAFT: 50.0,
        STORE: 10.0,
        FRONT: 5.0,
        SERVER: 16.0,
    }
    assert found.total == 101.0
    assert [share.share for share in found.shares] == [share.cost / 101.0 for share in found.shares]
    assert found.unexplained == pytest.approx(0.0)


def test_every_figure_names_the_two_targets_it_is_the_difference_of():
    wal = attributed(costs()).shares[0]
    assert (wal.above, wal.above_cost, wal.below, wal.below_cost) == (EMBEDDED, 101.0, NO_FSYNC, 81.0)


def test_differences_are_taken_round_by_round():
    # Round 2 was three times as slow for all: the medians differ by 40, the rounds by 20 and 60.
    found = costs(**{EMBEDDED: {1: 100.0, 2: 300.0}, NO_FSYNC: {1: 80.0, 2: 240.0}})
    wal = attributed(found).shares[0]
    assert (wal.low, wal.high, wal.cost) == (20.0, 60.0, 40.0)
    only_one_in_common = costs(**{NO_FSYNC: {1: 80.0, 3: 1.0}})
    assert attributed(only_one_in_common).shares[0].verdict == UNTESTED


def test_noise_and_negative_differences_have_no_share():
    noisy = attributed(costs(**{NO_FSYNC: {1: 80.0, 2: 110.0}}))
    assert (noisy.shares[0].verdict, noisy.shares[0].share) == (NOISE, None)
    dearer = attributed(costs(**{NO_FSYNC: {1: 120.0, 2: 110.0}}))
    assert (dearer.shares[0].verdict, dearer.shares[0].share) == (NEGATIVE, None)
    assert dearer.unexplained == pytest.approx(1 - (44 + 50 + 5 + 16) / 101)


def test_a_layer_that_costs_more_than_the_whole_has_no_share():
    found = attributed(costs(**{BARE: {1: 500.0, 2: 500.0}}))
    assert (found.shares[-1].verdict, found.shares[-1].share) == (ABOVE_WHOLE, None)


def test_rounds_must_agree_before_a_difference_is_believed():
    assert [judge(each) for each in ([], [5.0], [5.0, 1.0], [5.0, 0.0], [5.0, -1.0], [-5.0, -1.0])] == [
        UNTESTED,
        UNTESTED,
        MEASURED,
        NOISE,
        NOISE,
        NEGATIVE,
    ]


def test_without_one_of_its_targets_nothing_is_attributed():
    assert attribute(SQL, "PUT", 96, "cpu", costs(**{BARE: {}})) is None


def test_costs_are_read_from_the_runs_of_the_chains_section_alone():
    runs = [
        run(
            target.name,
            96,
            number,
            1000.0,
            infrastructure=target.infrastructure,
            workload=workload,
            section=SQL.section,
            cpu_us=cost,
            mean_ms=cost / 10,
        )
        for workload in ("put-only", "get-only")
        for target, cost in zip(SQL.targets, (100.0, 80.0, 70.0, 20.0, 15.0), strict=True)
        for number in (1, 2)
    ]
    strangers = [replace(each, section="embedded", cpu_us=1.0) for each in runs]
    found = attributions([*strangers, *runs])
    assert [(each.chain, each.operation, each.users, each.cost, each.total) for each in found] == [
        ("v1.servlet-granian", "PUT", 96, "cpu", 100.0),
        ("v1.servlet-granian", "GET", 96, "cpu", 100.0),
        ("v1.servlet-granian", "PUT", 96, "latency", 10.0),
        ("v1.servlet-granian", "GET", 96, "latency", 10.0),
    ]
    unseen = [replace(each, cpu_us=None) for each in runs]
    assert {each.cost for each in attributions(unseen)} == {"latency"}
