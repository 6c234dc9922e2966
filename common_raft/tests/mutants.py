"""Mutation testing of the core, on demand: ``python -m common_raft.tests.mutants --sample 50`` (`make mutants`).

Each mutant is the core with one small change: a comparison, an operator, a number, a condition turned round, a
statement left out.  The tests of the core, and then some seeds of the simulation, should fail with it; those that do
not are listed.  Some cannot fail: they change what nobody can see (a capacity, a default that is always given).

Why not mutmut or cosmic-ray: both want to run the whole suite, of which most does not concern the core.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CORE = Path("common_raft/core")
#: In the order in which they run: those that find most of all that is changed come first.
TESTS = (
    "test_core_scenarios.py",
    "test_core_raft.py",
    "test_core_[!rs]*.py",
    "test_quorum.py",
    "test_transport_versions.py",
)
#: A mutant that takes so many times as long as the core as it is runs in circles, and is found by that.
PATIENCE = 10.0
MIN_TIME_LIMIT = 30.0  #: in seconds, since the machine may be busy

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


class Mutant(NamedTuple):
    file: Path  #: relative to the project
    line: int
    before: str
    after: str
    source: str  #: of the whole file

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before}  ->  {self.after}"


def changed(node: ast.AST) -> ast.AST | None:
    """The one change that is made to ``node``; None if there is none."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
            return ast.Compare(node.left, [_COMPARISONS[type(op)]()], node.comparators)
        case ast.BoolOp():
            return ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
        case ast.UnaryOp(op=ast.Not()):
            return node.operand
        case ast.Constant(value=bool()):
            return ast.Constant(not node.value)
        case ast.Constant(value=int()):
            return ast.Constant(node.value + 1)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return None
        case ast.If(test=ast.Name() | ast.Attribute() | ast.Call()):
            return ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Assign(targets=[ast.Attribute()]):
            return ast.Pass()
        case _:
            return None


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Where something can be changed, as (parent, field, position): in code, not in annotations and messages."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or isinstance(
            node, ast.Raise | ast.JoinedStr
        ):
            continue
        for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                if changed(child) is not None:
                    yield node, field, position
                yield from places(child)


def mutants_of(file: Path) -> Iterator[Mutant]:
    tree = ast.parse((ROOT / file).read_text())
    for number in range(len(list(places(tree)))):
        mutated = copy.deepcopy(tree)
        parent, field, position = list(places(mutated))[number]
        value = getattr(parent, field)
        before = value if position is None else value[position]
        after = changed(before)
        if position is None:
            setattr(parent, field, after)
        else:
            value[position] = after
        lines = [ast.unparse(each).split("\n")[0] for each in (before, after) if each is not None]
        source = ast.unparse(ast.fix_missing_locations(mutated))
        yield Mutant(file, getattr(before, "lineno", 0), lines[0], lines[1], source)


def survives(mutant: Mutant, directory: Path, seeds: int, time_limit: float = MIN_TIME_LIMIT) -> bool:
    """Whether neither tests nor simulation notice; ``directory`` holds a copy of the project."""
    file = directory / mutant.file
    original = file.read_text()
    file.write_text(mutant.source)
    try:
        return all(_passes(command, directory, time_limit) for command in _commands(directory, seeds))
    finally:
        file.write_text(original)


def _commands(directory: Path, seeds: int) -> Iterator[list[str]]:
    tests = [
        str(path) for pattern in TESTS for path in sorted((directory / "common_raft/tests").glob(pattern))
    ]
    yield [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    yield [sys.executable, "-m", "common_raft.testing", "--seeds", f"0:{seeds}", "--steps", "600"]


def _passes(command: Sequence[str], directory: Path, time_limit: float | None) -> bool:
    """Without plugins, which these tests do not need, and which take longer to load than most mutants live."""
    environment = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(directory),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    try:
        result = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, timeout=time_limit, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0


def copy_of_project(target: Path) -> Path:
    target.mkdir()
    shutil.copy(ROOT / "pyproject.toml", target)
    shutil.copytree(
        ROOT / "common_raft", target / "common_raft", ignore=shutil.ignore_patterns("__pycache__")
    )
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m common_raft.tests.mutants", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--sample", type=int, help="so many of the mutants, drawn at random (default: all)")
    parser.add_argument("--draw", type=int, default=0, help="which sample: a seed (default: 0)")
    parser.add_argument("--seeds", type=int, default=100, help="of the simulation, for each (default: 100)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("files", nargs="*", help="modules of the core, such as log.py (default: all)")
    options = parser.parse_args(arguments)
    files = [CORE / name for name in options.files] or sorted(
        p.relative_to(ROOT) for p in (ROOT / CORE).glob("*.py")
    )
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    total = len(mutants)
    if options.sample is not None and options.sample < total:
        mutants = Random(options.draw).sample(mutants, options.sample)
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for job in range(options.jobs):
            copies.put(copy_of_project(Path(temporary) / str(job)))
        directory = copies.get()
        started = time.monotonic()
        if not all(_passes(command, directory, None) for command in _commands(directory, options.seeds)):
            sys.exit("the core as it is fails the tests or the simulation: see to that first")
        time_limit = max(MIN_TIME_LIMIT, PATIENCE * (time.monotonic() - started))
        copies.put(directory)

        def judge(mutant: Mutant) -> bool:
            own = copies.get()
            try:
                return survives(mutant, own, options.seeds, time_limit)
            finally:
                copies.put(own)

        survivors = 0
        for mutant, survived in zip(mutants, pool.map(judge, mutants), strict=True):
            survivors += survived
            print(f"{'SURVIVES' if survived else 'found   '}  {mutant}", flush=True)
    found = len(mutants) - survivors
    print(f"{found} of {len(mutants)} mutants found ({found / len(mutants):.0%}); there are {total} in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
