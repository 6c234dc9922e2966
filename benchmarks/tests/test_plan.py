from benchmarks.plan import estimate, grid, standard
from benchmarks.targets import CATALOGUE, resolve
from benchmarks.workloads import WORKLOADS

ETCD = CATALOGUE["etcd"]
TARGETS = [ETCD, *resolve("v2.reactive", ["native", "granian", "hypercorn"])]
FOUR_MINUTES = 240


def test_targets_take_turns_within_each_round():
    [cell] = grid(["wrk"], [WORKLOADS["same-data"]], [24], 1, 2, TARGETS[:2])
    assert [(number, target.name) for number, target in cell.turns] == [
        (1, "etcd"),
        (1, "v2.reactive-native"),
        (2, "etcd"),
        (2, "v2.reactive-native"),
    ]


def test_a_grid_has_every_combination():
    cells = grid(["wrk", "locust"], list(WORKLOADS.values()), [3, 24, 96], 1, 1, TARGETS)
    assert len({(cell.tool, cell.workload, cell.users) for cell in cells}) == 2 * 4 * 3


def test_the_standard_plan_takes_less_than_four_minutes():
    assert estimate(standard(["wrk", "locust"], TARGETS)) < FOUR_MINUTES
    assert estimate(standard(["locust"], TARGETS)) < FOUR_MINUTES


def test_the_standard_plan_measures_no_cell_twice():
    for tools in (["wrk", "locust"], ["locust"]):
        cells = [(cell.tool, cell.workload, cell.users) for cell in standard(tools, TARGETS)]
        assert len(cells) == len(set(cells))


def test_the_standard_plan_shows_every_server_and_every_tool_that_is_there():
    plan = standard(["wrk", "locust"], TARGETS)
    assert {target.name for cell in plan for target in cell.targets} == {target.name for target in TARGETS}
    assert {cell.tool for cell in plan} == {"wrk", "locust"}
    assert {cell.tool for cell in standard(["locust"], TARGETS)} == {"locust"}
    mixed = [cell for cell in plan if cell.tool == "wrk" and cell.workload.name == "same-data"]
    assert sorted(cell.users for cell in mixed) == [3, 24, 96, 384]
