"""Who used the processor: the measured processes, and all others.

One pass over ``/proc/*/stat`` gives a `Snapshot`; the difference of two gives the time of
a process tree (children included, reaped or alive) and the time *foreign* processes took.
Kernel threads count for neither: they work for the measured traffic.

Invariant: CPU time never gets lost between two snapshots when a child ends, because the
parent's reaped-children time takes it over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
_KERNEL_THREAD = 0x0020_0000  # PF_KTHREAD of include/linux/sched.h

DISTURBED_SHARE = 0.05
"""Above this share of the machine for others, a measurement counts as disturbed."""

RESOLUTION = 0.04
"""Seconds below which foreign time cannot be distinguished from the rounding of ticks."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of processor time."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self) -> float:
        return self.user + self.system

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.user + other.user, self.system + other.system)

    def since(self, earlier: Cpu) -> Cpu:
        """The difference, never below zero."""
        return Cpu(max(0.0, self.user - earlier.user), max(0.0, self.system - earlier.system))


@dataclass(frozen=True, slots=True)
class Process:
    """One line of ``/proc/PID/stat``; `cpu` includes reaped children, `alone` does not."""

    pid: int
    parent: int
    name: str
    kernel: bool
    cpu: Cpu
    alone: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All processes, and the machine's ``/proc/stat``, at `at` (monotonic seconds)."""

    at: float
    processes: Mapping[int, Process]
    busy: float
    stolen: float
    cpus: int

    def members(self, root: int) -> set[int]:
        """`root` and its living descendants."""
        children: dict[int, list[int]] = {}
        for process in self.processes.values():
            children.setdefault(process.parent, []).append(process.pid)
        found: set[int] = set()
        waiting = [root] if root in self.processes else []
        while waiting:
            pid = waiting.pop()
            found.add(pid)
            waiting.extend(children.get(pid, ()))
        return found

    def tree(self, root: int) -> Cpu:
        """Time of `root` and its descendants, dead or alive; zero when `root` is gone."""
        return sum((self.processes[pid].cpu for pid in self.members(root)), Cpu())

    def others(self, root: int) -> float:
        """Seconds used by user processes outside the tree of `root`."""
        own = self.members(root)
        known = self.processes.values()
        return sum(p.cpu.total for p in known if p.pid not in own and not p.kernel)

    def kernel_threads(self) -> float:
        """Seconds used by kernel threads."""
        return sum(p.cpu.total for p in self.processes.values() if p.kernel)


@dataclass(frozen=True, slots=True)
class Foreign:
    """The CPU time of others: seconds, the share of the machine, and the busiest of them."""

    seconds: float
    share: float
    busiest: str

    @property
    def disturbed(self) -> bool:
        return self.share > DISTURBED_SHARE and self.seconds > RESOLUTION

    @property
    def words(self) -> str:
        """Which processes disturbed and how much; empty if none did."""
        if not self.disturbed:
            return ""
        most = f", most of it {self.busiest}" if self.busiest else ""
        return f"others used {self.share:.0%} of the machine{most}"


def parse_stat(line: str) -> Process:
    """A ``/proc/PID/stat`` line; the name may hold spaces and parentheses."""
    opening, closing = line.index("("), line.rindex(")")
    fields = line[closing + 2 :].split()
    flags, times = int(fields[6]), [int(field) for field in fields[11:15]]
    return Process(
        pid=int(line[:opening]),
        parent=int(fields[1]),
        name=line[opening + 1 : closing],
        kernel=bool(flags & _KERNEL_THREAD),
        cpu=Cpu((times[0] + times[2]) / TICKS, (times[1] + times[3]) / TICKS),
        alone=(times[0] + times[1]) / TICKS,
    )


def parse_machine(text: str) -> tuple[float, float, int]:
    """(busy seconds, stolen seconds, number of processors) from ``/proc/stat``."""
    lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(f) for f in lines[0][1:9])
    return (user + nice + system + irq + softirq) / TICKS, steal / TICKS, len(lines) - 1


def snapshot(at: float, root: Path = Path("/proc")) -> Snapshot:
    """Read everything now; `at` is the caller's monotonic clock in seconds."""
    processes: dict[int, Process] = {}
    for entry in root.iterdir():
        if entry.name.isdigit():
            try:
                process = parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
            processes[process.pid] = process
    busy, stolen, cpus = parse_machine((root / "stat").read_text())
    return Snapshot(at, processes, busy, stolen, cpus)


def foreign(before: Snapshot, after: Snapshot, own: int) -> Foreign:
    """CPU time of processes outside the tree of `own` between two snapshots.

    The greater of two views counts: the sum over visible foreign processes, and the
    machine's busy time that neither our processes nor kernel threads explain (it also sees
    processes of other containers).  Time stolen by the hypervisor comes on top.
    """
    elapsed = max(after.at - before.at, 1e-9)
    visible = max(0.0, after.others(own) - before.others(own))
    ours = after.tree(own).since(before.tree(own)).total
    kernel = max(0.0, after.kernel_threads() - before.kernel_threads())
    unexplained = max(0.0, after.busy - before.busy - ours - kernel)
    seconds = max(visible, unexplained) + max(0.0, after.stolen - before.stolen)
    return Foreign(seconds, seconds / (elapsed * after.cpus), _busiest(before, after, own))


def _busiest(before: Snapshot, after: Snapshot, own: int) -> str:
    mine = after.members(own)
    best, name = 0.0, ""
    for process in after.processes.values():
        if process.kernel or process.pid in mine:
            continue
        earlier = before.processes.get(process.pid)
        used = process.alone - (earlier.alone if earlier else 0.0)
        if used > best:
            best, name = used, process.name
    return f"{name} ({best:.1f} s)" if name else ""


def peak_rss(pid: int, root: Path = Path("/proc")) -> int:
    """Sum of the peak resident sizes (VmHWM) of `pid` and its living descendants, in bytes."""
    total = 0
    for member in snapshot(0.0, root).members(pid):
        try:
            status = (root / str(member) / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024
    return total


def reset_peak_rss(pid: int, root: Path = Path("/proc")) -> None:
    """Make `peak_rss` count from now (proc(5), ``clear_refs`` 5)."""
    for member in snapshot(0.0, root).members(pid):
        try:
            (root / str(member) / "clear_refs").write_text("5")
        except OSError:  # already ended, or a kernel without it: the peak since its start
            continue
