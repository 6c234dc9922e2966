"""System calls that count, and fail when they are told to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest


class Calls:
    """Replaces a function of ``os`` by one that counts, and fails from the ``fail_from``-th call on."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, name: str, error: int = 0, fail_from: int = 1
    ) -> None:
        self.real: Callable[..., Any] = getattr(os, name)
        self.count = 0
        self.error = error
        self.fail_from = fail_from
        monkeypatch.setattr(os, name, self)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.count += 1
        if self.error and self.count >= self.fail_from:
            raise OSError(self.error, os.strerror(self.error))
        return self.real(*arguments, **named)
