"""Processor time of a repeated step without its preparation and without the collector."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Lost(RuntimeError):
    """A path returned less than it was given: its speed means nothing."""


def cost(
    prepare: Callable[[], int],
    step: Callable[[], None],
    came_out: Callable[[], int],
    seconds: float,
) -> float:
    """CPU seconds per item of `step`, over rounds of at least `seconds` in all.

    `prepare` makes a round's items and says how many, `came_out` says how many `step` gave
    back; neither is timed.  Raises `Lost` when that is not the same number.
    """
    spent, items = 0, 0
    with no_collector():
        while spent < seconds * 1e9:
            went_in = prepare()
            before = time.process_time_ns()
            step()
            spent += time.process_time_ns() - before
            if (arrived := came_out()) != went_in:
                raise Lost(f"{arrived} of {went_in} came out")
            items += went_in
    return spent / 1e9 / items


@contextmanager
def set_aside() -> Iterator[None]:
    """Inside, the collector ignores objects that exist already.

    With half a million entries in memory each `no_collector` would otherwise walk all of
    them before it lets a few milliseconds of work be timed.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def no_collector() -> Iterator[None]:
    """Collect garbage now and not inside: the garbage of the preparation is not the step's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
