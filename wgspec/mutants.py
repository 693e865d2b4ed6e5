"""Faults to plant in wgpy's engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


class FaultDoesNotFit(Exception):
    """The source is not as the fault expects it; the text says what to look at."""


@dataclass(frozen=True, slots=True)
class Fault:
    """In `module`, write `instead` where the source has `find` (exactly once)."""

    name: str
    what: str
    module: str
    find: str
    instead: str


def altered(fault: Fault, source: str) -> str:
    """The source with the fault in it; raises `FaultDoesNotFit`."""
    times = source.count(fault.find)
    if times != 1:
        raise FaultDoesNotFit(
            f"{fault.name}: {fault.find!r} occurs {times} times in {fault.module}, not once"
        )
    return source.replace(fault.find, fault.instead)


FAULTS: Final[dict[str, Fault]] = {}
