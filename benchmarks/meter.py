"""The cost of one load: processor time and peak memory of each end, and disturbances.

`metered` measures one load on a lab; `watched` only says whether others disturbed a part
of a run that has no lab.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.accounting import Cpu, Foreign, foreign, peak_rss, reset_peak_rss, snapshot
from benchmarks.lab import Lab
from benchmarks.model import Recording

_UNDISTURBED = Foreign(0.0, 0.0, "")


@dataclass(slots=True)
class Usage:
    """`ends` and `peaks` (bytes) are left and right; zeros where no daemon runs."""

    elapsed: float = 0.0
    ends: tuple[Cpu, Cpu] = (Cpu(), Cpu())
    peaks: tuple[int, int] = (0, 0)
    machine: float = 0.0
    """Busy seconds of the machine less the foreign ones: load, kernel and tunnel together."""
    foreign: Foreign = field(default=_UNDISTURBED)

    @property
    def cpu(self) -> Cpu:
        """Both ends together."""
        return self.ends[0] + self.ends[1]


@contextlib.contextmanager
def metered(lab: Lab) -> Iterator[Usage]:
    """Yields a `Usage` that is filled when the context ends without an error."""
    pids = [daemon.pid for daemon in lab.daemons]
    for pid in pids:
        reset_peak_rss(pid)
    usage = Usage()
    before = snapshot(time.monotonic())
    yield usage
    after = snapshot(time.monotonic())
    usage.elapsed = after.at - before.at
    usage.foreign = foreign(before, after, os.getpid())
    usage.machine = max(0.0, after.busy - before.busy - usage.foreign.seconds)
    if len(pids) == 2:
        left, right = (after.tree(pid).since(before.tree(pid)) for pid in pids)
        usage.ends = (left, right)
        usage.peaks = (peak_rss(pids[0]), peak_rss(pids[1]))


@contextlib.contextmanager
def watched(recording: Recording, what: str) -> Iterator[None]:
    """A note in `recording` if others used much of the machine inside.

    CPU time stays CPU time then, but caches and clock speed are shared.
    """
    before = snapshot(time.monotonic())
    yield
    words = foreign(before, snapshot(time.monotonic()), os.getpid()).words
    if words:
        recording.notes.append(f"{what}: {words}")
