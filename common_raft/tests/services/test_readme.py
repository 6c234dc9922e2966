"""What the README says can be typed is typed."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from common_raft.testing.processes import free_ports

ROOT = Path(__file__).parents[3]


@pytest.mark.processes
def test_the_counter_of_the_readme_runs_and_agrees(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"^    import asyncio, sys\n(?:    .*\n|\n)+?(?=\S)", readme, re.MULTILINE)
    assert found is not None
    script = tmp_path / "counter.py"
    script.write_text(textwrap.dedent(found[0]))
    assert sum(bool(line.strip()) for line in script.read_text().splitlines()) <= 32
    ports = map(str, free_ports(3))
    arguments = [sys.executable, str(script), "{}", *ports]
    nodes = [
        subprocess.Popen(
            [part.format(number) for part in arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2, 3)
    ]
    for number, node in enumerate(nodes, start=1):
        output, _ = node.communicate(timeout=60)
        assert output.splitlines()[-1] == f"node {number}: the total is 30"
