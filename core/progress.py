"""How far a sampler is, told to whoever listens, who may stop it there; where nobody listens it costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

#: (steps done, steps in all); what it raises ends the sampling
Listener = Callable[[int, int], None]


class Cancelled(Exception):  # noqa: N818 (a name that says what happened)
    """Nobody wants the answer any longer; raised by a listener."""


@dataclass
class _Heard:
    listener: Listener
    done: int = 0
    steps: int = 0


_HEARD: ContextVar[_Heard | None] = ContextVar("progress", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Whatever samples in this context, on this thread, tells the listener; an inner context has its own."""
    token = _HEARD.set(_Heard(listener))
    try:
        yield
    finally:
        _HEARD.reset(token)


def expect(steps: int) -> None:
    """A sampling begins that takes so many steps, most of them calls of a network."""
    if (heard := _HEARD.get()) is not None:
        heard.done, heard.steps = 0, steps
        heard.listener(0, steps)


def tick(steps: int = 1) -> None:
    """So many steps are done; 0 where a long one can be stopped half-way.

    Raises:
        Cancelled: or whatever else the listener raises.
    """
    if (heard := _HEARD.get()) is not None:
        heard.done = min(heard.done + steps, heard.steps)
        heard.listener(heard.done, heard.steps)
