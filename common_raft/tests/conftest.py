"""What holds for all tests here, and how many answers were compared with etcd's."""

import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings

# No test asserts a time: a busy machine may take any.
settings.register_profile("raftstacks", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "raftstacks"))

_COMPARED = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def compared(pytestconfig: pytest.Config) -> Counter[str]:
    """How many answers of whom were like etcd's: told at the end of the run."""
    return _compared(pytestconfig)


def _compared(config: pytest.Config) -> Counter[str]:
    return config.stash.setdefault(_COMPARED, Counter())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes of pytest-xdist tells the first of them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["compared"] = dict(_compared(session.config))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _compared(node.config).update(getattr(node, "workeroutput", {}).get("compared", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    compared = _compared(config)
    if compared:
        each = ", ".join(f"{name} {count:,}" for name, count in sorted(compared.items()))
        terminalreporter.write_line(f"answers like etcd's: {compared.total():,} ({each})")
