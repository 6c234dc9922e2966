"""The scripts in ``scenarios/``: each gives the output that is written down in it.

``REWRITE_SCENARIOS=1 pytest common_raft/tests/test_core_scenarios.py`` writes the present output into the files;
read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common_raft.testing.script import Script, ScriptError, parse, replay

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    expected = path.read_text()
    now = replay(expected)
    if os.environ.get("REWRITE_SCENARIOS"):
        path.write_text(now)
    else:
        assert now == expected


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) > 25


def test_a_script_is_blocks_of_commands_and_their_output() -> None:
    first, second = parse("# Why.\ncluster 3\nstatus 1\n----\none\ntwo\n\nheal\n")
    assert (first.comments, first.commands, first.output) == (
        ["# Why."],
        ["cluster 3", "status 1"],
        ["one", "two"],
    )
    assert (second.commands, second.output) == (["heal"], [])


def test_replaying_fills_in_the_output() -> None:
    assert replay("cluster 3\nlogs 1\n\n# Nothing to say.\nheal\n") == (
        "cluster 3\nlogs 1\n----\n1: (empty)\n\n# Nothing to say.\nheal\n----\nok\n"
    )


@pytest.mark.parametrize("command", ["jump 1", "tick 7", "tick one", "node 1 log", "step Nonsense to=1"])
def test_mistakes_in_a_script_are_named(command: str) -> None:
    script = Script()
    script.run("cluster 3")
    with pytest.raises(ScriptError):
        script.run(command)
