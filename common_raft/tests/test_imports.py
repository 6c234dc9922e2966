"""Imports point one way: read from the source, so that nothing has to be imported to find out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: A layer of common_raft, and the layers of common_raft that it may import, besides itself.
#: Left out: service, which puts the layers together, testing, which looks into all, and tests.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "measures": set(),
    "storage": {"core", "measures"},
    "transport": {"core", "measures"},
    "drivers": {"core", "measures", "storage", "transport"},
    "keyspace": set(),
    "stores": {"keyspace"},
    "web": {"keyspace", "measures"},
    "independent": {"drivers", "keyspace", "service", "web"},
}

#: Ways to reach a clock, chance, threads or the world outside.  The core has none of them.
IMPURE = {
    "asyncio", "concurrent", "datetime", "multiprocessing", "os", "pathlib", "random", "secrets", "select",
    "selectors", "socket", "subprocess", "sys", "threading", "time", "uuid",
}  # fmt: skip

VARIANTS = {"v1", "v2", "v3"}


def sources(package: str) -> list[Path]:
    """The files of a package, or of a module."""
    files = [*(ROOT / package).rglob("*.py"), *ROOT.glob(f"{package}.py")]
    return sorted(path for path in files if "tests" not in path.relative_to(ROOT).parts)


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it, `from a import b` as both a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative
                parts = path.relative_to(ROOT).with_suffix("").parts
                base = parts[: len(parts) - node.level]
                module = ".".join([*base, module] if module else base)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layers_imported(path: Path) -> set[str]:
    names = [name.split(".") for name in imports(path)]
    return {parts[1] for parts in names if parts[0] == "common_raft" and len(parts) > 1}


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layers_of_common_raft_import_only_what_lies_below(layer: str) -> None:
    allowed = MAY_IMPORT[layer] | {layer}
    wrong = {
        str(path.relative_to(ROOT)): sorted(layers_imported(path) - allowed)
        for path in sources(f"common_raft/{layer}")
        if layers_imported(path) - allowed
    }
    assert not wrong


def test_the_core_reaches_no_clock_no_chance_no_threads_and_no_io() -> None:
    paths = sources("common_raft/core")
    assert len(paths) > 5
    for path in paths:
        assert not {name.split(".")[0] for name in imports(path)} & IMPURE, path


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("common_raft", VARIANTS | {"benchmarks"}),
        ("benchmarks", VARIANTS | {"common_raft"}),
        ("v1", {"v2", "v3", "benchmarks"}),
        ("v2", {"v1", "v3", "benchmarks"}),
        ("v3", {"v1", "v2", "benchmarks"}),
    ],
)
def test_packages_do_not_import(package: str, forbidden: set[str]) -> None:
    for path in sources(package):
        assert not {name.split(".")[0] for name in imports(path)} & forbidden, path


def test_nothing_but_tests_imports_the_simulator() -> None:
    for path in sources("common_raft"):
        if "testing" not in path.relative_to(ROOT).parts:
            assert "testing" not in layers_imported(path), path


def test_the_reader_of_imports_sees_all_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    module = tmp_path / "common_raft" / "core" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "import os.path\nfrom . import log\nfrom ..web import golang\ndef f():\n    import time\n"
    )
    assert set(imports(module)) == {
        "os.path", "common_raft.core", "common_raft.core.log", "common_raft.web", "common_raft.web.golang", "time",
    }  # fmt: skip
    assert layers_imported(module) == {"core", "web"}
