"""That `mutants.py` changes one thing at a time, and tells apart what is found from what survives."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from common_raft.tests import mutants
from common_raft.tests.mutants import CORE, Mutant, mutants_of, survives


def test_every_mutant_differs_from_the_core_and_from_the_others() -> None:
    file = CORE / "quorum.py"
    sources = [mutant.source for mutant in mutants_of(file)]
    assert len(sources) > 10
    assert len({*sources, ast.unparse(ast.parse((mutants.ROOT / file).read_text()))}) == len(sources) + 1


def test_annotations_and_messages_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "module.py").write_text(
        "x: Literal[1] = f()\ndef g(y: Literal[2]) -> Literal[3]:\n    raise E(4)\n"
    )
    assert not list(mutants_of(Path("module.py")))


@pytest.mark.parametrize(("command", "survived"), [("true", True), ("false", False)])
def test_a_mutant_survives_what_passes_with_it(
    command: str, survived: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "module.py"
    file.write_text("a + b")
    monkeypatch.setattr(mutants, "_commands", lambda directory, seeds: iter([[command]]))
    assert survives(Mutant(Path("module.py"), 1, "a + b", "a - b", "a - b"), tmp_path, 1) is survived
    assert file.read_text() == "a + b"
