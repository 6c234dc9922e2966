"""What the tests of broken cores share: how a core is broken, and what must be found then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from common_raft.core.raft import HANDLERS, Raft
from common_raft.testing import RULES, Rule, Simulation, SimulationFailed, Weather

Break = Callable[[pytest.MonkeyPatch], None]


def replace_handler(patch: pytest.MonkeyPatch, message: type, handler: Callable[[Raft, Any], None]) -> None:
    """The role table holds functions, so that replacing one in its module would change nothing."""
    for cells in HANDLERS.values():
        if message in cells:
            patch.setitem(cells, message, handler)  # type: ignore[arg-type]


class Expected(NamedTuple):
    rules: str  #: those that may report it, separated by spaces; LogDamaged is the core's own alarm
    seeds: int = 100  #: within which it must be found
    weather: Weather | None = None  #: what brings it out; None: whatever the seed brings


def first_failure(
    seeds: int, weather: Weather | None, rules: tuple[type[Rule], ...] = RULES, passed_over: str = ""
) -> SimulationFailed | None:
    """``passed_over``: what others may report, but is not looked for here."""
    for seed in range(seeds):
        try:
            Simulation(seed, weather=weather, rules=rules).run(steps=1000)
        except SimulationFailed as failure:
            if failure.rule != passed_over:
                return failure
    return None


def must_be_found(break_core: Break, expected: Expected, monkeypatch: pytest.MonkeyPatch) -> None:
    break_core(monkeypatch)
    failure = first_failure(expected.seeds, expected.weather)
    assert failure is not None, f"{expected.seeds} seeds did not find it"
    assert failure.rule in expected.rules.split(), str(failure)
