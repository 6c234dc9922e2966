"""etcd's answers, which all tests here share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common_raft.tests.services.yardstick import Yardstick


@pytest.fixture(scope="session")
def answers_of_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yardstick]:
    yardstick = Yardstick(1, lambda: tmp_path_factory.mktemp("etcd"))
    yield yardstick
    yardstick.stop()


@pytest.fixture(scope="session")
def answers_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yardstick]:
    yardstick = Yardstick(3, lambda: tmp_path_factory.mktemp("etcd"))
    yield yardstick
    yardstick.stop()


@pytest.fixture(scope="module")
def one_etcd(answers_of_one: Yardstick) -> Iterator[Yardstick]:
    """A single etcd, which does not run for longer than the tests of a module."""
    yield answers_of_one
    answers_of_one.stop()


@pytest.fixture(scope="module")
def three_etcds(answers_of_three: Yardstick) -> Iterator[Yardstick]:
    yield answers_of_three
    answers_of_three.stop()
