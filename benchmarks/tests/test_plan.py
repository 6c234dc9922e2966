import pytest

from benchmarks.attribution import chain
from benchmarks.plan import Cell, estimate, grid, quick, standard, switches
from benchmarks.targets import (
    EMBEDDED,
    INDEPENDENT,
    INFRASTRUCTURES,
    LINEARIZABLE,
    SERVERS,
    deployment,
    resolve,
    variant,
    yardstick,
)
from benchmarks.workloads import USUAL, WORKLOADS

ETCD = yardstick(EMBEDDED)
QUICK = [ETCD, *resolve("v2.reactive", EMBEDDED, ["native", "granian", "hypercorn"])]
FOUR_MINUTES, SIX_MINUTES = 240, 360
BOTH, ALONE = ["wrk", "locust"], ["locust"]


def everything(infrastructure: str = EMBEDDED) -> list:
    best = [variant(name, infrastructure, servers[0]) for name, servers in SERVERS.items()]
    return [yardstick(infrastructure), *best]


def test_targets_take_turns_within_each_round():
    [cell] = grid(["wrk"], [WORKLOADS["same-data"]], [24], 1, 2, QUICK[:2])
    assert [(number, target.name) for number, target in cell.turns] == [
        (1, "etcd"),
        (1, "v2.reactive-native"),
        (2, "etcd"),
        (2, "v2.reactive-native"),
    ]


def test_a_grid_has_every_combination():
    cells = grid(["wrk", "locust"], [WORKLOADS[name] for name in USUAL], [3, 24, 96], 1, 1, QUICK)
    assert len({(cell.tool, cell.workload, cell.users) for cell in cells}) == 2 * 4 * 3


@pytest.mark.parametrize("tools", [BOTH, ALONE, ["wrk"]])
def test_the_plans_take_less_than_they_promise(tools: list[str]):
    assert estimate(quick(tools, QUICK)) < FOUR_MINUTES
    for infrastructure in INFRASTRUCTURES:
        assert estimate(standard(tools, everything(infrastructure), infrastructure)) < SIX_MINUTES


def test_what_is_started_a_second_time_takes_its_time_twice():
    [first] = grid(["wrk"], [WORKLOADS["same-data"]], [24], 1, 1, QUICK[:1])
    [second] = grid(["wrk"], [WORKLOADS["same-data"]], [24], 1, 1, QUICK[1:2])
    assert estimate([first, second]) - estimate([first]) - estimate([second]) == pytest.approx(3.0)


@pytest.mark.parametrize("tools", [BOTH, ALONE])
def test_the_plans_measure_no_cell_twice(tools: list[str]):
    for plan in (quick(tools, QUICK), standard(tools, everything())):
        cells = [(cell.tool, cell.workload, cell.users) for cell in plan]
        assert len(cells) == len(set(cells))


def test_the_standard_plan_measures_every_target_in_every_cell():
    plan = standard(BOTH, everything(LINEARIZABLE), LINEARIZABLE)
    assert {cell.targets for cell in plan} == {tuple(everything(LINEARIZABLE))}
    assert {cell.section for cell in plan} == {LINEARIZABLE}
    assert {cell.workload.name for cell in plan} == set(USUAL)
    assert {cell.tool for cell in plan} == {"wrk", "locust"}
    assert {cell.tool for cell in standard(ALONE, everything())} == {"locust"}


def test_the_quick_plan_shows_every_server_and_every_tool_that_is_there():
    plan = quick(BOTH, QUICK)
    assert {target.name for cell in plan for target in cell.targets} == {target.name for target in QUICK}
    assert {cell.tool for cell in plan} == {"wrk", "locust"}
    assert {cell.tool for cell in quick(ALONE, QUICK)} == {"locust"}
    mixed = [cell for cell in plan if cell.tool == "wrk" and cell.workload.name == "same-data"]
    assert sorted(cell.users for cell in mixed) == [3, 24, 96, 384]


def test_results_say_what_they_stood_beside_only_where_a_target_has_several():
    def beside(section: str, target) -> str:
        return Cell("wrk", WORKLOADS["same-data"], 3, 1, 1, (target,), section).beside(target)

    assert beside(EMBEDDED, yardstick(EMBEDDED)) == ""
    assert beside(INDEPENDENT, yardstick(INDEPENDENT)) == "independent"
    assert beside(LINEARIZABLE, yardstick(LINEARIZABLE)) == ""
    assert beside(INDEPENDENT, variant("v1.servlet", INDEPENDENT, "granian")) == ""
    assert beside("layers-of-x", variant("v1.servlet", EMBEDDED, "granian")) == "layers-of-x"


def test_a_deployment_is_its_own_place(tmp_path):
    target = deployment(tmp_path / "v1" / "deployment" / "servlet" / "embedded.yaml")
    assert Cell("wrk", WORKLOADS["same-data"], 3, 1, 1, (target,), "compose").beside(target) == ""


def test_every_target_of_a_chain_has_as_many_processes_and_users_as_every_other():
    chains = [chain("v1.servlet", "granian"), chain("v2.reactive", "native")]
    cells = switches("wrk", chains, [3, 96], 1, 2)
    assert len(cells) == 2 * 2 * 2  # chains, operations, numbers of users
    assert [cell.section for cell in cells[::4]] == [each.section for each in chains]
    assert {target.nodes for cell in cells for target in cell.targets} == {3}
    assert {cell.job(("a", "b", "c")).connections for cell in cells} == {3, 96}


def test_a_single_node_gets_as_many_threads_and_users_as_three():
    [cell] = grid(["wrk"], [WORKLOADS["same-data"]], [25], 1, 1, [ETCD])
    for endpoints, streams, connections in (("a", 3, 27), ("abc", 3, 27), ("ab", 4, 28), ("abcde", 5, 25)):
        job = cell.job(tuple(endpoints))
        assert (job.streams, job.connections) == (streams, connections)
