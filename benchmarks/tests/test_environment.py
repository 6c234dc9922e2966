"""What results say about where they were made."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.environment import revision


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "stats").mkdir()
    for name in ("code.py", "stats/summary.json"):
        (tmp_path / name).write_text("as committed")
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def commit(checkout: Path) -> str:
    told = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, check=True
    )
    return told.stdout.decode().strip()


def test_the_revision_is_the_commit(checkout: Path):
    assert revision(checkout) == commit(checkout)


def test_code_that_differs_from_the_commit_is_told(checkout: Path):
    (checkout / "code.py").write_text("changed")
    assert revision(checkout) == f"{commit(checkout)}-dirty"


def test_results_of_other_runs_do_not_make_the_code_another(checkout: Path):
    (checkout / "stats/summary.json").write_text("measured anew")
    assert revision(checkout) == commit(checkout)


def test_without_a_repository_the_revision_is_unknown(tmp_path: Path):
    assert revision(tmp_path) == "unknown"
