"""The faults of `faults.toml`, and how one alters a module's source."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DAEMON: Final = "wgpy.dataplane."
"""Faults below this package are planted into the daemon: the engine lacks that code."""


class FaultDoesNotFit(Exception):
    """The source is not as the fault expects it; the text names the fault and the module."""


@dataclass(frozen=True, slots=True)
class Fault:
    """In `module`, write `instead` where the source has `find` (exactly once)."""

    name: str
    what: str
    module: str
    find: str
    instead: str

    @property
    def in_daemon(self) -> bool:
        """Whether it is planted into the daemon, not into the engine."""
        return self.module.startswith(DAEMON)


def _load() -> dict[str, Fault]:
    tables = tomllib.loads(Path(__file__).with_name("faults.toml").read_text())
    return {name: Fault(name=name, **table) for name, table in tables.items()}


FAULTS: Final = _load()


def altered(fault: Fault, source: str) -> str:
    """The source with the fault in it; raises `FaultDoesNotFit`."""
    times = source.count(fault.find)
    if times != 1:
        raise FaultDoesNotFit(
            f"fault {fault.name}: its text occurs {times} times in {fault.module}, not once; "
            f"correct `find` in tests/mutants/faults.toml: {fault.find!r}"
        )
    return source.replace(fault.find, fault.instead)
