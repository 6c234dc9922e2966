"""Work in several steps, each of which ends with a call back: at once on threads, later on an event loop.

A flow is a generator that yields steps.  A step is a function that is given what to call with its result.
"""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")

Step = Callable[[Callable[[T], None]], object]
Flow = Generator[Step[Any], Any, T]


def wait(step: Step[T]) -> Flow[T]:
    """What a step gives, for ``yield from``."""
    result: T = yield step
    return result


def run(flow: Flow[T], done: Callable[[T], None]) -> None:
    """Carries a flow out; ``done`` gets what it returns, before this returns if all of its steps end at once."""

    def go_on(result: Any) -> None:
        try:
            step = flow.send(result)
        except StopIteration as stop:
            done(stop.value)
        else:
            step(go_on)

    go_on(None)
