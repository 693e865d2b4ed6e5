"""Processor time of a repeated step, with its preparation left out."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Lost(RuntimeError):
    """A path gave back less than it was given: its speed means nothing."""


def cost(prepare: Callable[[], list[T]], step: Callable[[list[T]], int], seconds: float) -> float:
    """CPU seconds per item of `step`, over rounds of at least `seconds` in all.

    `prepare` makes each round's items, untimed; `step` returns how many came out.
    Raises `Lost` when that is not how many went in.
    """
    spent, items = 0, 0
    with no_collector():
        while spent < seconds * 1e9:
            batch = prepare()
            before = time.process_time_ns()
            came_out = step(batch)
            spent += time.process_time_ns() - before
            if came_out != len(batch):
                raise Lost(f"{came_out} of {len(batch)} came out")
            items += len(batch)
    return spent / 1e9 / items


@contextmanager
def no_collector() -> Iterator[None]:
    """Collect garbage now and not meanwhile: preparation's garbage is not the step's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
